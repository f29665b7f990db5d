/**
 * Durable allowances: how many tokens a device (by its pseudonym) may still get in a window of time.
 * One LevelDB under group commit. `window[6] || SHA-256(pseudonym)[0..16]` holds the tokens charged.
 *
 * A charge is all or nothing and on disk before it is answered, so that a crash never gives a device
 * its allowance back; a crash or a failed write may cost it the charge until the window ends.
 * Which windows are kept, and what a jump of the clock does: allowance-windows.ts.
 */
import { createHash } from "node:crypto";
import { StileError } from "../../wire/index.ts";
import {
  AllowanceWindows,
  encodeKeptWindows,
  encodeWindow,
  KEPT_WINDOWS_KEY,
} from "./allowance-windows.ts";
import { makeFolderDurably, syncFolder } from "./durable-file.ts";
import { GroupCommit, type GroupCommitObserver } from "./group-commit.ts";
import {
  isLevelLocked,
  type Level,
  type LevelWrite,
  openClassicLevel,
  type OpenLevel,
} from "./level.ts";
import { RecoveringLevel } from "./recovering-level.ts";

export interface AllowanceCharge {
  /** Names the device; never stored in the clear. */
  readonly pseudonym: string;
  /** Tokens, 1 or more. */
  readonly count: number;
  /** Instant of the request, Unix milliseconds. */
  readonly atMs: number;
  /** Tokens in a window, where the device's class has its own. Default: the store's limit. */
  readonly limit?: number | undefined;
}

export interface AllowanceStore {
  /**
   * Charges all of `count`, or nothing.
   * @returns the tokens that are left in the window
   * @throws `ATTEST_ALLOWANCE_EXCEEDED` with the seconds to the end of the window,
   * `ATTEST_ALLOWANCE_UNAVAILABLE` when the queue is full or the disk fails
   */
  charge(charge: AllowanceCharge): Promise<{ readonly remaining: number }>;
  /**
   * Takes a charge back whose tokens were not issued, in the window it was made in. Never below zero.
   * @throws `ATTEST_ALLOWANCE_UNAVAILABLE`; the device then keeps the charge until its window ends
   */
  refund(charge: AllowanceCharge): Promise<void>;
  /** Answers what was taken, then closes the database. */
  close(): Promise<void>;
}

export interface AllowanceStoreOptions {
  /** Created where it is missing. On a disk of this machine: the lock does not span machines. */
  readonly folder: string;
  /** Tokens per device and window, 1 or more. */
  readonly limit: number;
  /**
   * Length of a window in milliseconds, 1,000 or more. Windows are counted from the Unix epoch.
   * A change of it numbers the windows anew, and so begins new allowances.
   */
  readonly windowMs: number;
  readonly observe?: GroupCommitObserver;
  /** Charges that may wait. Default 4,096. */
  readonly maxQueued?: number;
  /** Charges in one write. Default 512. */
  readonly maxBatch?: number;
  /** Milliseconds that one write may take before further charges are refused. Default 2,000. */
  readonly stallMs?: number;
  /** Milliseconds for which charges are refused after a failure. Default 200. */
  readonly reopenDelayMs?: number;
  /** Milliseconds that never jump. Default `performance.now`. */
  readonly monotonicMs?: () => number;
  /** Default `openClassicLevel`. */
  readonly openLevel?: OpenLevel;
}

/** A charge or, with `refund`, its taking back. */
interface AllowanceChange extends AllowanceCharge {
  readonly refund?: boolean;
}

type ChargeOutcome =
  | { readonly charged: true; readonly remaining: number }
  | { readonly charged: false; readonly retryAfterSeconds: number };

const DEVICE_BYTES = 16;
const COUNT_BYTES = 6;
const MAX_PSEUDONYM_LENGTH = 1_024;

/**
 * Opens the store for this process alone.
 * @throws `ATTEST_ALLOWANCE_UNAVAILABLE` where another process holds it or it cannot be opened
 */
export async function openAllowanceStore(options: AllowanceStoreOptions): Promise<AllowanceStore> {
  if (!Number.isSafeInteger(options.limit) || options.limit < 1) {
    throw new RangeError("limit is not a positive integer");
  }
  if (!Number.isSafeInteger(options.windowMs) || options.windowMs < 1_000) {
    throw new RangeError("windowMs is not an integer of 1,000 or more");
  }
  const store = new LevelAllowanceStore(options);
  await store.open();
  return store;
}

class LevelAllowanceStore implements AllowanceStore {
  readonly #options: AllowanceStoreOptions;
  readonly #level: RecoveringLevel;
  readonly #commits: GroupCommit<AllowanceChange, ChargeOutcome>;
  readonly #windows = new AllowanceWindows();

  constructor(options: AllowanceStoreOptions) {
    this.#options = options;
    const { maxQueued = 4_096, maxBatch = 512, stallMs = 2_000, reopenDelayMs = 200 } = options;
    const { openLevel = openClassicLevel, monotonicMs = () => performance.now() } = options;
    const open = async (): Promise<Level> => {
      await makeFolderDurably(options.folder);
      const level = await openLevel(options.folder, { createIfMissing: true });
      await syncFolder(options.folder);
      return level;
    };
    this.#level = new RecoveringLevel({ open, unavailable, reopenDelayMs, monotonicMs });
    this.#commits = new GroupCommit({
      commit: (batch) => this.#level.run((level) => this.#commit(level, batch)),
      refuse: unavailable,
      maxQueued,
      maxBatch,
      stallMs,
      monotonicMs,
      observe: options.observe,
    });
  }

  /** Opens now, so that a folder that cannot be used stops the start and not the first charge. */
  async open(): Promise<void> {
    await this.#level.run(async () => {});
  }

  async charge(charge: AllowanceCharge): Promise<{ readonly remaining: number }> {
    checkCharge(charge);
    const outcome = await this.#commits.submit(charge);
    if (outcome.charged) return { remaining: outcome.remaining };
    const { retryAfterSeconds } = outcome;
    const message = "fewer tokens are left in this window than were asked for";
    throw new StileError("ATTEST_ALLOWANCE_EXCEEDED", message, { retryAfterSeconds });
  }

  async refund(charge: AllowanceCharge): Promise<void> {
    checkCharge(charge);
    await this.#commits.submit({ ...charge, refund: true });
  }

  async close(): Promise<void> {
    await this.#commits.close();
    await this.#level.close();
  }

  async #commit(
    level: Level,
    batch: readonly AllowanceChange[],
  ): Promise<readonly ChargeOutcome[]> {
    const keys = batch.map((charge) => this.#keyOf(charge));
    const [windows, ...stored] = await level.getMany([KEPT_WINDOWS_KEY, ...keys]);
    const used = new Map<string, number>();
    const writes = new Map<string, LevelWrite>();
    const outcomes = batch.map((charge, i): ChargeOutcome => {
      const key = keys[i] ?? this.#keyOf(charge);
      const name = Buffer.from(key).toString("latin1");
      const before = used.get(name) ?? decodeCount(stored[i]);
      const { count, refund = false } = charge;
      if (before === "damaged") {
        // Used up, whatever it was: the safe side. It ends with its window, and harms no other device's change.
        return refund ? { charged: true, remaining: 0 } : this.#exceeded(charge.atMs);
      }
      const total = refund ? Math.max(0, before - count) : before + count;
      const limit = charge.limit ?? this.#options.limit;
      if (!refund && total > limit) return this.#exceeded(charge.atMs);
      used.set(name, total);
      writes.set(name, { key, value: encodeCount(total) });
      return { charged: true, remaining: Math.max(0, limit - total) };
    });
    const kept = this.#windows.advance(
      windows,
      batch.map((charge) => this.#windowOf(charge.atMs)),
    );
    const swept = await this.#windows.sweep(level, kept);
    if (writes.size > 0 || swept.length > 0) {
      const marker = { key: KEPT_WINDOWS_KEY, value: encodeKeptWindows(kept) };
      await level.writeDurably([...writes.values(), ...swept, marker]);
    }
    return outcomes;
  }

  #exceeded(atMs: number): ChargeOutcome {
    const endMs = (this.#windowOf(atMs) + 1) * this.#options.windowMs;
    return { charged: false, retryAfterSeconds: Math.ceil((endMs - atMs) / 1_000) };
  }

  #windowOf(atMs: number): number {
    return Math.floor(atMs / this.#options.windowMs);
  }

  #keyOf({ pseudonym, atMs }: AllowanceCharge): Uint8Array {
    const device = createHash("sha256").update(pseudonym).digest().subarray(0, DEVICE_BYTES);
    return Buffer.concat([encodeWindow(this.#windowOf(atMs)), device]);
  }
}

function checkCharge({ pseudonym, count, atMs }: AllowanceCharge): void {
  if (pseudonym.length === 0 || pseudonym.length > MAX_PSEUDONYM_LENGTH) {
    throw new RangeError(`pseudonym has not 1 to ${MAX_PSEUDONYM_LENGTH} characters`);
  }
  if (!Number.isSafeInteger(count) || count < 1) throw new RangeError("count is not positive");
  if (!Number.isSafeInteger(atMs) || atMs < 0) {
    throw new RangeError("atMs is not a time in Unix milliseconds");
  }
}

function encodeCount(count: number): Uint8Array {
  const value = Buffer.alloc(COUNT_BYTES);
  value.writeUIntBE(count, 0, COUNT_BYTES);
  return value;
}

function decodeCount(value: Uint8Array | undefined): number | "damaged" {
  if (value === undefined) return 0;
  if (value.length !== COUNT_BYTES) return "damaged";
  return Buffer.from(value).readUIntBE(0, COUNT_BYTES);
}

function unavailable(message: string, cause?: unknown): StileError {
  const text = isLevelLocked(cause) ? "another process holds the allowance store" : message;
  return new StileError("ATTEST_ALLOWANCE_UNAVAILABLE", text, { cause });
}
