/** A sidecar that serves types 0x0005, 0x0001 and 0x0002: challenge, issuance of every form, redemption. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import {
  encodeAmortizedBatchTokenRequest,
  encodeGenericBatchTokenRequest,
  encodeTokenRequest,
  formatAuthorization,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  MEDIA_TYPE_TOKEN_REQUEST,
  parseAmortizedBatchTokenResponse,
  parseGenericBatchTokenResponse,
  parseIssuerDirectory,
  parseWwwAuthenticate,
} from "../../tokens/index.ts";
import { type AttestedDevice, openAttestedDevice } from "../support/attested-device.ts";
import { type Blinded, blindedFor, tokenOf } from "../support/private-token.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const LIMITS = { maxItems: 20, maxBytes: 6_000 };

let target: TestSidecar;
let device: AttestedDevice;

beforeAll(async () => {
  target = await startTestSidecar({
    attester: { allowance: { tokens: 200, windowSeconds: 86_400 } },
    issuer: { maxBatch: LIMITS.maxItems, tokenTypes: [5, 1, 2], voprfEngine: "native" },
  });
  device = await openAttestedDevice(target);
});

afterAll(async () => {
  await device.close();
  await target.stop();
});

const post = (mediaType: string, body: Uint8Array): Promise<ExchangeAnswer> =>
  device.request(mediaType, body);

async function blinded(tokenType: 1 | 5): Promise<Blinded> {
  return blindedFor(await target.get("/"), tokenType);
}

async function statusesOf(token: Uint8Array): Promise<number[]> {
  const authorization = formatAuthorization(token);
  const once = await target.get("/", { authorization });
  return [once.status, (await target.get("/", { authorization })).status];
}

describe("a sidecar with private token types", () => {
  it("challenges for each type in the order of preference, with keys of the directory", async () => {
    const answer = await target.get("/");
    const received = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
    expect(received.map((one) => one.tokenChallenge.tokenType)).toEqual([5, 1, 2]);
    const directory = parseIssuerDirectory(
      (await target.get("/.well-known/private-token-issuer-directory")).body,
    );
    for (const { tokenChallenge, tokenKey } of received) {
      const listed = directory.tokenKeys.find((key) => key.tokenType === tokenChallenge.tokenType);
      expect(listed?.tokenKey).toEqual(tokenKey);
    }
    expect(await target.sidecar.metrics.registry.metrics()).toMatch(
      /voprf_engine\{type="5",engine="libsodium/,
    );
  });

  it.each([1, 5] as const)("issues one token of type %i, and admits with it once", async (type) => {
    const request = await blinded(type);
    const answer = await post(MEDIA_TYPE_TOKEN_REQUEST, encodeTokenRequest(request));
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe("application/private-token-response");
    const evaluated = answer.body.subarray(0, request.blindedMessage.length);
    expect(await statusesOf(tokenOf(request, evaluated))).toEqual([200, 401]);
  });

  it.each([1, 5] as const)("issues an amortized batch of type %i", async (type) => {
    const requests = await Promise.all([blinded(type), blinded(type), blinded(type)]);
    const { truncatedTokenKeyId } = requests[0];
    const blindedElements = requests.map((one) => one.blindedMessage);
    const answer = await post(
      MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
      encodeAmortizedBatchTokenRequest({ tokenType: type, truncatedTokenKeyId, blindedElements }),
    );
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe(MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE);
    const response = parseAmortizedBatchTokenResponse(Uint8Array.from(answer.body), type, LIMITS);
    for (const [i, request] of requests.entries()) {
      const token = tokenOf(request, response.evaluatedElements[i]!);
      expect(await statusesOf(token)).toEqual([200, 401]);
    }
  });

  it("issues a generic batch of both in part, and admits with a token of it", async () => {
    const [a, b] = [await blinded(1), await blinded(5)];
    const body = encodeGenericBatchTokenRequest([
      a,
      { ...b, blindedMessage: new Uint8Array(32) },
      b,
    ]);
    const answer = await post(MEDIA_TYPE_GENERIC_BATCH_REQUEST, body);
    expect(answer.status).toBe(206);
    expect(answer.headers["content-type"]).toBe(MEDIA_TYPE_GENERIC_BATCH_RESPONSE);
    const [one, none, other] = parseGenericBatchTokenResponse(Uint8Array.from(answer.body), LIMITS);
    expect(none).toBeUndefined();
    expect(await statusesOf(tokenOf(a, one!.response.subarray(0, 49)))).toEqual([200, 401]);
    expect(await statusesOf(tokenOf(b, other!.response.subarray(0, 32)))).toEqual([200, 401]);
  });

  it("rejects with 415, 422 and 400 as the draft says", async () => {
    const request = await blinded(5);
    const bad = { ...request, blindedMessage: new Uint8Array(32) };
    const { truncatedTokenKeyId } = request;
    const batch = (count: number, element = request.blindedMessage): Uint8Array =>
      encodeAmortizedBatchTokenRequest({
        tokenType: 5,
        truncatedTokenKeyId,
        blindedElements: Array.from({ length: count }, () => element),
      });
    const refused = async (mediaType: string, body: Uint8Array): Promise<[number, string]> => {
      const answer = await post(mediaType, body);
      return [answer.status, problemIn(answer).type.replace("urn:stile:problem:", "")];
    };
    const AMORTIZED = MEDIA_TYPE_AMORTIZED_BATCH_REQUEST;
    const GENERIC = MEDIA_TYPE_GENERIC_BATCH_REQUEST;
    expect(await refused("application/octet-stream", batch(1))).toEqual([
      415,
      "service-media-type-unsupported",
    ]);
    expect(await refused(AMORTIZED, batch(21))).toEqual([422, "token-batch-too-large"]);
    expect(await refused(AMORTIZED, batch(2, bad.blindedMessage))).toEqual([
      422,
      "token-request-invalid",
    ]);
    expect(await refused(AMORTIZED, batch(1).with(1, 2))).toEqual([422, "token-type-unsupported"]);
    expect(await refused(GENERIC, encodeGenericBatchTokenRequest([bad, bad]))).toEqual([
      400,
      "token-batch-refused",
    ]);
  });
});
