/**
 * Until when each epoch of the embedded spent store is needed, in a file for each:
 * ```
 * <folder>/<token key id>.until   Unix milliseconds by this machine's clock, as decimal digits
 * ```
 * An instant is raised, and never lowered. What is past is given up only once it has been past for a while by a clock
 * that never jumps, so that a wall clock that is ahead for a moment ends nothing.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeUtf8 } from "../../wire/index.ts";
import { hasCode, removeFileDurably, replaceFileDurably } from "./durable-file.ts";

export interface EpochEndsOptions {
  readonly folder: string;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly monotonicMs: () => number;
  /** How long an epoch has to be past, by the wall clock. */
  readonly graceMs: number;
  /** How long it has to have been seen to be past by then. */
  readonly settleMs: number;
}

export const UNTIL = ".until";
/** A raise by less is not written: it is within the grace, and an edge raises every few minutes. */
const MAX_LAG_MS = 3_600_000;
const LAG_SHARE = 1 / 64;

export class EpochEnds {
  readonly #options: EpochEndsOptions;
  readonly #untilMs = new Map<string, number>();
  /** By the clock that never jumps. */
  readonly #pastSinceMs = new Map<string, number>();
  #writing: Promise<void> = Promise.resolve();

  constructor(options: EpochEndsOptions) {
    this.#options = options;
  }

  has(name: string): boolean {
    return this.#untilMs.has(name);
  }

  /** @param forMs from now, where nothing is kept of an epoch, or what is kept is damaged */
  async load(name: string, forMs: number): Promise<void> {
    const text = await readFile(this.#path(name), "utf8").catch((error: unknown) => {
      if (hasCode(error, "ENOENT")) return "";
      throw error;
    });
    if (/^\d{1,15}$/.test(text)) this.#untilMs.set(name, Number(text));
    else await this.raise(name, forMs);
  }

  /** Durable when it resolves. One write at a time, so that of two the higher one stays. */
  async raise(name: string, forMs: number): Promise<void> {
    const write = this.#writing.then(async () => {
      const untilMs = Math.ceil(this.#options.clock() + forMs);
      const lagMs = Math.min(MAX_LAG_MS, forMs * LAG_SHARE);
      if (untilMs - lagMs <= (this.#untilMs.get(name) ?? Number.NEGATIVE_INFINITY)) return;
      await replaceFileDurably(this.#path(name), encodeUtf8(String(untilMs)));
      this.#untilMs.set(name, untilMs);
    });
    this.#writing = write.catch(() => undefined);
    await write;
  }

  /** What nobody needs any more. */
  past(): readonly string[] {
    const { clock, graceMs, monotonicMs, settleMs } = this.#options;
    const [nowMs, steadyMs] = [clock(), monotonicMs()];
    return [...this.#untilMs].flatMap(([name, untilMs]) => {
      if (nowMs <= untilMs + graceMs) {
        this.#pastSinceMs.delete(name);
        return [];
      }
      const sinceMs = this.#pastSinceMs.get(name) ?? steadyMs;
      this.#pastSinceMs.set(name, sinceMs);
      return steadyMs - sinceMs >= settleMs ? [name] : [];
    });
  }

  async forget(name: string): Promise<void> {
    await this.#writing;
    this.#untilMs.delete(name);
    this.#pastSinceMs.delete(name);
    await removeFileDurably(this.#path(name));
  }

  #path(name: string): string {
    return join(this.#options.folder, name + UNTIL);
  }
}
