/**
 * The embedded {@link SpentStore}: one LevelDB per key epoch, under one folder, for one process.
 * ```
 * <folder>/lock/                   an empty LevelDB, held open for its lock alone
 * <folder>/<token key id>/         the nonces of an epoch (see spent-epoch.ts)
 * <folder>/<token key id>.created  the epoch exists: its database must never be found missing
 * <folder>/<token key id>.until    until when it is needed (see epoch-ends.ts)
 * <folder>/<token key id>.dropped  the epoch is over: it is never opened or created again
 * ```
 * A token key id is named by all of its 64 hexadecimal digits, so two never share a folder.
 *
 * The two marks keep a database from coming back empty. Without `created`, a deleted or unmounted
 * folder would read as "nothing was spent": with it, spends of that epoch fail closed until the
 * operator restores the folder or drops the epoch. Without `dropped`, a late spend after
 * {@link SpentStore.dropEpoch} would make a new, empty database and every old token fresh; the
 * redeemer refuses such a key first, but its clock may be set back and its key list restored from a
 * backup. A `dropped` mark is an empty file for each key ever used: nothing against what it protects.
 */
import { access, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { SpendOutcome, SpendRequest, SpentStore } from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import {
  createFileDurably,
  hasCode,
  makeFolderDurably,
  removeFileDurably,
  syncFolder,
} from "./durable-file.ts";
import { EpochEnds, UNTIL } from "./epoch-ends.ts";
import type { GroupCommitObserver } from "./group-commit.ts";
import { isLevelLocked, type Level, openClassicLevel, type OpenLevel } from "./level.ts";
import { SpentEpoch } from "./spent-epoch.ts";
import { checkDuration, checkIdentifier, checkSpendRequest } from "./spent-record.ts";
import { DEFAULT_GRACE_MS, DEFAULT_RETENTION_MS } from "./spent-remote.ts";

export interface SpentStoreObserver extends GroupCommitObserver {
  /** The number of nonces that the epoch now holds. The token key id is public, in hexadecimal. */
  entries?(tokenKeyIdHex: string, count: number): void;
}

export interface SpentLevelStoreOptions {
  /** Created where it is missing. On a disk of this machine: the lock does not span machines. */
  readonly folder: string;
  readonly observe?: SpentStoreObserver;
  /** Spends of one epoch that may wait, 1 or more. Default 16,384. */
  readonly maxQueued?: number;
  /** Spends in one write, 1 or more. Default 2,048. */
  readonly maxBatch?: number;
  /** Milliseconds that one write may take before further spends are refused. Default 2,000. */
  readonly stallMs?: number;
  /** Milliseconds for which spends are refused after a failure, before the next try. Default 200. */
  readonly reopenDelayMs?: number;
  /** Milliseconds that never jump. Default `performance.now`. */
  readonly monotonicMs?: () => number;
  /** Unix milliseconds, by which epochs end. Default `Date.now`. */
  readonly clock?: () => number;
  /** Milliseconds that a new epoch is kept for, and that one `keepEpoch` keeps it for at most. Default 90 days. */
  readonly retentionMs?: number;
  /** Milliseconds that an epoch is kept past its end. Default a day. */
  readonly graceMs?: number;
  /** Milliseconds, of those that never jump, for which it was seen to be past by then. Default an hour. */
  readonly settleMs?: number;
  /** Default `openClassicLevel`. */
  readonly openLevel?: OpenLevel;
}

const DROPPED = ".dropped";
const CREATED = ".created";
const EMPTY = new Uint8Array(0);
const SETTLE_MS = 3_600_000;

/**
 * Opens the store. `spend` is refused with `TOKEN_STORE_UNAVAILABLE` when the queue is full or the
 * disk fails, and works again by itself when the disk does; `TOKEN_KEY_UNKNOWN` after `dropEpoch`.
 * @throws `TOKEN_STORE_UNAVAILABLE` where another process holds the store or it cannot be opened
 */
export async function openSpentLevelStore(options: SpentLevelStoreOptions): Promise<SpentStore> {
  const { folder, openLevel = openClassicLevel } = options;
  let lock: Level | undefined;
  try {
    await makeFolderDurably(folder);
    lock = await openLevel(join(folder, "lock"), { createIfMissing: true });
    const names = new Set(await readdir(folder));
    const marks = [...names].filter((name) => name.endsWith(DROPPED));
    const dropped = marks.map((mark) => mark.slice(0, -DROPPED.length));
    const store = new SpentLevelStore(options, lock, dropped);
    await store.load(names);
    return store;
  } catch (cause) {
    await lock?.close();
    throw unavailable(
      isLevelLocked(cause)
        ? "another process holds the spent-token store"
        : "the spent-token store cannot be opened",
      cause,
    );
  }
}

class SpentLevelStore implements SpentStore {
  readonly #options: SpentLevelStoreOptions;
  readonly #lock: Level;
  readonly #epochs = new Map<string, SpentEpoch>();
  readonly #dropped: Set<string>;
  readonly #ends: EpochEnds;
  #closed = false;

  constructor(options: SpentLevelStoreOptions, lock: Level, dropped: readonly string[]) {
    this.#options = options;
    this.#lock = lock;
    this.#dropped = new Set(dropped);
    this.#ends = new EpochEnds({
      folder: options.folder,
      clock: options.clock ?? Date.now,
      monotonicMs: options.monotonicMs ?? (() => performance.now()),
      graceMs: options.graceMs ?? DEFAULT_GRACE_MS,
      settleMs: options.settleMs ?? SETTLE_MS,
    });
  }

  async load(names: ReadonlySet<string>): Promise<void> {
    const known = [...names].filter((name) => name.endsWith(CREATED) || name.endsWith(UNTIL));
    for (const name of new Set(known.map((mark) => mark.replace(/\.[a-z]+$/, "")))) {
      if (!this.#dropped.has(name)) await this.#ends.load(name, this.#retentionMs);
    }
    // A crash may have cut a deletion short.
    for (const name of this.#dropped) {
      const left = [name, name + CREATED, name + UNTIL];
      if (left.some((one) => names.has(one))) await this.#delete(name);
    }
  }

  async spend(request: SpendRequest): Promise<SpendOutcome> {
    checkSpendRequest(request);
    const name = folderNameOf(request.tokenKeyId);
    if (this.#dropped.has(name)) {
      throw new StileError("TOKEN_KEY_UNKNOWN", "the epoch of this key has ended");
    }
    if (this.#closed) throw unavailable("the store is closed");
    let epoch = this.#epochs.get(name);
    if (epoch === undefined) {
      epoch = this.#createEpoch(name);
      this.#epochs.set(name, epoch);
    }
    return epoch.spend(request);
  }

  /** Kept from its first spend on, or from here. */
  async keepEpoch(tokenKeyId: Uint8Array, forMs: number): Promise<boolean> {
    checkIdentifier("tokenKeyId", tokenKeyId);
    checkDuration("forMs", forMs);
    if (this.#closed) throw unavailable("the store is closed");
    const name = folderNameOf(tokenKeyId);
    if (this.#dropped.has(name)) return false;
    try {
      await this.#ends.raise(name, Math.min(forMs, this.#retentionMs));
    } catch (cause) {
      throw unavailable("the end of the epoch cannot be written", cause);
    }
    return true;
  }

  async dropPastEpochs(): Promise<number> {
    if (this.#closed) throw unavailable("the store is closed");
    const past = this.#ends.past();
    for (const name of past) await this.#drop(name);
    return past.length;
  }

  /**
   * Spends of it are refused from the call on; the mark is durable before anything is deleted, and a deletion that a
   * crash cuts short is finished at the next open. Safe to repeat.
   * @throws `TOKEN_STORE_UNAVAILABLE` where the disk fails
   */
  async dropEpoch(tokenKeyId: Uint8Array): Promise<void> {
    checkIdentifier("tokenKeyId", tokenKeyId);
    if (this.#closed) throw unavailable("the store is closed");
    await this.#drop(folderNameOf(tokenKeyId));
  }

  async #drop(name: string): Promise<void> {
    this.#dropped.add(name);
    const epoch = this.#epochs.get(name);
    this.#epochs.delete(name);
    await epoch?.close();
    try {
      await createFileDurably(this.#path(name, DROPPED), EMPTY);
      await this.#delete(name);
    } catch (cause) {
      throw unavailable("the epoch cannot be deleted", cause);
    }
  }

  /** Answers what was taken, then gives up the lock. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all([...this.#epochs.values()].map((epoch) => epoch.close()));
    await this.#lock.close();
  }

  /** Deletes what there is of a dropped epoch; the mark that it was created goes last. */
  async #delete(name: string): Promise<void> {
    await rm(this.#path(name), { recursive: true, force: true });
    await this.#ends.forget(name);
    await removeFileDurably(this.#path(name, CREATED));
  }

  #createEpoch(name: string): SpentEpoch {
    const { observe, monotonicMs = () => performance.now(), reopenDelayMs = 200 } = this.#options;
    const { maxQueued = 16_384, maxBatch = 2_048, stallMs = 2_000 } = this.#options;
    return new SpentEpoch({
      open: () => this.#openEpoch(name),
      recovery: { unavailable, reopenDelayMs, monotonicMs },
      commit: { refuse: unavailable, maxQueued, maxBatch, stallMs, monotonicMs, observe },
      entries: (count) => observe?.entries?.(name, count),
    });
  }

  async #openEpoch(name: string): Promise<Level> {
    const { folder, openLevel = openClassicLevel } = this.#options;
    // A volume that was unmounted since the start has no marks either: without its lock file it is
    // not our folder, and nothing may be created in it.
    await access(join(folder, "lock", "LOCK"));
    const created = await exists(this.#path(name, CREATED));
    const level = await openLevel(this.#path(name), { createIfMissing: !created });
    if (created) return level;
    try {
      // First the database, then the mark: a crash in between leaves a database without a spend.
      await syncFolder(this.#path(name));
      await syncFolder(folder);
      if (!this.#ends.has(name)) await this.#ends.raise(name, this.#retentionMs);
      await createFileDurably(this.#path(name, CREATED), EMPTY);
      return level;
    } catch (error) {
      await level.close();
      throw error;
    }
  }

  get #retentionMs(): number {
    return this.#options.retentionMs ?? DEFAULT_RETENTION_MS;
  }

  #path(name: string, suffix = ""): string {
    return join(this.#options.folder, name + suffix);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    // Anything but "there is none" must not read as a licence to create an empty database.
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
}

/** Natively, since it runs for each spend. */
function folderNameOf(tokenKeyId: Uint8Array): string {
  const { buffer, byteOffset, length } = tokenKeyId;
  return Buffer.from(buffer, byteOffset, length).toString("hex");
}

function unavailable(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_STORE_UNAVAILABLE", message, { cause });
}
