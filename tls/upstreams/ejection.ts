/**
 * Passive health: what becomes of an upstream by how its exchanges go. After some failures in a row it is out,
 * then on trial, where one success brings it back and one failure puts it out for twice as long.
 */

export interface EjectionOptions {
  /** In a row. */
  readonly failures: number;
  readonly baseMs: number;
  readonly maxMs: number;
}

export class Ejection {
  readonly #options: EjectionOptions;
  #inARow = 0;
  /** Times that it was out, since it last stayed in for long. */
  #times = 0;
  #isOut = false;
  #untilMs = 0;

  constructor(options: EjectionOptions) {
    this.#options = options;
  }

  stateAt(nowMs: number): "in" | "out" | "trial" {
    if (!this.#isOut) return "in";
    return nowMs < this.#untilMs ? "out" : "trial";
  }

  /** Milliseconds until the next trial. */
  remaining(nowMs: number): number {
    return this.#isOut ? Math.max(0, this.#untilMs - nowMs) : 0;
  }

  /** @returns true where it is out from now on */
  failed(nowMs: number): boolean {
    const state = this.stateAt(nowMs);
    // What was under way when it went out says nothing new.
    if (state === "out") return false;
    this.#inARow += 1;
    if (state === "in" && this.#inARow < this.#options.failures) return false;
    if (state === "in" && nowMs - this.#untilMs > this.#lastMs()) this.#times = 0;
    this.#times += 1;
    this.#isOut = true;
    this.#untilMs = nowMs + this.#lastMs();
    return true;
  }

  /** @returns true where that brought it back */
  succeeded(nowMs: number): boolean {
    const state = this.stateAt(nowMs);
    if (state === "out") return false;
    this.#inARow = 0;
    this.#isOut = false;
    return state === "trial";
  }

  /** Others know better. */
  forgive(): void {
    this.#inARow = 0;
    this.#isOut = false;
  }

  /** How long it was out when it was last. */
  #lastMs(): number {
    const { baseMs, maxMs } = this.#options;
    return this.#times === 0 ? 0 : Math.min(maxMs, baseMs * 2 ** (this.#times - 1));
  }
}
