/** DPoP proofs: each step of RFC 9449 §4.3 violated once, and replay. */
import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  randomUUID,
} from "node:crypto";
import { SignJWT } from "jose";
import { describe, expect, it } from "vitest";
import {
  createDpopVerifier,
  type DpopCheck,
  type DpopVerifierOptions,
  type Es256PublicJwk,
  parseDpopAuthorization,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";

const startMs = Date.UTC(2026, 10, 23);
const accessToken = "header.payload.signature";
const uri = "https://stile.example/token-request";
const ath = createHash("sha256").update(accessToken).digest("base64url");
const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwkOf = (key: KeyObject): Es256PublicJwk => {
  const { x = "", y = "" } = key.export({ format: "jwk" });
  return { kty: "EC", crv: "P-256", x, y };
};
const jwk = jwkOf(publicKey);

interface Change {
  readonly header?: Record<string, unknown>;
  readonly payload?: Record<string, unknown>;
  readonly key?: KeyObject;
}

function proof({ header = {}, payload = {}, key = privateKey }: Change = {}): Promise<string> {
  const claims = { jti: randomUUID(), htm: "POST", htu: uri, iat: startMs / 1_000, ath };
  return new SignJWT({ ...claims, ...payload })
    .setProtectedHeader({ alg: "ES256", typ: "dpop+jwt", jwk, ...header })
    .sign(key);
}

const clock = { nowMs: startMs, monotonicMs: 0 };
/** Time passes: both clocks agree. */
function pass(seconds: number): void {
  clock.nowMs += seconds * 1_000;
  clock.monotonicMs += seconds * 1_000;
}
type Verify = (proofText: string | undefined, check?: Partial<DpopCheck>) => Promise<string>;

function verifier(options: Partial<DpopVerifierOptions> = {}): Verify {
  Object.assign(clock, { nowMs: startMs, monotonicMs: 0 });
  return startRun("run", options).verify;
}

/** As the attester starts: a memory of its own, and a new name. The wall clock is as it is. */
function startRun(
  run: string,
  options: Partial<DpopVerifierOptions> = {},
): { readonly verify: Verify; readonly nonce: () => string } {
  const made = createDpopVerifier({
    crypto: createNodeAttestCrypto(),
    clock: () => clock.nowMs,
    monotonicMs: () => clock.monotonicMs,
    random: (length) => Uint8Array.from(randomBytes(length)),
    run,
    ...options,
  });
  const request = { method: "POST", uri, accessToken, jwk, run: "run" };
  return {
    nonce: made.nonce,
    verify: (proofText, check = {}) =>
      codeOfAsync(() => made.verify({ proof: proofText, ...request, ...check })),
  };
}

const REFUSED = "ATTEST_PROOF_INVALID";
const NONCE_REQUIRED = "ATTEST_PROOF_NONCE_REQUIRED";
const ACCEPTED = "nothing was thrown";

describe("a DPoP proof", () => {
  it("is accepted where all of §4.3 holds, with a query or fragment left out of htu", async () => {
    const verify = verifier();
    expect(await verify(await proof())).toBe(ACCEPTED);
    expect(await verify(await proof({ payload: { htu: `${uri}?a=b#c` } }))).toBe(ACCEPTED);
    expect(
      await verify(await proof({ payload: { htu: "HTTPS://STILE.example:443/token-request" } })),
    ).toBe(ACCEPTED);
  });

  it("rejects what is not one well-formed JWT (steps 1, 2)", async () => {
    const verify = verifier();
    const good = await proof();
    const long = `${good}${"A".repeat(2_048)}`;
    const cut = `${good.slice(0, -9)} ${good.slice(-9)}`;
    const spellings = [`${good} `, ` ${good}`, `${good}\n`, `${good}==`, cut];
    for (const bad of [undefined, "", "a.b", `${good}.x`, long, "é.b.c", ...spellings]) {
      expect(await verify(bad)).toBe(REFUSED);
    }
  });

  const other = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" });
  it.each<[string, Change]>([
    ["a missing jti (3)", { payload: { jti: undefined } }],
    ["an empty jti (3)", { payload: { jti: "" } }],
    ["a jti of 129 characters (3)", { payload: { jti: "j".repeat(129) } }],
    ["a jti that is no string (3)", { payload: { jti: 5 } }],
    ["a missing ath (3)", { payload: { ath: undefined } }],
    ["another typ (4)", { header: { typ: "JWT" } }],
    ["another algorithm (5)", { header: { alg: "ES384" }, key: p384.privateKey }],
    ["a signature of another key than the header's (6)", { key: other.privateKey }],
    ["a private key in the header (7)", { header: { jwk: privateKey.export({ format: "jwk" }) } }],
    ["no key in the header (7)", { header: { jwk: undefined } }],
    ["another method (8)", { payload: { htm: "GET" } }],
    ["the method in lower case (8)", { payload: { htm: "post" } }],
    ["another host (9)", { payload: { htu: "https://other.example/token-request" } }],
    ["another path (9)", { payload: { htu: `${uri}/x` } }],
    ["another scheme (9)", { payload: { htu: uri.replace("https", "http") } }],
    ["no URI (9)", { payload: { htu: "token-request" } }],
    ["an iat that is too old (11)", { payload: { iat: startMs / 1_000 - 61 } }],
    ["an iat that is too far ahead (11)", { payload: { iat: startMs / 1_000 + 61 } }],
    ["an iat that is no number (11)", { payload: { iat: "now" } }],
    ["the hash of another result (12)", { payload: { ath: ath.replace(/^./, "!") } }],
    [
      "another key than the result confirms (12)",
      { header: { jwk: jwkOf(other.publicKey) }, key: other.privateKey },
    ],
  ])("rejects %s", async (_name, change) => {
    expect(await verifier()(await proof(change))).toBe(REFUSED);
  });

  it("rejects a replay as long as the proof could be fresh, at both ends of the window", async () => {
    for (const iatOffset of [-60, 0, 60]) {
      const verify = verifier();
      const text = await proof({ payload: { iat: startMs / 1_000 + iatOffset } });
      expect(await verify(text)).toBe(ACCEPTED);
      for (let second = 0; second <= 180; second += 1) {
        expect(await verify(text), `${iatOffset} ${second}`).toBe(REFUSED);
        pass(1);
      }
    }
  });

  it("rejects a second proof with the same jti, not one of another key with it", async () => {
    const verify = verifier();
    const payload = { jti: "one" };
    expect(await verify(await proof({ payload }))).toBe(ACCEPTED);
    expect(await verify(await proof({ payload }))).toBe(REFUSED);
    const theirs = { payload, header: { jwk: jwkOf(other.publicKey) }, key: other.privateKey };
    expect(await verify(await proof(theirs), { jwk: jwkOf(other.publicKey) })).toBe(ACCEPTED);
  });

  it("remembers no more than it may, and forgets nothing for a new one", async () => {
    const verify = verifier({ maxRemembered: 2 });
    const first = await proof();
    expect(await verify(first)).toBe(ACCEPTED);
    expect(await verify(await proof())).toBe(ACCEPTED);
    expect(await verify(await proof())).toBe(REFUSED);
    expect(await verify(first)).toBe(REFUSED);
    pass(121);
    expect(await verify(await proof({ payload: { iat: clock.nowMs / 1_000 } }))).toBe(ACCEPTED);
  });

  it("does not remember a proof that it refused", async () => {
    const verify = verifier({ maxRemembered: 1 });
    expect(await verify(await proof({ payload: { htm: "GET", jti: "x" } }))).toBe(REFUSED);
    expect(await verify(await proof({ payload: { jti: "x" } }))).toBe(ACCEPTED);
  });
});

describe("a DPoP proof, where its memory may not know it", () => {
  const seconds = (): number => Math.floor(clock.nowMs / 1_000);
  const proofNow = (nonce?: string): Promise<string> =>
    proof({ payload: { iat: seconds(), ...(nonce === undefined ? {} : { nonce }) } });

  it.each([0, 30, -3_600, 3_600])(
    "rejects one that was seen before a restart, the wall clock then set by %d seconds",
    async (jump) => {
      const before = verifier();
      const seen = await proof({ payload: { iat: startMs / 1_000 + 60 } });
      expect(await before(seen)).toBe(ACCEPTED);
      pass(1);
      clock.nowMs += jump * 1_000;
      const { nonce, verify } = startRun("another run");
      // Until it could not be fresh any more, by a clock that was an hour ahead.
      for (let minute = 0; minute <= 65; minute += 1) {
        expect([REFUSED, NONCE_REQUIRED]).toContain(await verify(seen));
        pass(60);
      }
      // Its owner, with the result that it has, is asked for a nonce and then let in.
      expect(await verify(await proofNow())).toBe(NONCE_REQUIRED);
      const again = await proofNow(nonce());
      expect(await verify(again)).toBe(ACCEPTED);
      expect(await verify(again)).toBe(REFUSED);
      // A result of this run needs none, and one that names no run does.
      expect(await verify(await proofNow(), { run: "another run" })).toBe(ACCEPTED);
      expect(await verify(await proofNow(), { run: undefined })).toBe(NONCE_REQUIRED);
    },
  );

  it.each(["", "x", 5, null, {}])(
    "rejects the nonce %j, also where none is needed",
    async (bad) => {
      const text = await proof({ payload: { nonce: bad } });
      expect(await verifier()(text)).toBe(NONCE_REQUIRED);
    },
  );

  it("rejects a nonce of an earlier run", async () => {
    verifier();
    const before = startRun("run");
    const text = await proofNow(before.nonce());
    expect(await before.verify(text)).toBe(ACCEPTED);
    expect(await startRun("another run").verify(text)).toBe(NONCE_REQUIRED);
  });

  it("takes a nonce for one window at least, and for two at most", async () => {
    verifier();
    for (const waited of [0, 59, 60, 61, 119, 121, 1_000]) {
      const { nonce, verify } = startRun("another run");
      pass(waited);
      const given = nonce();
      pass(59);
      expect(await verify(await proofNow(given)), String(waited)).toBe(ACCEPTED);
      pass(61);
      expect(await verify(await proofNow(given)), String(waited)).toBe(NONCE_REQUIRED);
    }
  });

  it.each([false, true])(
    "rejects a replay, however the wall clock jumps, with a nonce: %s",
    async (withNonce) => {
      for (const jumps of [
        [-3_600],
        [3_600, -3_600],
        [-30, -30, -30],
        [600, -300, -300, 50, -90],
        [-3_600, 3_600],
      ]) {
        verifier();
        const { nonce, verify } = startRun("run");
        const seen = await proofNow(withNonce ? nonce() : undefined);
        expect(await verify(seen)).toBe(ACCEPTED);
        for (const jump of jumps) {
          clock.nowMs += jump * 1_000;
          for (let i = 0; i < 25; i += 1) {
            pass(20);
            expect([REFUSED, NONCE_REQUIRED]).toContain(await verify(seen));
          }
        }
        // Until the wall clock has caught up, and past that.
        for (let i = 0; i < 200; i += 1) {
          pass(30);
          expect([REFUSED, NONCE_REQUIRED]).toContain(await verify(seen));
        }
        expect(await verify(await proofNow())).toBe(ACCEPTED);
      }
    },
  );

  it("asks for a nonce after a jump back, until the clock has caught up, and not after one forth", async () => {
    const verify = verifier();
    expect(await verify(await proofNow())).toBe(ACCEPTED);
    clock.nowMs += 600_000;
    expect(await verify(await proofNow())).toBe(ACCEPTED);
    pass(121);
    expect(await verify(await proofNow())).toBe(ACCEPTED);
    clock.nowMs -= 600_000;
    pass(1);
    expect(await verify(await proofNow())).toBe(NONCE_REQUIRED);
    pass(600);
    expect(await verify(await proofNow())).toBe(ACCEPTED);
  });
});

describe("the Authorization header", () => {
  it("holds the result in the scheme DPoP, in any case", () => {
    expect(parseDpopAuthorization("dpop  a.b.c ")).toBe("a.b.c");
  });

  it.each([
    undefined,
    "",
    "Bearer a.b.c",
    "DPoP",
    "DPoP a b",
    "DPoP a,b",
    `DPoP ${"a".repeat(9_000)}`,
  ])("rejects %s", (header) => {
    expect(codeOf(() => parseDpopAuthorization(header))).toBe("ATTEST_RESULT_INVALID");
  });
});
