/**
 * A {@link Level} that is closed after any failure and opened again by later work.
 * Reopening is not only for comfort. LevelDB goes on after a failed append to its log, behind a torn
 * record, and recovery may drop what follows a torn record in the same 32 KiB block: acknowledged
 * entries would be lost at the next start. A reopened database has read its old log up to the torn
 * tail, written what was whole to a table, and begun a new log. So after a failure nothing may be
 * written, or read as if it were the truth, before a reopen.
 */
import type { Level } from "./level.ts";

export interface RecoveringLevelOptions {
  readonly open: () => Promise<Level>;
  /** Makes the error that callers see; its cause is what failed. */
  readonly unavailable: (message: string, cause: unknown) => Error;
  /** Milliseconds after a failure in which work is refused without touching the disk. */
  readonly reopenDelayMs: number;
  readonly monotonicMs: () => number;
}

/** Not for concurrent use: one `run` at a time, which {@link GroupCommit} guarantees. */
export class RecoveringLevel {
  readonly #options: RecoveringLevelOptions;
  #level: Level | undefined;
  #failedAtMs: number | undefined;

  constructor(options: RecoveringLevelOptions) {
    this.#options = options;
  }

  /** Runs work on the open database. Any failure, of opening or of the work, closes it. */
  async run<Result>(work: (level: Level) => Promise<Result>): Promise<Result> {
    const { open, unavailable, reopenDelayMs, monotonicMs } = this.#options;
    const failedAtMs = this.#failedAtMs;
    if (failedAtMs !== undefined && monotonicMs() - failedAtMs < reopenDelayMs) {
      throw unavailable("the store failed a moment ago", undefined);
    }
    try {
      this.#level ??= await open();
      const result = await work(this.#level);
      this.#failedAtMs = undefined;
      return result;
    } catch (cause) {
      this.#failedAtMs = monotonicMs();
      await this.close();
      throw unavailable("the store cannot be read or written", cause);
    }
  }

  /** Closes the database where it is open. Never rejects: what a broken close leaves, open will meet. */
  async close(): Promise<void> {
    const level = this.#level;
    this.#level = undefined;
    try {
      await level?.close();
    } catch {
      // Every acknowledged write was synced by itself, so closing has nothing left to save.
    }
  }
}
