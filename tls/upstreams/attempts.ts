/**
 * The attempts at one request. What never left may go elsewhere, whatever it asks for. What was sent is sent once
 * more at the most, and only where that has no effect. A timeout is none of these cases: the upstream may be at
 * work on it.
 */
import type { UpstreamFailure } from "./failure.ts";
import type { AttemptOutcome, Upstream } from "./upstream.ts";
import type { Attempt, Upstreams } from "./upstreams.ts";

/** Safe methods (RFC 9110 §9.2.1): without a body, a second one changes nothing. */
const REPEATABLE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD"]);

export function isRepeatable(method: string, hasBody: boolean): boolean {
  return !hasBody && REPEATABLE_METHODS.has(method);
}

export class Attempts {
  readonly #upstreams: Upstreams;
  readonly #isRepeatable: boolean;
  readonly #tried: Upstream[] = [];
  #isRepeated = false;
  #current: Attempt;
  #isOver = false;

  /**
   * @param preferred asked first, as long as nothing speaks against it
   * @throws `TLS_UPSTREAM_UNHEALTHY`, `TLS_UPSTREAM_BUSY`
   */
  constructor(upstreams: Upstreams, isRepeatable: boolean, preferred?: Upstream) {
    this.#upstreams = upstreams;
    this.#isRepeatable = isRepeatable;
    const kept = preferred && upstreams.takeAt(preferred);
    this.#current = kept ?? upstreams.take();
  }

  get upstream(): Upstream {
    return this.#current.upstream;
  }

  /** When it was chosen, by the upstreams' clock. */
  get begunMs(): number {
    return this.#current.begunMs;
  }

  /** The head of an answer is there, or none will come. */
  settle(outcome: AttemptOutcome): void {
    this.#current.settle(outcome);
  }

  /**
   * The attempt failed before any of its answer came.
   * @param isReused the connection had carried an exchange: the upstream may have closed it since
   * @returns whether there is another one now
   */
  next(failure: UpstreamFailure, isReused: boolean): boolean {
    // A kept connection that has ended says nothing of its upstream: yet one that is about to stop ends
    // them all, and a new connection to it would be lost as well, and the request with it.
    const isStale = failure === "broken" && isReused;
    this.settle(isStale ? "abandoned" : failure);
    const ended = isStale ? this.upstream : undefined;
    if (!isStale) this.#tried.push(this.upstream);
    if (failure !== "connect") {
      if (failure !== "broken" || !this.#isRepeatable || this.#isRepeated) return false;
      this.#isRepeated = true;
    }
    const next = this.#upstreams.retake(this.#tried, ended);
    if (next === undefined) return false;
    this.#current.end();
    this.#current = next;
    return true;
  }

  /** Of all of it. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#current.end();
  }
}
