/** RFC 9578 appendix A.1 and the vectors of pat-go, through codecs, issuer and redeemer. */
import { describe, expect, it } from "vitest";
import {
  createRedeemer,
  DEFAULT_BATCH_LIMITS,
  encodeAmortizedBatchTokenRequest,
  encodeAmortizedBatchTokenResponse,
  encodeGenericBatchTokenRequest,
  encodeGenericBatchTokenResponse,
  encodeTokenRequest,
  encodeTokenResponse,
  type KeyRing,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_TOKEN_REQUEST,
  parseAmortizedBatchTokenRequest,
  parseAmortizedBatchTokenResponse,
  parseGenericBatchTokenRequest,
  parseGenericBatchTokenResponse,
  parseToken,
  parseTokenRequest,
  parseTokenResponse,
  type Redeemer,
} from "../../tokens/index.ts";
import type { VoprfTokenType } from "../../tokens/voprf/index.ts";
import { concatBytes, decodeHex, encodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { readSharedJson, sharedMissing } from "../support/shared.ts";
import { crypto, memorySpentStore, testClock, type TestKey } from "./fixtures.ts";
import { nobleClient } from "./noble-client.ts";
import { atOffset, bytesOf, readBatchVectors, readVectors, type Vector } from "./vectors.ts";
import { mixedIssuer, mixedSigner, voprfKey, voprfOf } from "./voprf-fixtures.ts";

const SINGLES: readonly [VoprfTokenType, string][] = [
  [1, "privacypass-ts/priv_verif_rfc9578.go.json"],
  [1, "pat-go/private__type1-issuance-test-vectors.json"],
  [5, "pat-go/private__type5-issuance-test-vectors.json"],
];
const AMORTIZED: readonly [VoprfTokenType, string][] = [
  [1, "pat-go/amortized__type1-issuance-test-vectors.json"],
  [5, "pat-go/amortized__type5-issuance-test-vectors.json"],
];
const BATCHED = "pat-go/batched__batched-issuance-test-vectors.json";
const LIMITS = DEFAULT_BATCH_LIMITS;

interface AmortizedVector {
  readonly skS: string;
  readonly pkS: string;
  readonly token_challenge: string;
  readonly nonces: readonly string[];
  readonly blinds: readonly string[];
  readonly token_request: string;
  readonly token_response: string;
  readonly tokens: readonly string[];
}

/** Numbered; one placeholder where the vectors are missing, since a skipped suite is still collected. */
function numbered<T>(read: () => readonly T[]): readonly (readonly [number, T])[] {
  if (sharedMissing) return [[0, undefined as T]];
  return read().map((vector, i) => [i, vector] as const);
}

/** A redeemer of the one challenge of a vector. */
function redeemerOf(key: TestKey, keyRing: KeyRing, challenge: Uint8Array): Redeemer {
  return createRedeemer({
    keyRing,
    challenger: {
      challenge: () => challenge,
      acceptedDigests: () => [crypto.sha256(challenge)],
    },
    spentStore: memorySpentStore(),
    crypto,
    privateVerifier: mixedSigner([key]),
    clock: testClock(),
    repeatWindowMs: 0,
  });
}

async function checkRedemption(key: TestKey, keyRing: KeyRing, vector: Vector, token: Uint8Array) {
  const redeemer = redeemerOf(key, keyRing, bytesOf(vector, "token_challenge"));
  const request = { scope: { originInfo: "origin.example", context: "none" }, token } as const;
  const last = token.length - 1;
  const forged = token.with(last, token[last]! ^ 1);
  const codeFor = (bytes: Uint8Array): Promise<string | undefined> =>
    codeOfAsync(() => redeemer.redeem({ ...request, token: bytes }));
  expect(await codeFor(forged)).toBe("TOKEN_AUTHENTICATOR_INVALID");
  expect(await redeemer.redeem({ ...request, token: atOffset(token) })).toMatchObject({
    outcome: "fresh",
    tokenKeyId: key.record.tokenKeyId,
  });
  expect(await codeFor(token)).toBe("TOKEN_ALREADY_SPENT");
}

/** What the client of the vector did: blinds its input, and finalises what it was answered. */
function checkClient(
  type: VoprfTokenType,
  vector: Vector,
  blinded: Uint8Array,
  response: Uint8Array,
) {
  const token = parseToken(bytesOf(vector, "token"));
  const client = nobleClient(type);
  const blind = bytesOf(vector, "blind");
  expect(encodeHex(client.blind(token.authenticatorInput, blind))).toBe(encodeHex(blinded));
  const evaluated = response.subarray(0, blinded.length);
  expect(encodeHex(client.finalize(token.authenticatorInput, blind, evaluated))).toBe(
    encodeHex(token.authenticator),
  );
}

describe.skipIf(sharedMissing).each(SINGLES)("single requests of type %i, %s", (type, path) => {
  const voprf = voprfOf(type);

  it.each(numbered(() => readVectors(path)))("vector %i", async (_, vector) => {
    const key = voprfKey(type, bytesOf(vector, "skS"));
    const { publicKeySpki: publicKey, tokenKeyId } = key.record;
    expect(encodeHex(publicKey)).toBe(vector["pkS"]);
    const body = bytesOf(vector, "token_request");
    const request = parseTokenRequest(atOffset(body));
    expect(request).toMatchObject({ tokenType: type, truncatedTokenKeyId: tokenKeyId[31] });
    expect(encodeTokenRequest(request)).toEqual(body);
    const theirs = parseTokenResponse(atOffset(bytesOf(vector, "token_response")), type);
    expect(encodeHex(encodeTokenResponse(theirs))).toBe(vector["token_response"]);
    expect(voprf.verifyResponse(publicKey, request.blindedMessage, theirs.response)).toBe(true);

    const { issuer, keyRing } = mixedIssuer([key]);
    expect(issuer.examine(MEDIA_TYPE_TOKEN_REQUEST, body)).toBe(1);
    const ours = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, atOffset(body));
    expect(ours).toMatchObject({ status: 200, issued: 1 });
    const { Ne } = voprf.suite;
    // all but the proof, whose nonce is random: that one is verified
    expect(ours.body.subarray(0, Ne)).toEqual(theirs.response.subarray(0, Ne));
    expect(voprf.verifyResponse(publicKey, request.blindedMessage, ours.body)).toBe(true);
    checkClient(type, vector, request.blindedMessage, ours.body);
    await checkRedemption(key, keyRing, vector, bytesOf(vector, "token"));
  });
});

describe.skipIf(sharedMissing).each(AMORTIZED)("amortized batches of type %i, %s", (type, path) => {
  const vectors = sharedMissing ? [] : (readSharedJson(`vectors/${path}`) as AmortizedVector[]);
  const voprf = voprfOf(type);

  it("has vectors", () => {
    expect(vectors).toHaveLength(5);
  });

  it.each(numbered(() => vectors))("vector %i", async (_, vector) => {
    const key = voprfKey(type, decodeHex(vector.skS));
    const { publicKeySpki: publicKey, tokenKeyId } = key.record;
    const body = decodeHex(vector.token_request);
    const request = parseAmortizedBatchTokenRequest(atOffset(body), LIMITS);
    expect(request).toMatchObject({ tokenType: type, truncatedTokenKeyId: tokenKeyId[31] });
    expect(encodeAmortizedBatchTokenRequest(request)).toEqual(body);
    const blinded = concatBytes(request.blindedElements);
    const bytes = decodeHex(vector.token_response);
    const theirs = parseAmortizedBatchTokenResponse(atOffset(bytes), type, LIMITS);
    expect(encodeAmortizedBatchTokenResponse(theirs)).toEqual(bytes);
    const joined = concatBytes([...theirs.evaluatedElements, theirs.evaluatedProof]);
    expect(voprf.verifyResponse(publicKey, blinded, joined)).toBe(true);

    const { issuer, keyRing } = mixedIssuer([key]);
    const count = vector.tokens.length;
    expect(issuer.examine(MEDIA_TYPE_AMORTIZED_BATCH_REQUEST, body)).toBe(count);
    const result = await issuer.issue(MEDIA_TYPE_AMORTIZED_BATCH_REQUEST, atOffset(body));
    const mediaType = MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE;
    expect(result).toMatchObject({ status: 200, issued: count, mediaType });
    const ours = parseAmortizedBatchTokenResponse(result.body, type, LIMITS);
    expect(ours.evaluatedElements).toEqual(theirs.evaluatedElements);
    const response = concatBytes([...ours.evaluatedElements, ours.evaluatedProof]);
    expect(voprf.verifyResponse(publicKey, blinded, response)).toBe(true);
    for (const [i, token] of vector.tokens.entries()) {
      const one = { token, token_challenge: vector.token_challenge, blind: vector.blinds[i]! };
      checkClient(type, one, request.blindedElements[i]!, ours.evaluatedElements[i]!);
      await checkRedemption(key, keyRing, one, decodeHex(token));
    }
  });
});

describe.skipIf(sharedMissing)("generic batches with type 0x0001", () => {
  const vectors = (sharedMissing ? [] : readBatchVectors(BATCHED)).filter((vector) =>
    vector.issuance.some((one) => one["type"] === "0001"),
  );

  it("has three vectors, one of them mixed", () => {
    const types = vectors.map(({ issuance }) => issuance.map((one) => one["type"]).join());
    expect(types).toEqual(["0001", "0001,0001", "0001,0002"]);
  });

  it.each(numbered(() => vectors))("vector %i", async (_, vector) => {
    const body = decodeHex(vector.token_request);
    const requests = parseGenericBatchTokenRequest(atOffset(body), LIMITS);
    expect(encodeGenericBatchTokenRequest(requests)).toEqual(body);
    const bytes = decodeHex(vector.token_response);
    const theirs = parseGenericBatchTokenResponse(atOffset(bytes), LIMITS);
    expect(encodeGenericBatchTokenResponse(theirs)).toEqual(bytes);

    const isPrivate = (one: Vector): boolean => one["type"] === "0001";
    const own = vector.issuance.filter(isPrivate);
    const keys = new Map(own.map((one) => [one["skS"], voprfKey(1, bytesOf(one, "skS"))]));
    const { issuer, keyRing } = mixedIssuer([...keys.values()]);
    const result = await issuer.issue(MEDIA_TYPE_GENERIC_BATCH_REQUEST, body);
    const isWhole = own.length === vector.issuance.length;
    expect(result).toMatchObject({ status: isWhole ? 200 : 206, issued: own.length });
    const ours = parseGenericBatchTokenResponse(result.body, LIMITS);
    for (const [i, one] of vector.issuance.entries()) {
      if (!isPrivate(one)) {
        expect(ours[i]).toBeUndefined();
        continue;
      }
      const key = keys.get(one["skS"])!;
      const { blindedMessage } = requests[i]!;
      const response = ours[i]!.response;
      expect(response.subarray(0, 49)).toEqual(theirs[i]!.response.subarray(0, 49));
      for (const answer of [response, theirs[i]!.response]) {
        const isProven = voprfOf(1).verifyResponse(
          key.record.publicKeySpki,
          blindedMessage,
          answer,
        );
        expect(isProven).toBe(true);
      }
      checkClient(1, one, blindedMessage, response);
      await checkRedemption(key, keyRing, one, bytesOf(one, "token"));
    }
  });
});
