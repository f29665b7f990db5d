/**
 * File operations that have reached the disk when they return: a name that was created, replaced or
 * removed is only durable after an fsync of its directory, an fsync of the file alone is not enough.
 * Contents are replaced by rename, so that a crash leaves the old file or the new one, never half.
 */
import { randomBytes } from "node:crypto";
import { link, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

const PRIVATE_FILE_MODE = 0o600;
const PRIVATE_FOLDER_MODE = 0o700;
/** Ends the name of a file that is being written; a crash may leave one behind. */
const PARTIAL_SUFFIX = ".partial";
const PARTIAL_RANDOM_BYTES = 8;
/** By how much the name of a file that is being written is longer than its own. */
export const PARTIAL_NAME_CHARS: number = 1 + 2 * PARTIAL_RANDOM_BYTES + PARTIAL_SUFFIX.length;

/** Creates the folder (owner only) and its parents where they are missing. */
export async function makeFolderDurably(folder: string): Promise<void> {
  const created = await mkdir(folder, { recursive: true, mode: PRIVATE_FOLDER_MODE });
  if (created === undefined) return;
  // Every new folder is an entry of its parent, up to the parent of the first one that was missing.
  const first = dirname(created);
  let parent = dirname(folder);
  await syncFolder(parent);
  while (parent !== first && parent !== dirname(parent)) {
    parent = dirname(parent);
    await syncFolder(parent);
  }
}

/** Makes the present entries of a folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes or replaces a file that only its owner may read. */
export async function replaceFileDurably(path: string, bytes: Uint8Array): Promise<void> {
  await writeThrough(path, bytes, async (partial) => {
    await rename(partial, path);
  });
}

/**
 * Writes a file unless it exists. Several processes may try at once: link(2) lets one win.
 * @returns false where the file exists; its contents are then complete, for they were linked whole.
 */
export async function createFileDurably(path: string, bytes: Uint8Array): Promise<boolean> {
  let won = true;
  await writeThrough(path, bytes, async (partial) => {
    try {
      await link(partial, path);
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
      won = false;
    }
  });
  return won;
}

/** Removes a file, and what crashes left of writing it. Absence is not an error. */
export async function removeFileDurably(path: string): Promise<void> {
  const folder = dirname(path);
  const prefix = `${basename(path)}.`;
  for (const name of await readdir(folder)) {
    if (name.startsWith(prefix) && name.endsWith(PARTIAL_SUFFIX)) await rm(join(folder, name));
  }
  await rm(path, { force: true });
  await syncFolder(folder);
}

/** True for an error of the operating system with this code, such as ENOENT. */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

async function writeThrough(
  path: string,
  bytes: Uint8Array,
  publish: (partial: string) => Promise<void>,
): Promise<void> {
  const partial = `${path}.${randomBytes(PARTIAL_RANDOM_BYTES).toString("hex")}${PARTIAL_SUFFIX}`;
  try {
    // "wx": never through a link or file that somebody else has put there.
    const handle = await open(partial, "wx", PRIVATE_FILE_MODE);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await publish(partial);
  } finally {
    await rm(partial, { force: true });
  }
  await syncFolder(dirname(path));
}
