/**
 * A {@link SpentStore} on a database that several edges share: group commit in front, one database behind.
 *
 * Why no nonce is "fresh" twice: the database's insert-if-absent is atomic, and "fresh" is answered only for
 * a nonce that an acknowledged insert of this very call has put there. A batch whose answer is lost has an
 * unknown fate: its callers get an error, and their tokens are refused. The insert may still be there, or even
 * land later, as it does where a connection breaks with the statement under way; whoever comes again then finds
 * the entry or makes it, and only one of the two was told "fresh". So a lost answer can cost a token, unless
 * its owner repeats with the same binding. Other than on the embedded store nothing may be kept in doubt here:
 * another edge may have answered in between.
 */
import type { SpendOutcome, SpendRequest, SpentStore } from "../../tokens/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import { GroupCommit, type GroupCommitObserver } from "./group-commit.ts";
import {
  checkDuration,
  checkIdentifier,
  checkSpendRequest,
  encodeSpentRecord,
  outcomeOfLaterSpend,
} from "./spent-record.ts";
import { StoreStateError } from "./store-memory.ts";

/** An entry to be inserted unless its nonce is there. */
export interface SpentEntry {
  readonly nonce: Uint8Array;
  readonly record: Uint8Array;
}

export interface SpentDatabase {
  /**
   * Durable when it resolves.
   * @param entries of different nonces
   * @returns for each: the record that was there, or undefined where this call inserted it
   * @throws `TOKEN_KEY_UNKNOWN` for an epoch that was dropped; any other error is an unknown fate
   */
  readonly insert: (
    tokenKeyId: Uint8Array,
    entries: readonly SpentEntry[],
  ) => Promise<readonly (Uint8Array | undefined)[]>;
  /** Durable when it resolves; from then on `insert` of any process refuses this epoch. Idempotent. */
  readonly drop: (tokenKeyId: Uint8Array) => Promise<void>;
  /**
   * Keeps the epoch for so long from now, unless it is kept for longer, by one clock of the database.
   * @returns false for an epoch that was dropped
   */
  readonly keep: (tokenKeyId: Uint8Array, forMs: number) => Promise<boolean>;
  /** Drops, as `drop` does, what need not have been kept for so long, by the same clock. @returns how many */
  readonly dropPast: (graceMs: number) => Promise<number>;
  readonly close: () => Promise<void>;
}

export interface SpentRemoteOptions {
  readonly observe?: GroupCommitObserver;
  /** Spends that may wait. Default 16,384. */
  readonly maxQueued?: number;
  /** Spends in one batch. Default 1,024. */
  readonly maxBatch?: number;
  /** Milliseconds that one batch may take before further spends are refused. Default 2,000. */
  readonly stallMs?: number;
  /** Milliseconds that a new epoch is kept for, and that one `keepEpoch` keeps it for at most. Default 90 days. */
  readonly retentionMs?: number;
  /** Milliseconds that an epoch is kept past its end, for servers that take over with another clock. Default a day. */
  readonly graceMs?: number;
}

const DAY_MS = 86_400_000;
export const DEFAULT_RETENTION_MS: number = 90 * DAY_MS;
export const DEFAULT_GRACE_MS: number = DAY_MS;

type Settled = PromiseSettledResult<SpendOutcome>;

export function createSpentRemoteStore(
  database: SpentDatabase,
  options: SpentRemoteOptions = {},
): SpentStore {
  const { observe, maxBatch = 1_024, maxQueued = 16_384, stallMs = 2_000 } = options;
  const { graceMs = DEFAULT_GRACE_MS, retentionMs = DEFAULT_RETENTION_MS } = options;
  const commits = new GroupCommit<SpendRequest, Settled>({
    commit: (batch) => spendBatch(database, batch),
    refuse: (reason) => unavailable(reason),
    maxBatch,
    maxQueued,
    stallMs,
    monotonicMs: () => performance.now(),
    observe,
  });
  let isClosed = false;
  const administer = async <T>(work: () => Promise<T>): Promise<T> => {
    if (isClosed) throw unavailable("the store is closed");
    return work().catch((cause: unknown) => {
      // Its reason is for the log: to spends, the store is away.
      if (cause instanceof StoreStateError) {
        throw new StileError("TOKEN_STORE_REFUSED", cause.message, { cause });
      }
      throw unavailable("the epochs cannot be read or written", cause);
    });
  };
  return {
    spend: async (request) => {
      checkSpendRequest(request);
      const settled = await commits.submit(request);
      if (settled.status === "rejected") throw settled.reason;
      return settled.value;
    },
    dropEpoch: async (tokenKeyId) => {
      checkIdentifier("tokenKeyId", tokenKeyId);
      await administer(() => database.drop(tokenKeyId));
    },
    keepEpoch: async (tokenKeyId, forMs) => {
      checkIdentifier("tokenKeyId", tokenKeyId);
      checkDuration("forMs", forMs);
      return administer(() => database.keep(tokenKeyId, Math.min(forMs, retentionMs)));
    },
    dropPastEpochs: () => administer(() => database.dropPast(graceMs)),
    close: async () => {
      if (isClosed) return;
      isClosed = true;
      await commits.close();
      await database.close();
    },
  };
}

/** Each epoch on its own: one that was dropped, or fails, refuses no spend of another. */
async function spendBatch(
  database: SpentDatabase,
  batch: readonly SpendRequest[],
): Promise<readonly Settled[]> {
  const outcomes = new Map<SpendRequest, Settled>();
  const epochs = Map.groupBy(batch, ({ tokenKeyId }) => textOf(tokenKeyId));
  for (const requests of epochs.values()) {
    const settled = await spendInEpoch(database, requests);
    requests.forEach((request, i) => {
      const outcome = settled[i];
      if (outcome !== undefined) outcomes.set(request, outcome);
    });
  }
  return batch.map((request) => outcomes.get(request) ?? failed(undefined));
}

async function spendInEpoch(
  database: SpentDatabase,
  requests: readonly SpendRequest[],
): Promise<readonly Settled[]> {
  // Of several spends of one nonce in a batch, the first is the one that may be fresh.
  const first = new Map<string, SpendRequest>();
  for (const request of requests) {
    const nonce = textOf(request.nonce);
    if (!first.has(nonce)) first.set(nonce, request);
  }
  // In one order everywhere: two edges that insert the same nonces cannot wait for each other.
  const names = [...first.keys()].toSorted();
  const entries = names.flatMap((name) => {
    const request = first.get(name);
    return request === undefined
      ? []
      : [{ nonce: request.nonce, record: encodeSpentRecord(request) }];
  });
  const [request] = requests;
  if (request === undefined) return [];
  try {
    const found = await database.insert(request.tokenKeyId, entries);
    if (found.length !== entries.length) throw new TypeError("insert did not answer each entry");
    const before = new Map(names.map((name, i) => [name, found[i]]));
    return requests.map((one) => ({ status: "fulfilled", value: outcomeOf(one, first, before) }));
  } catch (error) {
    return requests.map(() => failed(error));
  }
}

function outcomeOf(
  request: SpendRequest,
  first: ReadonlyMap<string, SpendRequest>,
  before: ReadonlyMap<string, Uint8Array | undefined>,
): SpendOutcome {
  const name = textOf(request.nonce);
  const stored = before.get(name);
  if (stored !== undefined) return outcomeOfLaterSpend(stored, request);
  const inserted = first.get(name);
  if (inserted === request || inserted === undefined) return { outcome: "fresh" };
  return outcomeOfLaterSpend(encodeSpentRecord(inserted), request);
}

function failed(cause: unknown): Settled {
  const isOurs = isStileError(cause, "TOKEN_KEY_UNKNOWN");
  const reason = isOurs ? cause : unavailable("the store cannot be read or written", cause);
  return { status: "rejected", reason };
}

/** One character a byte. */
function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

export function unavailable(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_STORE_UNAVAILABLE", message, { cause });
}

export function epochEnded(): StileError {
  return new StileError("TOKEN_KEY_UNKNOWN", "the epoch of this key has ended");
}
