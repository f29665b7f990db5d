/**
 * The spent nonces of one key epoch in one LevelDB: insert-if-absent under group commit.
 *
 * Why no nonce is "fresh" twice:
 * 1. One batch is in flight at a time and nobody else has the folder (LevelDB's lock), so between the
 *    read of a batch and its write nothing changes. Within the batch the first request wins.
 * 2. "fresh" is answered only after the batch is on disk. A crash before that leaves the nonce on disk
 *    or not, but nobody was told "fresh"; a crash after it cannot lose the entry.
 * 3. A failed write has an unknown fate. Its callers get an error, and the database is closed and read
 *    again before anything else is answered (see recovering-level.ts; what fsync failed to write and
 *    the page cache still shows is then rewritten to a table, and that is synced).
 *
 * Why a failed write does not lose tokens: its nonces were absent before it and nobody was told
 * "fresh" since. While this process lives it remembers them as in doubt, and the next spend of one is
 * decided as if the database did not hold it, then written again. The memory is bounded; what falls
 * out of it, or is forgotten with the process, is read from the disk: at worst "spent", never twice
 * "fresh". This is sound only as long as no other process can have answered for the nonce in between:
 * the lock on the whole store (spent-level.ts) is held even while this database is closed.
 */
import type { SpendOutcome, SpendRequest } from "../../tokens/index.ts";
import { GroupCommit, type GroupCommitOptions } from "./group-commit.ts";
import type { Level, LevelWrite } from "./level.ts";
import { RecoveringLevel, type RecoveringLevelOptions } from "./recovering-level.ts";
import { encodeSpentRecord, outcomeOfLaterSpend } from "./spent-record.ts";

/** One byte long, so that it is no nonce. Its value is the number of nonces, 6 bytes. */
const ENTRY_COUNT_KEY: Uint8Array = Uint8Array.of(0);
const ENTRY_COUNT_BYTES = 6;
const MAX_ENTRY_COUNT = 2 ** (8 * ENTRY_COUNT_BYTES) - 1;
/** 32 batches of the default size; 64 MiB at most in heap, and only while writes fail. */
const MAX_IN_DOUBT = 65_536;

export interface SpentEpochOptions {
  readonly open: () => Promise<Level>;
  readonly recovery: Omit<RecoveringLevelOptions, "open">;
  readonly commit: Omit<GroupCommitOptions<SpendRequest, SpendOutcome>, "commit">;
  /** Told the number of nonces after each batch that added some. */
  readonly entries: (count: number) => void;
}

interface Decision {
  readonly outcomes: readonly SpendOutcome[];
  /** By nonce, as text. */
  readonly inserts: ReadonlyMap<string, LevelWrite>;
  /** How many of the inserts the database did not hold. */
  readonly added: number;
}

export class SpentEpoch {
  readonly #level: RecoveringLevel;
  readonly #commits: GroupCommit<SpendRequest, SpendOutcome>;
  readonly #entries: (count: number) => void;
  readonly #inDoubt = new Set<string>();

  constructor(options: SpentEpochOptions) {
    this.#level = new RecoveringLevel({ ...options.recovery, open: options.open });
    this.#entries = options.entries;
    const commit = (batch: readonly SpendRequest[]): Promise<readonly SpendOutcome[]> =>
      this.#level.run((level) => this.#commit(level, batch));
    this.#commits = new GroupCommit({ ...options.commit, commit });
  }

  spend(request: SpendRequest): Promise<SpendOutcome> {
    return this.#commits.submit(request);
  }

  /** Answers what was taken, then closes the database. */
  async close(): Promise<void> {
    await this.#commits.close();
    await this.#level.close();
  }

  async #commit(level: Level, batch: readonly SpendRequest[]): Promise<readonly SpendOutcome[]> {
    const names = batch.map((request) => nameOf(request.nonce));
    const [count, ...stored] = await level.getMany([
      ENTRY_COUNT_KEY,
      ...batch.map((request) => request.nonce),
    ]);
    const decision = this.#decide(batch, names, stored);
    if (decision.inserts.size === 0) return decision.outcomes;
    const total = decodeCount(count) + decision.added;
    try {
      const counter = { key: ENTRY_COUNT_KEY, value: encodeCount(total) };
      await level.writeDurably([...decision.inserts.values(), counter]);
    } catch (error) {
      this.#doubt(decision.inserts.keys());
      throw error;
    }
    if (this.#inDoubt.size > 0)
      for (const name of decision.inserts.keys()) this.#inDoubt.delete(name);
    this.#entries(total);
    return decision.outcomes;
  }

  #decide(
    batch: readonly SpendRequest[],
    names: readonly string[],
    stored: readonly (Uint8Array | undefined)[],
  ): Decision {
    const inserts = new Map<string, LevelWrite>();
    let added = 0;
    const outcomes = batch.map((request, i): SpendOutcome => {
      const name = names[i] ?? nameOf(request.nonce);
      const trusted = this.#inDoubt.has(name) ? undefined : stored[i];
      const earlier = inserts.get(name)?.value ?? trusted;
      if (earlier !== undefined) return outcomeOfLaterSpend(earlier, request);
      inserts.set(name, { key: request.nonce, value: encodeSpentRecord(request) });
      if (stored[i] === undefined) added += 1;
      return { outcome: "fresh" };
    });
    return { outcomes, inserts, added };
  }

  #doubt(names: Iterable<string>): void {
    for (const name of names) {
      if (this.#inDoubt.size >= MAX_IN_DOUBT) return;
      this.#inDoubt.add(name);
    }
  }
}

/** A nonce as a key of a Map: one character a byte. */
function nameOf(nonce: Uint8Array): string {
  return Buffer.from(nonce.buffer, nonce.byteOffset, nonce.length).toString("latin1");
}

/** It is for a metric: damaged to the highest number, it must not keep nonces from being written. */
function encodeCount(count: number): Uint8Array {
  const value = Buffer.alloc(ENTRY_COUNT_BYTES);
  value.writeUIntBE(Math.min(count, MAX_ENTRY_COUNT), 0, ENTRY_COUNT_BYTES);
  return value;
}

function decodeCount(value: Uint8Array | undefined): number {
  if (value?.length !== ENTRY_COUNT_BYTES) return 0;
  return Buffer.from(value).readUIntBE(0, ENTRY_COUNT_BYTES);
}
