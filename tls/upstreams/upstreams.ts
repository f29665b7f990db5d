/**
 * The upstreams of an edge and the choice among them: the one with the least latency times requests under way
 * (peak EWMA), of all where they are few and of two at random where they are many. One that fails is left out
 * for a while, one that its checks find unhealthy until they find otherwise.
 */
import { StileError } from "../../wire/index.ts";
import type { EjectionOptions } from "./ejection.ts";
import { type HealthCheckOptions, startHealthChecks } from "./health-check.ts";
import { RetryBudget } from "./retry-budget.ts";
import {
  type AttemptOutcome,
  Upstream,
  type UpstreamEvent,
  type UpstreamSettings,
} from "./upstream.ts";

export interface UpstreamsOptions {
  readonly upstreams: readonly UpstreamSettings[];
  readonly ejection: EjectionOptions;
  readonly healthCheck?: HealthCheckOptions | undefined;
  /** Milliseconds of a clock that does not go back. */
  readonly clock: () => number;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly observe: (event: UpstreamEvent, name: string) => void;
}

export interface Upstreams {
  readonly all: readonly Upstream[];
  /** For a new request. @throws `TLS_UPSTREAM_UNHEALTHY`, `TLS_UPSTREAM_BUSY` */
  readonly take: () => Attempt;
  /** For a new request at this one, as long as nothing speaks against it. */
  readonly takeAt: (upstream: Upstream) => Attempt | undefined;
  /**
   * For a further attempt, not at those. Undefined where there is no other, or no more to spend on it.
   * @param ended where a kept connection had ended: may be asked once more, where there is no other
   */
  readonly retake: (tried: readonly Upstream[], ended?: Upstream) => Attempt | undefined;
  /** Second attempts so far, and those that were one too many. */
  readonly retries: { readonly made: number; readonly refused: number };
  readonly close: () => void;
}

type Settle = (upstream: Upstream, outcome: AttemptOutcome, begunMs: number) => void;

/** One request at one upstream, from the choice to the end. */
export class Attempt {
  readonly upstream: Upstream;
  readonly begunMs: number;
  readonly #settle: Settle;
  #isSettled = false;

  constructor(upstream: Upstream, begunMs: number, settle: Settle) {
    this.upstream = upstream;
    this.begunMs = begunMs;
    this.#settle = settle;
    upstream.underWay += 1;
  }

  /** The head of an answer is there, or none will come. The first counts: a client can break off what follows. */
  settle(outcome: AttemptOutcome): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#settle(this.upstream, outcome, this.begunMs);
  }

  /** Always, and last: it is not under way any more. */
  end(): void {
    this.upstream.underWay -= 1;
    this.settle("abandoned");
  }
}

/** Up to so many are all compared. */
const FEW = 4;
/** Where an upstream's checks say when it may be back, that is when; otherwise a client asks again after this. */
const MIN_RETRY_AFTER_MS = 1_000;

export function createUpstreams(options: UpstreamsOptions): Upstreams {
  const { clock, observe } = options;
  const [only, ...others] = options.upstreams;
  if (only === undefined) throw new TypeError("expected an upstream");
  // The only one is tried whatever happened: nobody is served better by not trying.
  const ejection = others.length === 0 ? undefined : options.ejection;
  const all = options.upstreams.map((settings) => new Upstream(settings, ejection));
  const choose = createChoice(all, options.random);
  const budget = new RetryBudget(clock());
  const retries = { made: 0, refused: 0 };
  const stopChecks =
    options.healthCheck === undefined
      ? () => undefined
      : startHealthChecks(all, options.healthCheck, observe);

  const settle = createSettle(all, options);
  const begin = (upstream: Upstream, nowMs: number): Attempt =>
    new Attempt(upstream, nowMs, settle);

  return {
    all,
    retries,
    take: () => {
      const nowMs = clock();
      budget.earn(nowMs);
      const chosen = choose(nowMs, []);
      if (chosen === undefined) throw refusal(all, nowMs, options.healthCheck?.intervalMs);
      return begin(chosen, nowMs);
    },
    takeAt: (upstream) => {
      const nowMs = clock();
      if (upstream.isFull || upstream.stateAt(nowMs) !== "in") return undefined;
      budget.earn(nowMs);
      return begin(upstream, nowMs);
    },
    retake: (tried, ended) => {
      const nowMs = clock();
      const elsewhere = ended && choose(nowMs, [...tried, ended]);
      const chosen = elsewhere ?? choose(nowMs, tried);
      if (chosen === undefined) return undefined;
      if (!budget.spend(nowMs)) {
        retries.refused += 1;
        return undefined;
      }
      retries.made += 1;
      return begin(chosen, nowMs);
    },
    close: stopChecks,
  };
}

/** What an outcome says of an upstream's health. */
function createSettle(
  all: readonly Upstream[],
  { clock, observe }: Pick<UpstreamsOptions, "clock" | "observe">,
): Settle {
  const isLast = (upstream: Upstream, nowMs: number): boolean =>
    !all.some((other) => other !== upstream && other.stateAt(nowMs) === "in");
  return (upstream, outcome, begunMs) => {
    const nowMs = clock();
    upstream.count(outcome, nowMs - begunMs, nowMs);
    if (outcome === "abandoned") return;
    if (outcome === "answered") {
      if (upstream.ejection?.succeeded(nowMs) === true) observe("readmitted", upstream.name);
      return;
    }
    // A client can bring about what happens once it is connected: that never takes the last one away.
    if (outcome !== "connect" && isLast(upstream, nowMs)) return;
    if (upstream.ejection?.failed(nowMs) === true) observe("ejected", upstream.name);
  };
}

type Choice = (nowMs: number, avoid: readonly Upstream[]) => Upstream | undefined;

function createChoice(all: readonly Upstream[], random: () => number): Choice {
  const below = (count: number): number => Math.min(count - 1, Math.floor(random() * count));

  /** Ties go to a random one: at the start they all are. */
  function cheapest(among: readonly Upstream[], nowMs: number): Upstream | undefined {
    const start = below(among.length);
    let best: Upstream | undefined;
    let bestCost = Infinity;
    for (let i = 0; i < among.length; i += 1) {
      const upstream = among[(start + i) % among.length];
      const cost = upstream?.cost(nowMs) ?? Infinity;
      if (best !== undefined && cost >= bestCost) continue;
      best = upstream;
      bestCost = cost;
    }
    return best;
  }

  return (nowMs, avoid) => {
    const able = all.filter(
      (upstream) =>
        !upstream.isFull && !avoid.includes(upstream) && upstream.stateAt(nowMs) !== "out",
    );
    // One on trial gets one request at a time, unless there is no other.
    const first = able.filter(
      (upstream) => upstream.underWay === 0 || upstream.stateAt(nowMs) === "in",
    );
    const among = first.length > 0 ? first : able;
    if (among.length <= 1) return among[0];
    if (among.length <= FEW) return cheapest(among, nowMs);
    const one = below(among.length);
    const other = (one + 1 + below(among.length - 1)) % among.length;
    return cheapest(
      [among[one], among[other]].filter((upstream) => upstream !== undefined),
      nowMs,
    );
  };
}

/** Why none can be chosen. */
function refusal(
  all: readonly Upstream[],
  nowMs: number,
  checkIntervalMs: number | undefined,
): StileError {
  if (all.some((upstream) => upstream.stateAt(nowMs) !== "out")) {
    return new StileError("TLS_UPSTREAM_BUSY", "the upstream has as many requests as it may");
  }
  const waits = all.map((upstream) =>
    upstream.isHealthy ? (upstream.ejection?.remaining(nowMs) ?? 0) : (checkIntervalMs ?? 0),
  );
  const retryAfterSeconds = Math.max(MIN_RETRY_AFTER_MS, Math.min(...waits)) / 1_000;
  return new StileError("TLS_UPSTREAM_UNHEALTHY", "no upstream is healthy", { retryAfterSeconds });
}
