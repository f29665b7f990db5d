/**
 * How many requests may be tried again: a share of those of the last seconds, and a few a second where there are
 * few. When every attempt fails, the upstreams get that share more, and not a multiple; when one of them dies,
 * what it had under way fits in.
 */

/** Of each request. */
const SHARE = 0.2;
/** What a request earned is worth 1/e after this. */
const TIME_CONSTANT_MS = 10_000;
const PER_SECOND = 10;

export class RetryBudget {
  #earned = 0;
  #reserve = PER_SECOND;
  #atMs: number;

  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  earn(nowMs: number): void {
    this.#passTo(nowMs);
    this.#earned += SHARE;
  }

  /** @returns false where there is none left */
  spend(nowMs: number): boolean {
    this.#passTo(nowMs);
    if (this.#earned >= 1) this.#earned -= 1;
    else if (this.#reserve >= 1) this.#reserve -= 1;
    else return false;
    return true;
  }

  #passTo(nowMs: number): void {
    const elapsedMs = nowMs - this.#atMs;
    if (elapsedMs <= 0) return;
    this.#atMs = nowMs;
    this.#earned *= Math.exp(-elapsedMs / TIME_CONSTANT_MS);
    this.#reserve = Math.min(PER_SECOND, this.#reserve + (elapsedMs / 1_000) * PER_SECOND);
  }
}
