/** When a host challenges: thresholds, hysteresis, and what an attacker or a broken clock can make of it. */
import { describe, expect, it } from "vitest";
import { createEventRate } from "../../../service/edge/adaptive/event-rate.ts";
import { HostWatch, type HostWatchOptions } from "../../../service/edge/adaptive/host-watch.ts";

const SECOND = 1_000;
const START = 1_800_000_000_000;

interface Driven {
  readonly watch: HostWatch;
  readonly changes: string[];
  now: number;
  /** `perSecond` unadmitted requests for so many seconds; whether it was ever open meanwhile, at their end. */
  readonly load: (perSecond: number, seconds: number, signal?: "unadmitted" | "failures") => void;
  /** A second in between, nothing else. */
  readonly wait: (seconds: number) => void;
  readonly isOpen: () => boolean;
}

function drive(options: Partial<HostWatchOptions> = {}): Driven {
  const changes: string[] = [];
  const watch = new HostWatch(
    {
      signals: {
        unadmitted: { above: 50, below: 10 },
        slow: { above: 5, below: 1 },
        failures: { above: 5, below: 1 },
      },
      meanMs: 10 * SECOND,
      slowAfterMs: 2 * SECOND,
      challengeMs: 60 * SECOND,
      calmMs: 30 * SECOND,
      onChange: (isOpen, why) => changes.push(`${isOpen ? "open" : "challenging"} ${why}`),
      ...options,
    },
    START,
  );
  const driven: Driven = {
    watch,
    changes,
    now: START,
    load: (perSecond, seconds, signal = "unadmitted") => {
      const until = driven.now + seconds * SECOND;
      for (; driven.now < until; driven.now += SECOND / perSecond) watch.note(signal, driven.now);
    },
    wait: (seconds) => {
      driven.now += seconds * SECOND;
    },
    isOpen: () => watch.isOpen(driven.now),
  };
  return driven;
}

/** One that has been calm for long enough after its start. */
function open(options: Partial<HostWatchOptions> = {}): Driven {
  const driven = drive(options);
  driven.wait((options.challengeMs ?? 60 * SECOND) / SECOND);
  expect(driven.isOpen()).toBe(true);
  driven.changes.length = 0;
  return driven;
}

describe("a rate of events", () => {
  it("is the rate that comes steadily, falls between events and says when it will have fallen", () => {
    const rate = createEventRate(10_000);
    let now = 0;
    for (; now < 100_000; now += 50) rate.add(now);
    expect(rate.at(now)).toBeGreaterThan(19.8);
    expect(rate.at(now)).toBeLessThan(20.2);
    const calm = rate.fallsTo(5, now);
    expect(rate.at(calm)).toBeCloseTo(5, 6);
    expect(calm - now).toBeCloseTo(10_000 * Math.log(rate.at(now) / 5), 3);
    expect(rate.fallsTo(30, now)).toBe(now);
  });
});

describe("a watched host", () => {
  it("challenges at its start, until it was calm for the time of both limits", () => {
    const driven = drive();
    expect(driven.isOpen()).toBe(false);
    driven.wait(59.999);
    expect(driven.isOpen()).toBe(false);
    driven.wait(0.001);
    expect(driven.isOpen()).toBe(true);
    expect(driven.changes).toEqual(["open calm"]);
  });

  it("stays open at any steady rate below the upper threshold, and challenges above it", () => {
    const driven = open();
    driven.load(49, 300);
    expect(driven.isOpen()).toBe(true);
    driven.load(60, 30);
    expect(driven.isOpen()).toBe(false);
    expect(driven.changes).toEqual(["challenging unadmitted"]);
  });

  it("challenges within a burst, not after it", () => {
    const driven = open();
    let passed = 0;
    for (; driven.isOpen() && passed < 10_000; passed += 1) {
      driven.watch.note("unadmitted", driven.now);
    }
    // 50 a second over a mean of ten seconds.
    expect(passed).toBeGreaterThanOrEqual(500);
    expect(passed).toBeLessThanOrEqual(501);
  });

  it("goes on challenging between the two thresholds, and opens once all was calm for long enough", () => {
    const driven = open();
    driven.load(100, 20);
    expect(driven.isOpen()).toBe(false);
    driven.load(20, 600);
    expect(driven.isOpen()).toBe(false);
    const left = driven.now;
    while (!driven.isOpen()) driven.wait(0.25);
    // From 20 a second it takes ln(2) times the mean to fall to 10.
    expect((driven.now - left) / SECOND).toBeGreaterThan(30 + 10 * Math.LN2 - 0.5);
    expect((driven.now - left) / SECOND).toBeLessThan(30 + 10 * Math.LN2 + 0.5);
    expect(driven.changes).toEqual(["challenging unadmitted", "open calm"]);
  });

  it("challenges for its least time, however short the burst was", () => {
    const driven = open({ challengeMs: 300 * SECOND });
    driven.load(1_000, 1);
    driven.wait(298);
    expect(driven.isOpen()).toBe(false);
    driven.wait(2);
    expect(driven.isOpen()).toBe(true);
  });

  it.each([1, 5, 10, 20, 40])(
    "does not flap under a load that comes and goes every %d seconds",
    (seconds) => {
      const driven = open();
      for (let i = 0; i < 3_600 / seconds / 2; i += 1) {
        driven.load(200, seconds);
        driven.isOpen();
        driven.wait(seconds);
        driven.isOpen();
      }
      expect(driven.changes).toEqual(["challenging unadmitted"]);
    },
  );

  it("changes at most once for each time that it has to last, whatever comes", () => {
    const driven = open();
    let seed = 7;
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    const from = driven.now;
    while (driven.now < from + 7_200 * SECOND) {
      driven.load(1 + next(150), 1 + next(20));
      driven.isOpen();
      driven.wait(next(90));
      driven.isOpen();
    }
    const times = driven.changes.filter((change) => change.startsWith("challenging")).length;
    expect(times).toBeGreaterThan(3);
    expect(times).toBeLessThanOrEqual(7_200 / 60);
  });
});

describe("the upstream of a watched host", () => {
  it("is challenged for at failures, and not opened while they go on", () => {
    const driven = open();
    driven.load(8, 20, "failures");
    expect(driven.isOpen()).toBe(false);
    driven.load(2, 600, "failures");
    expect(driven.isOpen()).toBe(false);
    expect(driven.changes).toEqual(["challenging failures"]);
  });

  it("is challenged for at late answers, those that come and those that do not", () => {
    const late = open();
    for (let i = 0; i < 60; i += 1) {
      const end = late.watch.startAnswer(late.now);
      late.wait(2);
      end(late.now);
      for (let more = 0; more < 20; more += 1) late.watch.startAnswer(late.now)(late.now);
    }
    // One in two seconds is below what is allowed; six a second are not.
    expect(late.changes).toEqual([]);
    for (let i = 0; i < 60; i += 1) {
      const ends = Array.from({ length: 12 }, () => late.watch.startAnswer(late.now));
      late.wait(2);
      for (const end of ends) end(late.now);
    }
    expect(late.changes).toEqual(["challenging slow"]);
    const hung = open();
    for (let i = 0; i < 100; i += 1) hung.watch.startAnswer(hung.now);
    expect(hung.isOpen()).toBe(true);
    hung.wait(1.9);
    expect(hung.isOpen()).toBe(true);
    hung.wait(0.1);
    expect(hung.isOpen()).toBe(false);
    expect(hung.changes).toEqual(["challenging slow"]);
  });

  it("is not challenged for at answers in time, however many, nor opened by them", () => {
    const driven = open();
    for (let i = 0; i < 100; i += 1) {
      const ends = Array.from({ length: 200 }, () => driven.watch.startAnswer(driven.now));
      driven.wait(1.999);
      for (const end of ends) end(driven.now);
    }
    expect(driven.changes).toEqual([]);
  });

  it("counts each late answer once", () => {
    const driven = open({
      signals: {
        unadmitted: { above: 50, below: 10 },
        slow: { above: 0.15, below: 0.01 },
        failures: { above: 5, below: 1 },
      },
    });
    const end = driven.watch.startAnswer(driven.now);
    driven.wait(2);
    for (let i = 0; i < 100; i += 1) driven.isOpen();
    end(driven.now);
    // One event over a mean of ten seconds is a rate of 0.1.
    expect(driven.isOpen()).toBe(true);
    driven.watch.startAnswer(driven.now);
    driven.wait(2);
    expect(driven.isOpen()).toBe(false);
  });
});

describe("an attacker of a watched host", () => {
  it("cannot hold it open with traffic that is admitted or answered well", () => {
    const driven = open();
    for (let i = 0; i < 60; i += 1) {
      for (let good = 0; good < 1_000; good += 1) driven.watch.startAnswer(driven.now)(driven.now);
      driven.load(55, 1);
    }
    expect(driven.isOpen()).toBe(false);
  });

  it("cannot open it again without falling silent", () => {
    const driven = open();
    driven.load(100, 10);
    driven.load(11, 3_600);
    expect(driven.isOpen()).toBe(false);
  });
});

describe("a clock that cannot be measured by", () => {
  it.each([
    ["goes back", START],
    ["is no number", Number.NaN],
  ])("closes a host when it %s", (_, nowMs) => {
    const driven = open();
    expect(driven.watch.isOpen(nowMs)).toBe(false);
    expect(driven.changes).toEqual(["challenging start"]);
    // And it recovers by itself.
    expect(driven.watch.isOpen(START + 1_000 * SECOND)).toBe(Number.isFinite(nowMs));
    driven.watch.isOpen(START + 1_001 * SECOND);
    expect(driven.watch.isOpen(START + 1_062 * SECOND)).toBe(true);
  });
});
