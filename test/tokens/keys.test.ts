import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  checkKeySchedule,
  createKeyRing,
  encodeDirectory,
  type IssuerKeyRecord,
  type KeySchedule,
  keyStateAt,
  MAX_LIVE_KEYS,
  parseIssuerDirectory,
  planRotation,
  tokenKeyIdOf,
  truncatedTokenKeyId,
} from "../../tokens/index.ts";
import { encodeHex } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { crypto, DAY_MS, fakeRecord, START_MS, testClock, testKey } from "./fixtures.ts";

const HOUR_MS = 3_600_000;
const SCHEDULE: KeySchedule = {
  tokenType: 2,
  directoryLifetimeMs: HOUR_MS,
  activeMs: DAY_MS,
  overlapMs: HOUR_MS,
  retiredMs: 2 * DAY_MS,
};

describe("keyStateAt", () => {
  it("changes exactly at each instant", () => {
    const record = fakeRecord(1, { notBeforeMs: 1000, retireAtMs: 2000, destroyAtMs: 3000 });
    const states = [999, 1000, 1999, 2000, 2999, 3000].map((now) => keyStateAt(record, now));
    expect(states).toEqual(["published", "active", "active", "retired", "retired", "destroyed"]);
  });
});

describe("key ring", () => {
  it("finds issuance keys by truncated id only while they are active", () => {
    const clock = testClock(START_MS - 1);
    const ring = createKeyRing({ records: [fakeRecord(7)], clock });
    const found = (): boolean[] => [
      ring.issuanceKey(2, 7) !== undefined,
      ring.redemptionKey(fakeRecord(7).tokenKeyId) !== undefined,
      ring.redeemableKeys().length === 1,
      ring.servesType(2),
    ];
    expect(found()).toEqual([false, false, false, true]); // published: no token of it can exist
    clock.advance(1);
    expect(found()).toEqual([true, true, true, true]);
    expect(ring.issuanceKey(2, 8)).toBeUndefined();
    expect(ring.issuanceKey(1, 7)).toBeUndefined();
    clock.advance(DAY_MS);
    expect(found()).toEqual([false, true, true, true]);
    clock.advance(DAY_MS);
    expect(found()).toEqual([false, false, false, false]);
  });

  it("names the newest active key of a type as the one to ask tokens of", () => {
    const clock = testClock();
    const successor = fakeRecord(8, { notBeforeMs: START_MS + 10 });
    const other = fakeRecord(9, { tokenType: 1, notBeforeMs: START_MS + 20 });
    const ring = createKeyRing({ records: [fakeRecord(7), successor, other], clock });
    expect(ring.signingKey(2)).toEqual(fakeRecord(7));
    clock.advance(10);
    expect(ring.signingKey(2)).toEqual(successor);
    clock.advance(DAY_MS);
    expect(ring.signingKey(2)).toBeUndefined();
  });

  it("rejects a colliding truncated id, of live keys only, and stays as it was", () => {
    const clock = testClock();
    const ring = createKeyRing({ records: [fakeRecord(7)], clock });
    const other = fakeRecord(7);
    const colliding = { ...other, tokenKeyId: Uint8Array.from(other.tokenKeyId).fill(1, 0, 31) };
    expect(ring.collides(colliding.tokenKeyId)).toBe(true);
    expect(codeOf(() => ring.add(colliding))).toBe("TOKEN_KEY_RING_INVALID");
    expect(codeOf(() => ring.replace([fakeRecord(7), colliding]))).toBe("TOKEN_KEY_RING_INVALID");
    expect(ring.records()).toHaveLength(1);
    clock.advance(2 * DAY_MS);
    const later = { retireAtMs: START_MS + 3 * DAY_MS, destroyAtMs: START_MS + 4 * DAY_MS };
    expect(ring.collides(colliding.tokenKeyId)).toBe(false);
    ring.add({ ...colliding, ...later });
    expect(ring.issuanceKey(2, 7)?.tokenKeyId).toEqual(colliding.tokenKeyId);
    ring.remove(fakeRecord(7).tokenKeyId);
    ring.remove(fakeRecord(7).tokenKeyId);
    expect(ring.records()).toHaveLength(1);
  });

  it("rejects a ninth live key, a key twice, and instants that are out of order", () => {
    const records = Array.from({ length: MAX_LIVE_KEYS }, (_, i) => fakeRecord(i));
    const ring = createKeyRing({ records, clock: testClock() });
    expect(codeOf(() => ring.add(fakeRecord(99)))).toBe("TOKEN_KEY_RING_INVALID");
    const dead = fakeRecord(1, { retireAtMs: START_MS, destroyAtMs: START_MS });
    expect(codeOf(() => createKeyRing({ records: [dead, dead], clock: testClock() }))).toBe(
      "TOKEN_KEY_RING_INVALID",
    );
    for (const wrong of [
      { publishedAtMs: START_MS + 1 },
      { retireAtMs: START_MS - 1 },
      { destroyAtMs: START_MS + DAY_MS - 1 },
      { destroyAtMs: Number.NaN },
      { notBeforeMs: START_MS + 0.5 },
    ]) {
      expect(
        codeOf(() => createKeyRing({ records: [fakeRecord(1, wrong)], clock: testClock() })),
      ).toBe("TOKEN_KEY_RING_INVALID");
    }
    expect(() => truncatedTokenKeyId(new Uint8Array(31))).toThrow(RangeError);
  });
});

describe("planRotation", () => {
  it("makes the first key active at once and then waits", () => {
    const plan = planRotation([], START_MS, SCHEDULE);
    expect(plan.destroy).toEqual([]);
    expect(plan.generate).toEqual([
      {
        tokenType: 2,
        publishedAtMs: START_MS,
        notBeforeMs: START_MS,
        retireAtMs: START_MS + DAY_MS,
        destroyAtMs: START_MS + 3 * DAY_MS,
      },
    ]);
    expect(plan.nextAtMs).toBe(START_MS + DAY_MS - 2 * HOUR_MS);
    const records = [{ ...fakeRecord(1), ...plan.generate[0] }];
    expect(planRotation(records, START_MS, SCHEDULE).generate).toEqual([]);
    expect(planRotation(records, plan.nextAtMs - 1, SCHEDULE).generate).toEqual([]);
    expect(planRotation(records, plan.nextAtMs, SCHEDULE).generate).toMatchObject([
      { publishedAtMs: plan.nextAtMs, notBeforeMs: START_MS + DAY_MS - HOUR_MS },
    ]);
  });

  it("after a standstill replaces a lapsed set at once and destroys what is dead", () => {
    const record = { ...fakeRecord(1), ...planRotation([], START_MS, SCHEDULE).generate[0] };
    const now = START_MS + 3 * DAY_MS;
    const plan = planRotation([record], now, SCHEDULE);
    expect(plan.destroy).toEqual([record]);
    expect(plan.generate).toMatchObject([{ publishedAtMs: now, notBeforeMs: now }]);
  });

  it("leaves the keys of other token types alone", () => {
    const other = fakeRecord(3, { tokenType: 1, retireAtMs: START_MS, destroyAtMs: START_MS });
    const plan = planRotation([other], START_MS, SCHEDULE);
    expect(plan.destroy).toEqual([]);
    expect(plan.generate).toHaveLength(1);
  });

  it("rejects schedules that leave gaps or need too many keys", () => {
    for (const wrong of [
      { activeMs: 0 },
      { retiredMs: -1 },
      { overlapMs: 0.5 },
      { activeMs: 2 * HOUR_MS },
      { retiredMs: 9 * DAY_MS },
    ]) {
      expect(() => checkKeySchedule({ ...SCHEDULE, ...wrong })).toThrow(RangeError);
      expect(() => planRotation([], 0, { ...SCHEDULE, ...wrong })).toThrow(RangeError);
    }
  });

  it("any schedule, ticked unevenly for long: always a key, never nine, each announced", () => {
    const schedules = fc
      .record({
        directoryLifetimeMs: fc.integer({ min: 1000, max: DAY_MS }),
        overlapMs: fc.integer({ min: 1000, max: DAY_MS }),
        activeMs: fc.integer({ min: HOUR_MS, max: 7 * DAY_MS }),
        retiredMs: fc.integer({ min: 1000, max: 14 * DAY_MS }),
      })
      .map((durations): KeySchedule => ({ tokenType: 2, ...durations }))
      .filter((schedule) => {
        try {
          checkKeySchedule(schedule);
          return true;
        } catch {
          return false;
        }
      });
    const jitter = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), {
      minLength: 5,
      maxLength: 5,
    });
    fc.assert(
      fc.property(schedules, jitter, (schedule, late) => {
        let records: IssuerKeyRecord[] = [];
        let nowMs = START_MS;
        let born = 0;
        for (let tick = 0; tick < 120; tick += 1) {
          const plan = planRotation(records, nowMs, schedule);
          records = records.filter((record) => !plan.destroy.includes(record));
          for (const planned of plan.generate) {
            const isFirst = born === 0;
            const lead = planned.notBeforeMs - planned.publishedAtMs;
            expect(lead).toBe(isFirst ? 0 : Math.max(lead, schedule.directoryLifetimeMs));
            records.push({ ...fakeRecord(born % 256), ...planned });
            born += 1;
          }
          const ring = createKeyRing({ records, clock: () => nowMs });
          expect(ring.records().length).toBeLessThanOrEqual(MAX_LIVE_KEYS);
          const active = records.filter((record) => keyStateAt(record, nowMs) === "active");
          expect(active.length).toBeGreaterThanOrEqual(1);
          expect(planRotation(records, nowMs, schedule).generate).toEqual([]);
          expect(plan.nextAtMs).toBeGreaterThan(nowMs);
          // A little late, but by less than the overlap, as a caller's timer is.
          nowMs =
            plan.nextAtMs + Math.floor((late[tick % 5] ?? 0) * (schedule.overlapMs - 1) * 0.5);
        }
        expect(born).toBeGreaterThan(10);
      }),
      { seed: 20_261_123, numRuns: 60 },
    );
  });
});

describe("encodeDirectory", () => {
  const key = testKey().record;
  const next = testKey({
    publishedAtMs: START_MS + DAY_MS / 2,
    notBeforeMs: START_MS + DAY_MS - HOUR_MS + 1,
    retireAtMs: START_MS + 2 * DAY_MS,
    destroyAtMs: START_MS + 3 * DAY_MS,
  }).record;

  function directoryAt(nowMs: number, records = [key, next]): ReturnType<typeof encodeDirectory> {
    const clock = (): number => nowMs;
    const ring = createKeyRing({ records, clock });
    const issuerRequestUri = "/token-request";
    return encodeDirectory(ring, { issuerRequestUri, directoryLifetimeMs: HOUR_MS, clock, crypto });
  }

  it("lists published and active keys newest first, with not-before rounded up", () => {
    const { body } = directoryAt(START_MS + DAY_MS / 2);
    expect(parseIssuerDirectory(body)).toEqual({
      issuerRequestUri: "/token-request",
      tokenKeys: [
        {
          tokenType: 2,
          tokenKey: next.publicKeySpki,
          notBefore: (START_MS + DAY_MS - HOUR_MS) / 1000 + 1,
        },
        { tokenType: 2, tokenKey: key.publicKeySpki, notBefore: START_MS / 1000 },
      ],
    });
    const json: unknown = JSON.parse(new TextDecoder().decode(body));
    expect(json).toMatchObject({
      "issuer-request-uri": "/token-request",
      "token-keys": [
        { "token-type": 2, "token-key": expect.stringMatching(/^MIIBUjA9[\w-]{448}$/) },
        {},
      ],
    });
    expect(tokenKeyIdOf(crypto, key.publicKeySpki)).toEqual(key.tokenKeyId);
  });

  it("does not list keys before their publication, after retirement or destruction", () => {
    const keysAt = (nowMs: number): string[] =>
      parseIssuerDirectory(directoryAt(nowMs).body).tokenKeys.map((k) => encodeHex(k.tokenKey));
    const [a, b] = [encodeHex(key.publicKeySpki), encodeHex(next.publicKeySpki)];
    expect(keysAt(START_MS - 1)).toEqual([]);
    expect(keysAt(START_MS)).toEqual([a]);
    expect(keysAt(START_MS + DAY_MS - 1)).toEqual([b, a]);
    expect(keysAt(START_MS + DAY_MS)).toEqual([b]);
    expect(keysAt(START_MS + 2 * DAY_MS)).toEqual([]);
  });

  it("gives the same bytes and ETag whatever the order of records, other ones for other keys", () => {
    const [one, two] = [
      directoryAt(START_MS + DAY_MS / 2),
      directoryAt(START_MS + DAY_MS - HOUR_MS),
    ];
    expect(one.body).toEqual(two.body);
    expect(one.etag).toBe(two.etag);
    expect(one.etag).toMatch(/^"[A-Za-z0-9_-]{43}"$/);
    expect(directoryAt(START_MS + DAY_MS / 2, [next, key]).etag).toBe(one.etag);
    expect(directoryAt(START_MS + DAY_MS).etag).not.toBe(one.etag);
  });

  it("caches no longer than the listed keys live", () => {
    expect(directoryAt(START_MS).maxAgeSeconds).toBe(3600);
    expect(directoryAt(START_MS + DAY_MS - 10_500, [key]).maxAgeSeconds).toBe(10);
    expect(directoryAt(START_MS, []).maxAgeSeconds).toBe(0);
  });
});

describe("parseIssuerDirectory", () => {
  const text = new TextEncoder();
  const parse = (value: unknown): unknown =>
    parseIssuerDirectory(text.encode(typeof value === "string" ? value : JSON.stringify(value)));
  const keyOf = (fields: object): object => ({
    "issuer-request-uri": "/r",
    "token-keys": [{ "token-type": 2, "token-key": "AA==", ...fields }],
  });

  it("reads the example of RFC 9578 section 4, ignoring unknown members and types", () => {
    const example = {
      "issuer-request-uri": "https://issuer.example.net/request",
      "token-keys": [
        { "token-type": 2, "token-key": "MI_-", "not-before": 1_686_913_811, extra: 1 },
        { "token-type": 65_535, "token-key": "AAA=" },
      ],
      more: [],
    };
    expect(parse(example)).toEqual({
      issuerRequestUri: "https://issuer.example.net/request",
      tokenKeys: [
        { tokenType: 2, tokenKey: Uint8Array.of(0x30, 0x8f, 0xfe), notBefore: 1_686_913_811 },
        { tokenType: 65_535, tokenKey: Uint8Array.of(0, 0) },
      ],
    });
  });

  it("rejects what is not a directory", () => {
    const value = "WIRE_VALUE_NOT_ALLOWED";
    const cases: readonly [unknown, string][] = [
      ["{", "WIRE_BAD_ENCODING"],
      [[], value],
      ["null", value],
      [{ "token-keys": [] }, value],
      [{ "issuer-request-uri": "", "token-keys": [] }, value],
      [{ "issuer-request-uri": "/r" }, value],
      [{ "issuer-request-uri": "/r", "token-keys": [1] }, value],
      [keyOf({ "token-type": "2" }), value],
      [keyOf({ "token-type": 65_536 }), value],
      [keyOf({ "token-key": 1 }), value],
      [keyOf({ "token-key": "A+==" }), "WIRE_BAD_ENCODING"],
      [keyOf({ "not-before": -1 }), value],
      [keyOf({ "not-before": "0" }), value],
      ["x".repeat(65_537), "WIRE_LENGTH_OUT_OF_BOUNDS"],
      [
        { "issuer-request-uri": "/r", "token-keys": Array.from({ length: 65 }, () => ({})) },
        "WIRE_LENGTH_OUT_OF_BOUNDS",
      ],
    ];
    for (const [document, code] of cases) expect(codeOf(() => parse(document))).toBe(code);
    expect(codeOf(() => parseIssuerDirectory(Uint8Array.of(0xff)))).toBe("WIRE_BAD_ENCODING");
  });
});
