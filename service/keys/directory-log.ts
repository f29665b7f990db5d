/**
 * The issuer's own copy of its directory log, `tokens/keys/directory-log.ts`: one file, one signed line for an
 * entry. A line is on disk before anybody is served what it says. What a crash left of a line was never
 * served, and is cut off; anything else that is not the log's is damage, with which the issuer does not start.
 */
import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import {
  type DirectoryLogEvent,
  type DirectoryLogHead,
  encodeDirectoryLogEntry,
  followDirectoryLog,
  type FollowedDirectoryLog,
  type TokenCrypto,
} from "../../tokens/index.ts";
import { constantTimeEqual, encodeUtf8 } from "../../wire/index.ts";
import type { Es256Key } from "../secrets.ts";
import { makeFolderDurably, syncFolder } from "../stores/durable-file.ts";
import { logSigner, logVerifier } from "./log-signature.ts";

export interface DirectoryLogOptions {
  readonly path: string;
  /** Issuer name. */
  readonly issuer: string;
  readonly key: Es256Key;
  readonly crypto: TokenCrypto;
  /** Unix milliseconds. */
  readonly clock: () => number;
}

export interface DirectoryLog {
  /**
   * Returns when this is the newest directory of the log: written, or found to be so.
   * @throws errors of the file system, `TOKEN_DIRECTORY_LOG_INVALID` for a directory that lists a revoked key;
   * nothing is then in the log
   */
  readonly publish: (directory: Uint8Array) => Promise<void>;
  /** Once for each key. @throws errors of the file system */
  readonly revoke: (tokenKeyId: Uint8Array) => Promise<void>;
  /** Hexadecimal ids. */
  readonly revoked: () => readonly string[];
  /** From this index on, at most `MAX_LINES`; each with a line end. */
  readonly linesFrom: (index: number) => string;
  readonly close: () => Promise<void>;
}

/** Of one answer, some 2 KB each. Who needs more asks again. */
export const MAX_LOG_LINES = 500;
const PRIVATE_FILE_MODE = 0o600;

/** @throws `TOKEN_DIRECTORY_LOG_INVALID` where the file is not this issuer's log */
export async function openDirectoryLog(options: DirectoryLogOptions): Promise<DirectoryLog> {
  const log = new FileLog(options, await openFile(options.path));
  try {
    await log.load();
  } catch (error) {
    await log.close();
    throw error;
  }
  return {
    publish: (directory) => log.publish(directory),
    revoke: (tokenKeyId) => log.revoke(tokenKeyId),
    revoked: () => log.head?.revoked ?? [],
    linesFrom: (index) => log.linesFrom(index),
    close: () => log.close(),
  };
}

async function openFile(path: string): Promise<FileHandle> {
  await makeFolderDurably(dirname(path));
  const file = await open(path, "a+", PRIVATE_FILE_MODE);
  await syncFolder(dirname(path));
  return file;
}

class FileLog {
  head: DirectoryLogHead | undefined;
  readonly #options: DirectoryLogOptions;
  readonly #file: FileHandle;
  readonly #sign: (payload: Uint8Array) => Promise<string>;
  readonly #lines: string[] = [];
  /** Bytes of the file that are whole lines. */
  #size = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(options: DirectoryLogOptions, file: FileHandle) {
    this.#options = options;
    this.#file = file;
    this.#sign = logSigner(options.key);
  }

  async load(): Promise<void> {
    const text = await this.#file.readFile("utf8");
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    this.#size = Buffer.byteLength(whole);
    const lines = whole.split("\n").slice(0, -1);
    if (lines.length === 0) return;
    this.head = (await this.#follow(lines)).head;
    this.#lines.push(...lines);
  }

  publish(directory: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const digest = this.#options.crypto.sha256(directory);
      if (this.head !== undefined && constantTimeEqual(this.head.directoryDigest, digest)) return;
      await this.#append({ kind: "directory", directory });
    });
  }

  revoke(tokenKeyId: Uint8Array): Promise<void> {
    return this.#inTurn(() => this.#append({ kind: "revocation", tokenKeyId }));
  }

  linesFrom(index: number): string {
    const lines = this.#lines.slice(index, index + MAX_LOG_LINES);
    return lines.map((line) => `${line}\n`).join("");
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#file.close();
  }

  async #append(event: DirectoryLogEvent): Promise<void> {
    const { clock, issuer } = this.#options;
    const line = await this.#sign(
      encodeDirectoryLogEntry({
        issuer,
        index: this.#lines.length,
        previous: this.head?.digest ?? new Uint8Array(0),
        // A clock that was set back must not spoil the log.
        timeMs: Math.max(clock(), this.head?.timeMs ?? 0),
        event,
      }),
    );
    // What followers would refuse is never written: it could not be taken back.
    const followed = await this.#follow(
      this.#lines.length === 0 ? [line] : [this.#lines.at(-1) ?? "", line],
    );
    const bytes = encodeUtf8(`${line}\n`);
    // What an earlier write or a crash left half done.
    await this.#file.truncate(this.#size);
    await this.#file.appendFile(bytes);
    await this.#file.datasync();
    this.#size += bytes.length;
    this.head = followed.head;
    this.#lines.push(line);
  }

  /** @param lines all, or the newest known one and what comes after it */
  #follow(lines: readonly string[]): Promise<FollowedDirectoryLog> {
    const { crypto, issuer, key } = this.#options;
    const verifier = { issuer, crypto, verify: logVerifier(key.publicKey) };
    return followDirectoryLog(lines, this.head, verifier);
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => undefined);
    return mine;
  }
}
