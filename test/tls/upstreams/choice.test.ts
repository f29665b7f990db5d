/** The choice among upstreams, their ejection and the budget of second attempts, by a clock and dice of our own. */
import { describe, expect, test } from "vitest";
import { Attempts, isRepeatable } from "../../../tls/upstreams/attempts.ts";
import type { Upstreams } from "../../../tls/index.ts";
import { codeOf } from "../../support/reject.ts";
import { upstreamsTo } from "../../support/tls-edge.ts";

interface Stage {
  readonly upstreams: Upstreams;
  readonly events: string[];
  /** What its clock shows. */
  nowMs: number;
}

/** Nothing listens there, and nobody asks. */
const urls = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `http://192.0.2.${i + 1}`);

function stage(count: number, random: () => number = () => 0): Stage {
  const events: string[] = [];
  const time = { nowMs: 1_000 };
  const upstreams = upstreamsTo(urls(count), {
    clock: () => time.nowMs,
    random,
    observe: (event, name) => void events.push(`${event} ${name}`),
  });
  return Object.assign(time, { events, upstreams });
}

/** Numbers from 0 to 1 of a generator whose seed is fixed (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Requests that come every `everyMs` and take as long as their upstream does. @returns how many each got */
function simulate(made: Stage, latenciesMs: readonly number[], everyMs: number): number[] {
  const counts = latenciesMs.map(() => 0);
  const ends: { atMs: number; end: () => void }[] = [];
  for (let i = 0; i < 2_000; i += 1) {
    made.nowMs += everyMs;
    for (const due of ends.filter(({ atMs }) => atMs <= made.nowMs)) {
      due.end();
      ends.splice(ends.indexOf(due), 1);
    }
    const attempt = made.upstreams.take();
    const at = Number(attempt.upstream.name);
    counts[at] = (counts[at] ?? 0) + 1;
    const end = (): void => {
      attempt.settle("answered");
      attempt.end();
    };
    ends.push({ atMs: made.nowMs + (latenciesMs[at] ?? 0), end });
  }
  return counts;
}

function fail(made: Stage, name: string, failure: "connect" | "timeout", times: number): void {
  const upstream = made.upstreams.all.find((one) => one.name === name);
  for (let i = 0; i < times; i += 1) {
    const attempt = upstream && made.upstreams.takeAt(upstream);
    attempt?.settle(failure);
    attempt?.end();
  }
}

function chosen(made: Stage): string {
  const attempt = made.upstreams.take();
  attempt.settle("answered");
  attempt.end();
  return attempt.upstream.name;
}

describe("the choice", () => {
  test("gives equal ones equal shares, and a slow one little, of few and of many", () => {
    const [a = 0, b = 0] = simulate(stage(2, seeded(1)), [20, 20], 5);
    expect(a / b).toBeGreaterThan(0.8);
    expect(a / b).toBeLessThan(1.25);
    const [slow = 0, quick = 0] = simulate(stage(2, seeded(2)), [200, 10], 5);
    expect(quick / slow).toBeGreaterThan(20);
    expect(slow).toBeGreaterThan(0);
    const latencies = [200, ...Array<number>(7).fill(10)];
    const [slowest = 0, ...others] = simulate(stage(8, seeded(3)), latencies, 1);
    expect(slowest).toBeLessThan(Math.min(...others) / 4);
    expect(Math.max(...others) / Math.min(...others)).toBeLessThan(1.5);
  });

  test("asks a slow one again after a while, and takes it back when it is quick", () => {
    const made = stage(2, seeded(4));
    simulate(made, [500, 10], 5);
    made.nowMs += 60_000;
    const [back = 0, other = 0] = simulate(made, [10, 10], 5);
    expect(back / other).toBeGreaterThan(0.7);
  });

  test("counts a client that left in vain as slowness, not a refused connection as speed", () => {
    const made = stage(2);
    const [first] = made.upstreams.all;
    const waited = first && made.upstreams.takeAt(first);
    made.nowMs += 900;
    waited?.end();
    expect(first?.latencyMs(made.nowMs)).toBe(900);
    fail(made, "1", "connect", 1);
    expect(made.upstreams.all[1]?.latencyMs(made.nowMs)).toBe(0);
    expect(made.upstreams.all[1]?.outcomes).toMatchObject({ abandoned: 0, connect: 1 });
  });

  test("follows the weights", () => {
    const made = stage(2, seeded(5));
    const upstreams = upstreamsTo(urls(1), { clock: () => made.nowMs });
    const [light] = upstreams.all;
    expect(light).toBeDefined();
    const heavy = upstreamsTo(urls(1), { clock: () => made.nowMs, settings: { weight: 4 } }).all[0];
    for (const one of [light, heavy]) one?.count("answered", 100, made.nowMs);
    expect(light?.cost(made.nowMs)).toBe(100);
    expect(heavy?.cost(made.nowMs)).toBe(25);
  });

  test("rejects with TLS_UPSTREAM_BUSY what would be above the limit of each", () => {
    const upstreams = upstreamsTo(urls(2), { settings: { maxUnderWay: 2 } });
    const held = Array.from({ length: 4 }, () => upstreams.take());
    expect(held.map(({ upstream }) => upstream.name).sort()).toStrictEqual(["0", "0", "1", "1"]);
    expect(codeOf(() => upstreams.take())).toBe("TLS_UPSTREAM_BUSY");
    held[0]?.end();
    expect(upstreams.take().upstream).toBe(held[0]?.upstream);
  });
});

describe("ejection", () => {
  test("takes one out after three failures in a row, for twice as long each time", () => {
    const made = stage(2);
    fail(made, "0", "connect", 2);
    expect([chosen(made), chosen(made)].includes("0")).toBe(true);
    // That was a success: it counts anew.
    fail(made, "0", "connect", 2);
    expect(made.events).toStrictEqual([]);
    fail(made, "0", "connect", 1);
    for (const seconds of [1, 2, 4]) {
      expect(made.events.at(-1)).toBe("ejected 0");
      made.nowMs += seconds * 1_000 - 1;
      expect(made.upstreams.all[0]?.stateAt(made.nowMs)).toBe("out");
      made.nowMs += 1;
      expect(made.upstreams.all[0]?.stateAt(made.nowMs)).toBe("trial");
      // One failure on trial is enough.
      const attempt = made.upstreams.take();
      expect(attempt.upstream.name).toBe("0");
      // It gets one request at a time.
      expect(made.upstreams.take().upstream.name).toBe("1");
      attempt.settle("connect");
      attempt.end();
    }
    made.nowMs += 8_000;
    expect(chosen(made)).toBe("0");
    expect(made.events.at(-1)).toBe("readmitted 0");
  });

  test("is for as long as it was before where one flaps, and forgets that when it stays in", () => {
    const made = stage(2);
    const outFor = (): number => made.upstreams.all[0]?.ejection?.remaining(made.nowMs) ?? 0;
    for (const expected of [1_000, 2_000, 4_000]) {
      fail(made, "0", "connect", 3);
      expect(outFor()).toBe(expected);
      made.nowMs += expected;
      expect(chosen(made)).toBe("0");
    }
    made.nowMs += 4_001;
    fail(made, "0", "connect", 3);
    expect(outFor()).toBe(1_000);
  });

  test("rejects with TLS_UPSTREAM_UNHEALTHY where none is left, until one may be tried", () => {
    const made = stage(2);
    for (const name of ["0", "1"]) fail(made, name, "connect", 3);
    expect(codeOf(() => made.upstreams.take())).toBe("TLS_UPSTREAM_UNHEALTHY");
    made.nowMs += 1_000;
    // All are on trial: then each may get more than one.
    const held = [made.upstreams.take(), made.upstreams.take(), made.upstreams.take()];
    expect(held).toHaveLength(3);
  });

  test("never takes the last one by what a client can bring about", () => {
    const made = stage(2);
    fail(made, "0", "timeout", 3);
    fail(made, "1", "timeout", 30);
    expect(made.events).toStrictEqual(["ejected 0"]);
    expect(chosen(made)).toBe("1");
  });

  test("is not for the only one", () => {
    const made = stage(1);
    fail(made, "0", "connect", 30);
    expect(chosen(made)).toBe("0");
  });
});

describe("second attempts", () => {
  test.each([
    ["what never left, whatever it is", "POST", "connect", false, true],
    ["a GET that was lost", "GET", "broken", false, true],
    ["a HEAD on a kept connection that had ended", "HEAD", "broken", true, true],
    ["a POST that was lost", "POST", "broken", false, false],
    ["a POST on a kept connection that had ended", "POST", "broken", true, false],
    ["a GET that got no answer in time", "GET", "timeout", false, false],
    ["a GET that got nonsense", "GET", "malformed", false, false],
  ] as const)("%s", (_name, method, failure, isReused, isAllowed) => {
    const attempts = new Attempts(stage(2).upstreams, isRepeatable(method, false));
    expect(attempts.next(failure, isReused)).toBe(isAllowed);
    attempts.end();
  });

  test("go elsewhere, and each upstream gets a request that was lost once", () => {
    const { upstreams } = stage(3);
    const attempts = new Attempts(upstreams, true);
    const seen = new Set([attempts.upstream]);
    expect(attempts.next("broken", false)).toBe(true);
    seen.add(attempts.upstream);
    expect(seen.size).toBe(2);
    expect(attempts.next("broken", false)).toBe(false);
    attempts.end();
    expect(upstreams.all.map(({ underWay }) => underWay)).toStrictEqual([0, 0, 0]);
  });

  test("go elsewhere from a kept connection that had ended, also where others are slower", () => {
    const made = stage(2);
    for (const [i, latencyMs] of [1, 900].entries()) {
      const upstream = made.upstreams.all[i];
      const attempt = upstream && made.upstreams.takeAt(upstream);
      made.nowMs += latencyMs;
      attempt?.settle("answered");
      attempt?.end();
    }
    const attempts = new Attempts(made.upstreams, true);
    expect(attempts.upstream.name).toBe("0");
    expect(attempts.next("broken", true)).toBe(true);
    expect(attempts.upstream.name).toBe("1");
    attempts.end();
  });

  test("are none without another upstream, but on a kept connection", () => {
    for (const [isReused, isAllowed] of [
      [false, false],
      [true, true],
    ] as const) {
      const attempts = new Attempts(stage(1).upstreams, true);
      expect(attempts.next("broken", isReused)).toBe(isAllowed);
      attempts.end();
    }
  });

  test("are enough for what a busy upstream has under way when it dies", () => {
    const made = stage(2);
    for (let i = 0; i < 5_000; i += 1) {
      made.nowMs += 1;
      chosen(made);
    }
    const underWay = Array.from({ length: 500 }, () => new Attempts(made.upstreams, true));
    expect(underWay.every((attempts) => attempts.next("broken", true))).toBe(true);
    for (const attempts of underWay) attempts.end();
  });

  test("are a fifth of all at the most, and ten a second where there are few", () => {
    const made = stage(2);
    let retried = 0;
    for (let i = 0; i < 1_000; i += 1) {
      // Which of them fails is none of the budget's business, and none may be ejected here.
      const attempts = new Attempts(made.upstreams, true);
      if (attempts.next("broken", true)) retried += 1;
      attempts.end();
    }
    expect(retried).toBeGreaterThan(200);
    expect(retried).toBeLessThan(225);
    expect(made.upstreams.retries).toStrictEqual({ made: retried, refused: 1_000 - retried });
    made.nowMs += 60_000;
    const before = retried;
    for (let i = 0; i < 30; i += 1) {
      const attempts = new Attempts(made.upstreams, true);
      if (attempts.next("broken", true)) retried += 1;
      attempts.end();
    }
    expect(retried - before).toBeLessThan(18);
  });
});
