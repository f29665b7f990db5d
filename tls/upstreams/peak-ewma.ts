/**
 * How slow an upstream is: an exponentially weighted moving average of its latencies that takes a peak at once
 * and forgets it by time. An upstream that got slow gets little at once, and is asked again after a while.
 */

/** A latency of this age weighs 1/e. */
const TIME_CONSTANT_MS = 10_000;

export class PeakEwma {
  #ms = 0;
  #atMs = 0;

  observe(ms: number, nowMs: number): void {
    const weight = this.#weight(nowMs);
    this.#ms = ms > this.#ms ? ms : this.#ms * weight + ms * (1 - weight);
    this.#atMs = nowMs;
  }

  /** It took so long and was not over: no average can be below what one client waited in vain. */
  observeAtLeast(ms: number, nowMs: number): void {
    if (ms > this.read(nowMs)) this.observe(ms, nowMs);
  }

  read(nowMs: number): number {
    return this.#ms * this.#weight(nowMs);
  }

  #weight(nowMs: number): number {
    return Math.exp((this.#atMs - nowMs) / TIME_CONSTANT_MS);
  }
}
