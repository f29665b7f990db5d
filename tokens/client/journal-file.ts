/**
 * The wallet's journal as a file: read once, appended to durably, replaced whole by compaction.
 * Readable by its owner alone: a token is money to whoever holds it.
 */
import { constants } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { concatBytes } from "../../wire/index.ts";
import {
  encodeJournalEntry,
  JOURNAL_HEADER,
  type JournalEntry,
  parseJournal,
} from "./journal-format.ts";

type Sha256 = (data: Uint8Array) => Uint8Array;

export interface JournalFile {
  readonly size: number;
  /**
   * Resolves when the entry is on stable storage. After a rejection nothing is known about the end of
   * the file: the journal must not be used any more. Calls must not overlap.
   */
  append(entry: JournalEntry): Promise<void>;
  /** Replaces the content; a crash leaves the old or the new one whole. */
  rewrite(entries: readonly JournalEntry[]): Promise<void>;
  close(): Promise<void>;
}

/** Opens or creates the journal and cuts a torn end off. @throws `TOKEN_WALLET_DAMAGED` */
export async function openJournal(
  path: string,
  sha256: Sha256,
): Promise<{ readonly journal: JournalFile; readonly entries: readonly JournalEntry[] }> {
  await rm(draftOf(path), { force: true });
  const file = await openPrivate(path);
  try {
    const bytes = new Uint8Array(await file.readFile());
    const { entries, intactBytes } = parseJournal(bytes, sha256);
    let size = intactBytes;
    if (intactBytes < bytes.length || intactBytes === 0) {
      await file.truncate(intactBytes);
      if (intactBytes === 0) size = await writeAll(file, 0, JOURNAL_HEADER);
      await file.sync();
    }
    await syncDirectory(path);
    return { entries, journal: createJournalFile(path, file, size, sha256) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function createJournalFile(
  path: string,
  openedFile: FileHandle,
  openedSize: number,
  sha256: Sha256,
): JournalFile {
  let [file, size] = [openedFile, openedSize];
  return {
    get size() {
      return size;
    },
    async append(entry) {
      size = await writeAll(file, size, encodeJournalEntry(entry, sha256));
      await file.datasync();
    },
    async rewrite(entries) {
      const records = entries.map((entry) => encodeJournalEntry(entry, sha256));
      const next = await openPrivate(draftOf(path));
      try {
        const nextSize = await writeAll(next, 0, concatBytes([JOURNAL_HEADER, ...records]));
        await next.sync();
        await rename(draftOf(path), path);
        await syncDirectory(path);
        await file.close();
        [file, size] = [next, nextSize];
      } catch (error) {
        await next.close();
        throw error;
      }
    },
    close: () => file.close(),
  };
}

function draftOf(path: string): string {
  return `${path}.new`;
}

/** For reading and writing at positions, created with mode 0600, and set to it if it was not. */
async function openPrivate(path: string): Promise<FileHandle> {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  const file = await open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  await file.chmod(0o600);
  return file;
}

/** @returns the position after the last byte */
async function writeAll(file: FileHandle, position: number, bytes: Uint8Array): Promise<number> {
  let written = 0;
  while (written < bytes.length) {
    const rest = bytes.subarray(written);
    written += (await file.write(rest, 0, rest.length, position + written)).bytesWritten;
  }
  return position + bytes.length;
}

/** A name that was created or replaced is durable only with its directory. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(dirname(path), "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
