/**
 * The little of LevelDB that the stores need, behind an interface so that tests can inject failures.
 * Every write is one batch, atomic and on disk (fdatasync of the log) when it returns.
 * LevelDB takes an exclusive lock on its folder: a second process, or a second open in this one, is
 * refused. The lock is fcntl(2): it does not hold across machines that share a network file system.
 */
import { ClassicLevel } from "classic-level";

export interface LevelWrite {
  readonly key: Uint8Array;
  /** Absent: the key is deleted. */
  readonly value?: Uint8Array;
}

export interface Level {
  /** The values in the order of the keys; `undefined` where a key is absent. */
  getMany(keys: readonly Uint8Array[]): Promise<readonly (Uint8Array | undefined)[]>;
  /** Up to `limit` keys with `from <= key < to`, in order. */
  keys(from: Uint8Array, to: Uint8Array, limit: number): Promise<readonly Uint8Array[]>;
  /** All or nothing. After a rejection it is unknown which of the two the disk holds. */
  writeDurably(writes: readonly LevelWrite[]): Promise<void>;
  close(): Promise<void>;
}

export interface OpenLevelOptions {
  /** False: a folder without a database is an error, not an empty database. */
  readonly createIfMissing: boolean;
}

export type OpenLevel = (folder: string, options: OpenLevelOptions) => Promise<Level>;

/** Log and memory table: larger than LevelDB's 4 MiB, for fewer and longer merges of random keys. */
const WRITE_BUFFER_BYTES = 16 * 1024 * 1024;

/** Opens a database with `classic-level`. */
export async function openClassicLevel(folder: string, options: OpenLevelOptions): Promise<Level> {
  const db = new ClassicLevel<Uint8Array, Uint8Array>(folder, {
    keyEncoding: "view",
    valueEncoding: "view",
    // Keys are random and values are digests: compression would only cost.
    compression: false,
    writeBufferSize: WRITE_BUFFER_BYTES,
    createIfMissing: options.createIfMissing,
  });
  await db.open();
  return {
    getMany: (keys) => db.getMany([...keys]),
    keys: (from, to, limit) => db.keys({ gte: from, lt: to, limit }).all(),
    async writeDurably(writes) {
      const operations = writes.map(({ key, value }) =>
        value === undefined ? { type: "del" as const, key } : { type: "put" as const, key, value },
      );
      await db.batch(operations, { sync: true });
    },
    close: () => db.close(),
  };
}

/** True where the open failed because another process, or another store of this one, has the lock. */
export function isLevelLocked(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ("code" in error && error.code === "LEVEL_LOCKED") || isLevelLocked(error.cause);
}
