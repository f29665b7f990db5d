/**
 * Whether one host challenges or is open, from what was counted lately: requests that proved nothing, answers of
 * the upstream that came late, requests that it failed. Each is a rate of its own and none is a share, so what
 * admitted clients do cannot outweigh it. It challenges from the event on that passes a threshold, and stops
 * once it did for long enough and all has been below the lower thresholds for long enough.
 * Whatever cannot be measured challenges: at the start nothing has been, and a clock that goes back starts anew.
 */
import { createEventRate, type EventRate } from "./event-rate.ts";

export type Signal = "unadmitted" | "slow" | "failures";

/** Events a second. */
export interface Thresholds {
  readonly above: number;
  /** Less than `above`. */
  readonly below: number;
}

export interface HostWatchOptions {
  readonly signals: Readonly<Record<Signal, Thresholds>>;
  readonly meanMs: number;
  /** An answer that takes longer counts as slow. */
  readonly slowAfterMs: number;
  readonly challengeMs: number;
  readonly calmMs: number;
  /** Called at each change. @param why what passed its threshold; `start` where nothing was measured yet */
  readonly onChange: (isOpen: boolean, why: Signal | "calm" | "start") => void;
}

interface Waiting {
  readonly sinceMs: number;
}

export class HostWatch {
  readonly #options: HostWatchOptions;
  /** In the order in which they went out: those that are late are at the front. */
  readonly #waiting = new Set<Waiting>();
  #rates: Record<Signal, EventRate>;
  #isOpen = false;
  #sinceMs: number;
  /** From when on every rate is below its lower threshold, if nothing more comes. */
  #calmFromMs: number;
  #lastMs: number;

  constructor(options: HostWatchOptions, startMs: number) {
    this.#options = options;
    this.#rates = freshRates(options.meanMs);
    this.#sinceMs = startMs;
    this.#calmFromMs = startMs;
    this.#lastMs = startMs;
  }

  isOpen(nowMs: number): boolean {
    this.#advance(nowMs);
    const { calmMs, challengeMs, onChange } = this.#options;
    const isLongEnough = nowMs >= this.#sinceMs + challengeMs;
    if (!this.#isOpen && isLongEnough && nowMs >= this.#calmFromMs + calmMs) {
      this.#isOpen = true;
      onChange(true, "calm");
    }
    return this.#isOpen;
  }

  note(signal: Signal, nowMs: number): void {
    this.#advance(nowMs);
    this.#count(signal, nowMs);
  }

  /** A request goes to the upstream. @returns to be called once nobody waits for its answer any more */
  startAnswer(nowMs: number): (nowMs: number) => void {
    this.#advance(nowMs);
    const one: Waiting = { sinceMs: nowMs };
    this.#waiting.add(one);
    return (endMs) => {
      this.#advance(endMs);
      this.#waiting.delete(one);
    };
  }

  #challenge(nowMs: number, why: Signal | "start"): void {
    this.#sinceMs = nowMs;
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#options.onChange(false, why);
  }

  #count(signal: Signal, nowMs: number): void {
    const { above, below } = this.#options.signals[signal];
    const rate = this.#rates[signal];
    rate.add(nowMs);
    this.#calmFromMs = Math.max(this.#calmFromMs, rate.fallsTo(below, nowMs));
    if (this.#isOpen && rate.at(nowMs) > above) this.#challenge(nowMs, signal);
  }

  /** Steps to the present. Each late answer is counted once and forgotten, so the work is spread evenly. */
  #advance(nowMs: number): void {
    if (!(nowMs >= this.#lastMs)) {
      this.#rates = freshRates(this.#options.meanMs);
      this.#waiting.clear();
      this.#calmFromMs = nowMs;
      this.#challenge(nowMs, "start");
    }
    this.#lastMs = nowMs;
    for (const one of this.#waiting) {
      if (one.sinceMs + this.#options.slowAfterMs > nowMs) return;
      this.#waiting.delete(one);
      this.#count("slow", nowMs);
    }
  }
}

function freshRates(meanMs: number): Record<Signal, EventRate> {
  return {
    unadmitted: createEventRate(meanMs),
    slow: createEventRate(meanMs),
    failures: createEventRate(meanMs),
  };
}
