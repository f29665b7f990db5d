import { constants, sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  type Challenger,
  type ChallengeScope,
  createChallenger,
  createKeyRing,
  createRedeemer,
  encodeAuthenticatorInput,
  encodeToken,
  parseTokenChallenge,
  type RedeemedToken,
  type SpendOutcome,
  type SpentStore,
} from "../../tokens/index.ts";
import { concatBytes, encodeHex, StileError } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import {
  crypto,
  DAY_MS,
  fakeRecord,
  memorySpentStore,
  type MemorySpentStore,
  START_MS,
  testClock,
  type TestClock,
  testKey,
} from "./fixtures.ts";

const WINDOW_MS = 60_000;
const key = testKey();
const secret = new Uint8Array(32).fill(1);
const scope: ChallengeScope = { originInfo: "origin.example", context: "window" };
const exporter = new Uint8Array(32).fill(4);

function challengerAt(
  clock: TestClock,
  fields: { issuerName?: string; secret?: Uint8Array } = {},
): Challenger {
  const issuerName = "issuer.example";
  return createChallenger({ issuerName, secret, crypto, clock, windowMs: WINDOW_MS, ...fields });
}

interface Bench {
  readonly clock: TestClock;
  readonly store: MemorySpentStore;
  readonly challenger: Challenger;
  redeem(
    token: Uint8Array,
    more?: { scope?: ChallengeScope; binding?: Uint8Array },
  ): Promise<RedeemedToken>;
}

function bench(spentStore?: SpentStore): Bench {
  const clock = testClock();
  const store = memorySpentStore();
  const challenger = challengerAt(clock);
  const redeemer = createRedeemer({
    keyRing: createKeyRing({ records: [key.record, fakeRecord(1, { tokenType: 1 })], clock }),
    challenger,
    spentStore: spentStore ?? store,
    crypto,
    clock,
    repeatWindowMs: 10_000,
  });
  return {
    clock,
    store,
    challenger,
    redeem: (token, more) => redeemer.redeem({ token, scope, ...more }),
  };
}

/** A token signed without blinding: the same bytes that issuance gives, in one step. */
function tokenFor(
  challenge: Uint8Array,
  fields: { nonce?: number; tokenKeyId?: Uint8Array } = {},
): Uint8Array {
  const input = {
    tokenType: 2,
    nonce: new Uint8Array(32).fill(fields.nonce ?? 1),
    challengeDigest: crypto.sha256(challenge),
    tokenKeyId: fields.tokenKeyId ?? key.record.tokenKeyId,
  };
  const authenticator = new Uint8Array(
    sign("sha384", encodeAuthenticatorInput(input), {
      key: key.privateKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: 48,
    }),
  );
  return encodeToken({ ...input, authenticator });
}

describe("redemption", () => {
  it("redeems once", async () => {
    const { redeem, challenger, store } = bench();
    const token = tokenFor(challenger.challenge(scope, 2));
    expect(await redeem(token)).toEqual({
      outcome: "fresh",
      redeemedAtMs: START_MS,
      tokenKeyId: key.record.tokenKeyId,
    });
    expect(await codeOfAsync(() => redeem(token))).toBe("TOKEN_ALREADY_SPENT");
    expect(store.requests[0]).toEqual({
      tokenKeyId: key.record.tokenKeyId,
      nonce: new Uint8Array(32).fill(1),
      atMs: START_MS,
    });
  });

  it("answers a repeat with the first instant, within the window and for the same binding", async () => {
    const { redeem, challenger, clock } = bench();
    const token = tokenFor(challenger.challenge(scope, 2));
    const binding = Uint8Array.of(1, 2, 3);
    await redeem(token, { binding });
    clock.advance(10_000);
    expect(await redeem(token, { binding })).toMatchObject({
      outcome: "repeat",
      redeemedAtMs: START_MS,
    });
    expect(await codeOfAsync(() => redeem(token))).toBe("TOKEN_ALREADY_SPENT");
    const other = { binding: Uint8Array.of(1, 2) };
    expect(await codeOfAsync(() => redeem(token, other))).toBe("TOKEN_ALREADY_SPENT");
    clock.advance(1);
    expect(await codeOfAsync(() => redeem(token, { binding }))).toBe("TOKEN_ALREADY_SPENT");
  });

  it("stores bindings that link no two tokens, and never the caller's own bytes", async () => {
    const { redeem, challenger, store } = bench();
    const binding = new Uint8Array(32).fill(8);
    for (const nonce of [1, 2]) {
      await redeem(tokenFor(challenger.challenge(scope, 2), { nonce }), { binding });
    }
    const stored = store.requests.map((request) => encodeHex(request.binding ?? new Uint8Array(0)));
    expect(new Set([...stored, encodeHex(binding)]).size).toBe(3);
    expect(stored.every((text) => text.length === 64)).toBe(true);
    const token = tokenFor(challenger.challenge(scope, 2), { nonce: 3 });
    await expect(redeem(token, { binding: new Uint8Array(0) })).rejects.toThrow(RangeError);
  });

  it("accepts the current window and the previous one", async () => {
    const { redeem, challenger, clock } = bench();
    const challenge = challenger.challenge(scope, 2);
    clock.advance(WINDOW_MS);
    await redeem(tokenFor(challenge));
    clock.advance(WINDOW_MS);
    const code = await codeOfAsync(() => redeem(tokenFor(challenge, { nonce: 2 })));
    expect(code).toBe("TOKEN_CHALLENGE_MISMATCH");
    // a challenge of a window that is still to come
    const { challenger: ahead, clock: later } = bench();
    later.advance(3 * WINDOW_MS);
    const early = tokenFor(ahead.challenge(scope, 2), { nonce: 3 });
    expect(await codeOfAsync(() => redeem(early))).toBe("TOKEN_CHALLENGE_MISMATCH");
  });

  it("accepts tokens of a retired key and rejects those of a published or destroyed one", async () => {
    const { redeem, challenger, clock } = bench();
    const none: ChallengeScope = { ...scope, context: "none" };
    const challenge = challenger.challenge(none, 2);
    clock.advance(-1);
    expect(await codeOfAsync(() => redeem(tokenFor(challenge), { scope: none }))).toBe(
      "TOKEN_KEY_UNKNOWN",
    );
    clock.advance(1 + DAY_MS);
    expect(await redeem(tokenFor(challenge), { scope: none })).toMatchObject({ outcome: "fresh" });
    clock.advance(DAY_MS);
    const token = tokenFor(challenge, { nonce: 2 });
    expect(await codeOfAsync(() => redeem(token, { scope: none }))).toBe("TOKEN_KEY_UNKNOWN");
  });

  it("rejects what the store cannot answer, whatever the store throws", async () => {
    for (const error of [
      new StileError("TOKEN_STORE_UNAVAILABLE", "down"),
      new Error("EIO"),
      new StileError("WIRE_TOO_SHORT", "a bug in the store"),
    ]) {
      const store = { ...memorySpentStore(), spend: () => Promise.reject(error) };
      const { redeem, challenger } = bench(store);
      const token = tokenFor(challenger.challenge(scope, 2));
      expect(await codeOfAsync(() => redeem(token))).toBe("TOKEN_STORE_UNAVAILABLE");
    }
  });

  it("rejects a token of a key whose epoch has ended, as one of no key of ours", async () => {
    const ended = (): Promise<never> => Promise.reject(new StileError("TOKEN_KEY_UNKNOWN", "over"));
    const { redeem, challenger } = bench({ ...memorySpentStore(), spend: ended });
    const token = tokenFor(challenger.challenge(scope, 2));
    expect(await codeOfAsync(() => redeem(token))).toBe("TOKEN_KEY_UNKNOWN");
  });

  it("rejects an answer of the store that is not in its contract", async () => {
    const store = {
      ...memorySpentStore(),
      spend: async (): Promise<SpendOutcome> => JSON.parse('{"outcome":"?"}'),
    };
    const { redeem, challenger } = bench(store);
    await expect(redeem(tokenFor(challenger.challenge(scope, 2)))).rejects.toThrow(TypeError);
  });

  it("rejects a repeat window below zero", () => {
    const clock = testClock();
    const options = {
      keyRing: createKeyRing({ records: [], clock }),
      challenger: challengerAt(clock),
      spentStore: memorySpentStore(),
      crypto,
      clock,
    };
    expect(() => createRedeemer({ ...options, repeatWindowMs: -1 })).toThrow(RangeError);
  });

  it("is not fooled by a caller that changes the bytes while it waits", async () => {
    const { challenger, clock } = bench();
    const store = memorySpentStore();
    const token = tokenFor(challenger.challenge(scope, 2));
    const redeemer = createRedeemer({
      keyRing: createKeyRing({ records: [key.record], clock }),
      challenger,
      spentStore: store,
      crypto: { ...crypto, verifyType2: async (...args) => crypto.verifyType2(...args) },
      clock,
      repeatWindowMs: 0,
    });
    const pending = redeemer.redeem({ token, scope });
    token.fill(0xff);
    await pending;
    expect(store.requests[0]?.nonce).toEqual(new Uint8Array(32).fill(1));
  });
});

describe("order of checks", () => {
  /** Each fault with the code it alone gives; a token with several must give the first one's. */
  const faults: readonly (readonly [string, (token: Uint8Array) => Uint8Array])[] = [
    ["WIRE_TRAILING_BYTES", (token) => concatBytes([token, Uint8Array.of(0)])],
    // type 0x0001, and as long as a token of that type
    ["TOKEN_TYPE_UNSUPPORTED", (token) => retyped(token)],
    ["TOKEN_KEY_UNKNOWN", (token) => flipped(token, 97)],
    ["TOKEN_CHALLENGE_MISMATCH", (token) => flipped(token, 34)],
    ["TOKEN_AUTHENTICATOR_INVALID", (token) => flipped(token, token.length - 1)],
    ["TOKEN_ALREADY_SPENT", (token) => token],
  ];

  function flipped(token: Uint8Array, at: number): Uint8Array {
    const bytes = Uint8Array.from(token);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes;
  }

  function retyped(token: Uint8Array): Uint8Array {
    return Uint8Array.of(0, 1, ...token.subarray(2, 98 + 48));
  }

  it("every set of faults gives the code of the earliest, and only a genuine token reaches the store", async () => {
    for (let set = 0; set < 2 ** faults.length; set += 1) {
      const chosen = faults.filter((_, i) => (set & (1 << i)) !== 0);
      const { redeem, challenger, store } = bench();
      const genuine = tokenFor(challenger.challenge(scope, 2));
      const isSpent = chosen.some(([code]) => code === "TOKEN_ALREADY_SPENT");
      if (isSpent) await redeem(genuine);
      // Applied last to first, so that the trailing byte trails the token that was made.
      const token = chosen.reduceRight((bytes, [, apply]) => apply(bytes), genuine);
      const first = chosen[0]?.[0] ?? "nothing was thrown";
      expect(await codeOfAsync(() => redeem(token))).toBe(first);
      const reached = first === "TOKEN_ALREADY_SPENT" || chosen.length === 0 ? 1 : 0;
      expect(store.requests).toHaveLength(reached + (isSpent ? 1 : 0));
    }
  });

  it("rejects an unknown type before anything else about the token is looked at", async () => {
    const { redeem, store } = bench();
    const bytes = new Uint8Array(400).fill(0xda);
    expect(await codeOfAsync(() => redeem(bytes))).toBe("TOKEN_TYPE_UNSUPPORTED");
    expect(await codeOfAsync(() => redeem(new Uint8Array(0)))).toBe("WIRE_TOO_SHORT");
    expect(store.requests).toEqual([]);
  });

  it("rejects a type 0x0002 token that names a key of another type", async () => {
    const { redeem, challenger } = bench();
    const tokenKeyId = new Uint8Array(32).fill(1);
    const token = tokenFor(challenger.challenge(scope, 2), { tokenKeyId });
    expect(await codeOfAsync(() => redeem(token))).toBe("TOKEN_KEY_UNKNOWN");
  });
});

describe("challenger", () => {
  const clock = testClock();
  const scopes: readonly ChallengeScope[] = [
    { originInfo: "a.example", context: "none" },
    { originInfo: "a.example", context: "window" },
    { originInfo: "a.example", context: "window+network", network: "AS64496" },
    { originInfo: "a.example", context: "window+network", network: "AS64497" },
    { originInfo: "a.example", context: "connection", tlsExporter: exporter },
    { originInfo: "a.example", context: "connection", tlsExporter: new Uint8Array(32) },
    { originInfo: "b.example", context: "none" },
    { originInfo: "b.example", context: "window" },
    { originInfo: "b.example,a.example", context: "window" },
  ];

  it("gives every scope, type, issuer, secret and window its own challenge", () => {
    const later = testClock(START_MS + WINDOW_MS);
    const challengers = [
      challengerAt(clock),
      challengerAt(clock, { issuerName: "other.example" }),
      challengerAt(clock, { secret: new Uint8Array(32).fill(2) }),
      challengerAt(later),
    ];
    const contextOf = (challenge: Uint8Array): string =>
      encodeHex(parseTokenChallenge(challenge).redemptionContext);
    const windowed = scopes.filter(({ context }) => context.startsWith("window"));
    const contexts = challengers.flatMap((challenger) =>
      windowed.map((one) => contextOf(challenger.challenge(one, 2))),
    );
    expect(new Set(contexts).size).toBe(4 * windowed.length);
    const [challenger] = challengers;
    const challenges = scopes.map((one) => encodeHex(challenger?.challenge(one, 2) ?? secret));
    expect(new Set(challenges).size).toBe(scopes.length);
    expect(challenger?.challenge(scope, 1)).not.toEqual(challenger?.challenge(scope, 2));
  });

  it("accepts the digest of what it made, in the same scope only", () => {
    const challenger = challengerAt(clock);
    for (const made of scopes) {
      const digest = encodeHex(crypto.sha256(challenger.challenge(made, 2)));
      for (const asked of scopes) {
        const accepted = challenger.acceptedDigests(asked, 2).map((one) => encodeHex(one));
        expect(accepted.includes(digest)).toBe(made === asked);
        expect(accepted).toHaveLength(asked.context.startsWith("window") ? 2 : 1);
      }
    }
  });

  it("remembers without end neither scopes nor what callers do to its answers", () => {
    const challenger = challengerAt(clock);
    const first = challenger.challenge(scope, 2);
    const [digest] = challenger.acceptedDigests(scope, 2);
    challenger.challenge(scope, 2).fill(0);
    challenger.acceptedDigests(scope, 2)[0]?.fill(0);
    for (let i = 0; i < 2100; i += 1) {
      const network = `AS${i}`;
      challenger.challenge({ originInfo: "a.example", context: "window+network", network }, 2);
    }
    expect(challenger.challenge(scope, 2)).toEqual(first);
    expect(challenger.acceptedDigests(scope, 2)[0]).toEqual(digest);
  });

  it("keeps its own copy of the secret, and works in the first window of time", () => {
    const mine = Uint8Array.from(secret);
    const challenger = challengerAt(testClock(0), { secret: mine });
    const before = challenger.challenge(scope, 2);
    mine.fill(0);
    expect(challenger.challenge(scope, 2)).toEqual(before);
    expect(challenger.acceptedDigests(scope, 2)[1]).toEqual(crypto.sha256(before));
  });

  it("rejects scopes and options that are incomplete", () => {
    const challenger = challengerAt(clock);
    for (const wrong of [
      { originInfo: "a b", context: "none" },
      { originInfo: "a", context: "window+network" },
      { originInfo: "a", context: "window+network", network: "" },
      { originInfo: "a", context: "connection" },
      { originInfo: "a", context: "connection", tlsExporter: new Uint8Array(31) },
      JSON.parse('{"originInfo":"a","context":"?"}'),
    ] satisfies readonly ChallengeScope[]) {
      expect(() => challenger.challenge(wrong, 2)).toThrow(TypeError);
      expect(() => challenger.acceptedDigests(wrong, 2)).toThrow(TypeError);
    }
    expect(() => challengerAt(clock, { issuerName: "" })).toThrow(RangeError);
    expect(() => challengerAt(clock, { secret: new Uint8Array(31) })).toThrow(RangeError);
    const options = { issuerName: "i", secret, crypto, clock };
    expect(() => createChallenger({ ...options, windowMs: 999 })).toThrow(RangeError);
    expect(codeOf(() => challenger.challenge(scope, 2))).toBe("nothing was thrown");
  });
});
