/** What the private token types and the amortized batch refuse, and privacypass-ts on the other side. */
import {
  privateVerif,
  Token as LibraryToken,
  TokenChallenge as LibraryTokenChallenge,
} from "@cloudflare/privacypass-ts";
import { describe, expect, it } from "vitest";
import {
  countTokenRequests,
  createChallenger,
  createKeyRing,
  createRedeemer,
  DEFAULT_BATCH_LIMITS,
  encodeAmortizedBatchTokenRequest,
  encodeAmortizedBatchTokenResponse,
  encodeAuthenticatorInput,
  encodeDirectory,
  encodeGenericBatchTokenRequest,
  encodeToken,
  encodeTokenRequest,
  isPrivateTokenType,
  type IssuanceMediaType,
  type IssuerKeyRecord,
  MAX_LIVE_KEYS,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_TOKEN_REQUEST,
  parseAmortizedBatchTokenRequest,
  parseAmortizedBatchTokenResponse,
  parseIssuerDirectory,
  parseToken,
  parseTokenRequest,
  type PrivateTokenVerifier,
} from "../../tokens/index.ts";
import { concatBytes, StileError } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { crypto, fakeRecord, memorySpentStore, START_MS, testClock, testKey } from "./fixtures.ts";
import { nobleClient } from "./noble-client.ts";
import { mixedIssuer, mixedSigner, random, voprfKey, voprfOf } from "./voprf-fixtures.ts";

const LIMITS = DEFAULT_BATCH_LIMITS;
const AMORTIZED = MEDIA_TYPE_AMORTIZED_BATCH_REQUEST;
const TYPES = [1, 5] as const;
const p384 = voprfKey(1);
const ristretto = voprfKey(5);
const rsa = testKey();
const keyOf = { 1: p384, 5: ristretto };
const { issuer, keyRing } = mixedIssuer([p384, ristretto, rsa]);
const clock = testClock();
const challenger = createChallenger({
  issuerName: "issuer.example",
  secret: new Uint8Array(32).fill(1),
  crypto,
  clock,
  windowMs: 60_000,
});
const scope = { originInfo: "origin.example", context: "window" } as const;

function truncatedOf(record: IssuerKeyRecord): number {
  return record.tokenKeyId[31]!;
}

function amortized(type: 1 | 5, count: number): Uint8Array {
  const { record } = keyOf[type];
  const blindedElements = Array.from({ length: count }, () => record.publicKeySpki);
  const truncatedTokenKeyId = truncatedOf(record);
  return encodeAmortizedBatchTokenRequest({
    tokenType: type,
    truncatedTokenKeyId,
    blindedElements,
  });
}

describe.each(TYPES)("amortized batches of type %i", (type) => {
  const Ne = type === 1 ? 49 : 32;

  it("rejects bodies that are malformed, in both entry points", async () => {
    const one = amortized(type, 1);
    const header = one.subarray(0, 3);
    const element = keyOf[type].record.publicKeySpki;
    const cases: readonly [string, Uint8Array, string][] = [
      ["empty", new Uint8Array(0), "TOKEN_REQUEST_INVALID"],
      ["no element", concatBytes([header, Uint8Array.of(0)]), "TOKEN_REQUEST_INVALID"],
      ["cut short", one.subarray(0, -1), "TOKEN_REQUEST_INVALID"],
      ["trailing byte", concatBytes([one, Uint8Array.of(0)]), "TOKEN_REQUEST_INVALID"],
      [
        "part of an element",
        concatBytes([header, Uint8Array.of(Ne + 1), element, Uint8Array.of(0)]),
        "TOKEN_REQUEST_INVALID",
      ],
      [
        "a length that is not the shortest",
        concatBytes([header, Uint8Array.of(0x40, Ne), element]),
        "TOKEN_REQUEST_INVALID",
      ],
      ["type 0x0002", one.with(1, 2), "TOKEN_TYPE_UNSUPPORTED"],
      ["an unknown type", one.with(0, 0xda), "TOKEN_TYPE_UNSUPPORTED"],
      ["too many elements", amortized(type, LIMITS.maxItems + 1), "TOKEN_BATCH_TOO_LARGE"],
      ["too many bytes", new Uint8Array(LIMITS.maxBytes + 1), "TOKEN_BATCH_TOO_LARGE"],
    ];
    for (const [name, body, code] of cases) {
      expect(await codeOfAsync(() => issuer.issue(AMORTIZED, body)), name).toBe(code);
      expect(
        codeOf(() => countTokenRequests(AMORTIZED, body, LIMITS)),
        name,
      ).toBe(code);
      expect(
        codeOf(() => issuer.examine(AMORTIZED, body)),
        name,
      ).toBe(code);
    }
    expect(countTokenRequests(AMORTIZED, amortized(type, LIMITS.maxItems), LIMITS)).toBe(100);
  });

  it("rejects the batch for one bad element, another key, or a key that is no more", async () => {
    const body = amortized(type, 3);
    // All zeros are no element of P-384, and the identity of ristretto255, which is refused.
    const bad = body.fill(0, body.length - 2 * Ne, body.length - Ne);
    expect(await codeOfAsync(() => issuer.issue(AMORTIZED, bad))).toBe("TOKEN_REQUEST_INVALID");
    const other = amortized(type, 1).with(2, (truncatedOf(keyOf[type].record) + 1) % 256);
    expect(await codeOfAsync(() => issuer.issue(AMORTIZED, other))).toBe("TOKEN_KEY_UNKNOWN");
    const rsaOnly = mixedIssuer([rsa]).issuer;
    expect(await codeOfAsync(() => rsaOnly.issue(AMORTIZED, amortized(type, 1)))).toBe(
      "TOKEN_TYPE_UNSUPPORTED",
    );
  });

  it("rejects malformed responses, and parts of another length", () => {
    const evaluatedElements = [new Uint8Array(Ne)];
    const evaluatedProof = new Uint8Array(2 * (type === 1 ? 48 : 32));
    const fields = { tokenType: type, evaluatedElements, evaluatedProof };
    const bytes = encodeAmortizedBatchTokenResponse(fields);
    const parse = (wrong: Uint8Array): string | undefined =>
      codeOf(() => parseAmortizedBatchTokenResponse(wrong, type, LIMITS));
    expect(parse(bytes.subarray(0, -1))).toBe("WIRE_TOO_SHORT");
    expect(parse(concatBytes([bytes, Uint8Array.of(0)]))).toBe("WIRE_TRAILING_BYTES");
    expect(parse(new Uint8Array(LIMITS.maxBytes + 1))).toBe("TOKEN_BATCH_TOO_LARGE");
    expect(codeOf(() => parseAmortizedBatchTokenResponse(bytes, 2, LIMITS))).toBe(
      "TOKEN_TYPE_UNSUPPORTED",
    );
    for (const wrong of [
      { ...fields, evaluatedProof: evaluatedProof.subarray(1) },
      { ...fields, evaluatedElements: [] },
      { ...fields, evaluatedElements: [new Uint8Array(Ne - 1)] },
    ]) {
      expect(() => encodeAmortizedBatchTokenResponse(wrong)).toThrow(RangeError);
    }
    const none = { tokenType: type, truncatedTokenKeyId: 0, blindedElements: [] };
    expect(() => encodeAmortizedBatchTokenRequest(none)).toThrow(RangeError);
  });

  it("re-encodes what it accepts", () => {
    const body = amortized(type, 7);
    expect(encodeAmortizedBatchTokenRequest(parseAmortizedBatchTokenRequest(body, LIMITS))).toEqual(
      body,
    );
  });
});

describe("mixed types", () => {
  it("issues one generic batch under three keys, and leaves out a bad element", async () => {
    const part = (tokenType: number, record: IssuerKeyRecord, blindedMessage: Uint8Array) => ({
      tokenType,
      truncatedTokenKeyId: truncatedOf(record),
      blindedMessage,
    });
    const { publicKeySpki: element } = p384.record;
    const requests = [
      part(1, p384.record, element),
      part(2, rsa.record, new Uint8Array(256).fill(5, 1)),
      part(5, ristretto.record, ristretto.record.publicKeySpki),
      part(1, p384.record, element.with(0, 4)),
    ];
    const body = encodeGenericBatchTokenRequest(requests);
    expect(await issuer.issue(MEDIA_TYPE_GENERIC_BATCH_REQUEST, body)).toMatchObject({
      status: 206,
      issued: 3,
    });
    const bad = encodeGenericBatchTokenRequest(requests.slice(3));
    expect(await codeOfAsync(() => issuer.issue(MEDIA_TYPE_GENERIC_BATCH_REQUEST, bad))).toBe(
      "TOKEN_BATCH_REFUSED",
    );
  });

  it("rejects a single request whose element is none", async () => {
    for (const type of TYPES) {
      const { record } = keyOf[type];
      const blindedMessage = new Uint8Array(record.publicKeySpki.length);
      const truncatedTokenKeyId = truncatedOf(record);
      const body = encodeTokenRequest({ tokenType: type, truncatedTokenKeyId, blindedMessage });
      const single: IssuanceMediaType = MEDIA_TYPE_TOKEN_REQUEST;
      expect(await codeOfAsync(() => issuer.issue(single, body))).toBe("TOKEN_REQUEST_INVALID");
    }
  });

  it("lists the keys of all types as their types encode them", () => {
    const options = { issuerRequestUri: "/r", directoryLifetimeMs: 1000, clock, crypto };
    const keys = parseIssuerDirectory(encodeDirectory(keyRing, options).body).tokenKeys;
    const sizes = keys.map(({ tokenType, tokenKey }) => `${tokenType}:${tokenKey.length}`);
    expect(sizes.toSorted()).toEqual(["1:49", "2:342", "5:32"]);
  });

  it("counts live keys by type, and rejects one too many", () => {
    const eight = (tokenType: number, from: number): IssuerKeyRecord[] =>
      Array.from({ length: MAX_LIVE_KEYS }, (_, i) => fakeRecord(from + i, { tokenType }));
    const records = [...eight(1, 0), ...eight(2, 50), ...eight(5, 100)];
    const ring = createKeyRing({ records, clock });
    expect(ring.records()).toHaveLength(24);
    expect(codeOf(() => ring.add(fakeRecord(200, { tokenType: 5 })))).toBe(
      "TOKEN_KEY_RING_INVALID",
    );
  });
});

/** A token of the type for the challenger's challenge, by our issuer and the client on noble. */
async function obtain(type: 1 | 5): Promise<Uint8Array> {
  const { record } = keyOf[type];
  const client = nobleClient(type);
  const input = encodeAuthenticatorInput({
    tokenType: type,
    nonce: random(32),
    challengeDigest: crypto.sha256(challenger.challenge(scope, type)),
    tokenKeyId: record.tokenKeyId,
  });
  const voprf = voprfOf(type);
  const blind = voprf.nonceOf(random(voprf.suite.uniformLength));
  const blindedMessage = client.blind(input, blind);
  const truncatedTokenKeyId = truncatedOf(record);
  const body = encodeTokenRequest({ tokenType: type, truncatedTokenKeyId, blindedMessage });
  const result = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, body);
  const authenticator = client.finalize(input, blind, result.body.subarray(0, voprf.suite.Ne));
  return concatBytes([input, authenticator]);
}

describe.each(TYPES)("redemption of type %i", (type) => {
  const redeemerWith = (privateVerifier?: PrivateTokenVerifier, records = [keyOf[type].record]) => {
    const store = memorySpentStore();
    const redeemer = createRedeemer({
      keyRing: createKeyRing({ records, clock }),
      challenger,
      spentStore: store,
      crypto,
      ...(privateVerifier && { privateVerifier }),
      clock,
      repeatWindowMs: 0,
    });
    return { store, redeem: (token: Uint8Array) => redeemer.redeem({ token, scope }) };
  };
  const signer = mixedSigner([keyOf[type]]);

  it("takes a token once", async () => {
    const token = await obtain(type);
    const { redeem } = redeemerWith(signer);
    expect(await redeem(token)).toMatchObject({ outcome: "fresh", redeemedAtMs: START_MS });
    expect(await codeOfAsync(() => redeem(token))).toBe("TOKEN_ALREADY_SPENT");
  });

  it("rejects without a verifier, for another type's key, challenge or authenticator", async () => {
    const token = await obtain(type);
    const codeFor = (bench: ReturnType<typeof redeemerWith>, bytes: Uint8Array) =>
      codeOfAsync(() => bench.redeem(bytes));
    expect(await codeFor(redeemerWith(), token)).toBe("TOKEN_TYPE_UNSUPPORTED");
    expect(await codeFor(redeemerWith(signer, [rsa.record]), token)).toBe("TOKEN_KEY_UNKNOWN");
    const disguised = { ...keyOf[type].record, tokenType: 2 };
    expect(await codeFor(redeemerWith(signer, [disguised]), token)).toBe("TOKEN_KEY_UNKNOWN");
    const bench = redeemerWith(signer);
    expect(await codeFor(bench, token.with(40, token[40]! ^ 1))).toBe("TOKEN_CHALLENGE_MISMATCH");
    expect(await codeFor(bench, token.with(5, token[5]! ^ 1))).toBe("TOKEN_AUTHENTICATOR_INVALID");
    expect(await codeFor(bench, token.with(120, token[120]! ^ 1))).toBe(
      "TOKEN_AUTHENTICATOR_INVALID",
    );
    expect(bench.store.requests).toEqual([]);
  });

  it("rejects as busy, with nothing spent, when the verifier is", async () => {
    const verifyPrivate = (): Promise<boolean> =>
      Promise.reject(new StileError("TOKEN_ISSUER_BUSY", "full", { retryAfterSeconds: 1 }));
    const bench = redeemerWith({ verifyPrivate });
    const token = await obtain(type);
    expect(await codeOfAsync(() => bench.redeem(token))).toBe("TOKEN_ISSUER_BUSY");
    expect(bench.store.requests).toEqual([]);
  });
});

describe("privacypass-ts, type 0x0001", () => {
  const challenge = challenger.challenge(scope, 1);
  const { publicKeySpki, tokenKeyId } = p384.record;

  it("obtains a token from our issuer that our redeemer takes", async () => {
    const client = new privateVerif.Client();
    const theirs = LibraryTokenChallenge.deserialize(Uint8Array.from(challenge));
    const request = await client.createTokenRequest(theirs, Uint8Array.from(publicKeySpki));
    const body = request.serialize();
    expect(encodeTokenRequest(parseTokenRequest(body))).toEqual(body);
    const result = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, body);
    // Their finalize verifies our proof.
    const response = privateVerif.TokenResponse.deserialize(Uint8Array.from(result.body));
    const token = (await client.finalize(response)).serialize();
    expect(parseToken(token).tokenKeyId).toEqual(tokenKeyId);
    const redeemer = createRedeemer({
      keyRing,
      challenger,
      spentStore: memorySpentStore(),
      crypto,
      privateVerifier: mixedSigner([p384]),
      clock,
      repeatWindowMs: 0,
    });
    expect(await redeemer.redeem({ token, scope })).toMatchObject({ outcome: "fresh" });
  });

  it("issues what we verify, and verifies what we issue", async () => {
    const scalar = Uint8Array.from(p384.privateKey.export());
    const theirIssuer = new privateVerif.Issuer(
      "issuer.example",
      scalar,
      Uint8Array.from(publicKeySpki),
    );
    const blinded = voprfOf(1).publicKeyOf(scalar);
    const truncatedTokenKeyId = truncatedOf(p384.record);
    const ours = encodeTokenRequest({ tokenType: 1, truncatedTokenKeyId, blindedMessage: blinded });
    const request = privateVerif.TokenRequest.deserialize(ours);
    const answer = (await theirIssuer.issue(request)).serialize();
    expect(voprfOf(1).verifyResponse(publicKeySpki, blinded, answer)).toBe(true);
    const token = await obtain(1);
    expect(await theirIssuer.verify(LibraryToken.deserialize(privateVerif.VOPRF, token))).toBe(
      true,
    );
    const forged = encodeToken({ ...parseToken(token), nonce: random(32) });
    expect(await theirIssuer.verify(LibraryToken.deserialize(privateVerif.VOPRF, forged))).toBe(
      false,
    );
  });

  it("is a private type, as 0x0005 is and 0x0002 is not", () => {
    expect([1, 5, 2, 9].map(isPrivateTokenType)).toEqual([true, true, false, false]);
  });
});
