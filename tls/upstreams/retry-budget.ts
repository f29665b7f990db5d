/**
 * How many requests may be tried again: a share of all, and a few a second where there are few. When every
 * attempt fails, the upstreams get that share more, and not a multiple.
 */

/** Of each request. */
const SHARE = 0.2;
const PER_SECOND = 10;
/** Those that may be tried again at once. */
const MAX_SAVED = 100;

export class RetryBudget {
  #saved = PER_SECOND;
  #atMs: number;

  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  earn(): void {
    this.#saved = Math.min(MAX_SAVED, this.#saved + SHARE);
  }

  /** @returns false where there is none left */
  spend(nowMs: number): boolean {
    const grown = (Math.max(0, nowMs - this.#atMs) / 1_000) * PER_SECOND;
    this.#atMs = nowMs;
    // By time alone it does not grow above a second's worth.
    if (this.#saved < PER_SECOND) this.#saved = Math.min(PER_SECOND, this.#saved + grown);
    if (this.#saved < 1) return false;
    this.#saved -= 1;
    return true;
  }
}
