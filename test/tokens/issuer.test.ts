import { describe, expect, it } from "vitest";
import {
  countTokenRequests,
  createIssuer,
  createKeyRing,
  DEFAULT_BATCH_LIMITS,
  encodeGenericBatchTokenRequest,
  encodeTokenRequest,
  isIssuanceMediaType,
  type Issuer,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
  parseGenericBatchTokenResponse,
  type TokenRequest,
  truncatedTokenKeyId,
} from "../../tokens/index.ts";
import { rawRsaSign } from "../../tokens/node/index.ts";
import { concatBytes, StileError } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { DAY_MS, testClock, testKey, testSigner, type TestSigner } from "./fixtures.ts";

const key = testKey();
const truncated = truncatedTokenKeyId(key.record.tokenKeyId);
const SINGLE = MEDIA_TYPE_TOKEN_REQUEST;
const BATCH = MEDIA_TYPE_GENERIC_BATCH_REQUEST;

function request(fields: Partial<TokenRequest> = {}): TokenRequest {
  const blindedMessage = new Uint8Array(256).fill(5, 1);
  return { tokenType: 2, truncatedTokenKeyId: truncated, blindedMessage, ...fields };
}

function issuerWith(signer = testSigner([key]), clock = testClock(), batchConcurrency = 4): Issuer {
  const keyRing = createKeyRing({ records: [key.record], clock });
  return createIssuer({ keyRing, signer, limits: DEFAULT_BATCH_LIMITS, batchConcurrency });
}

const unusable: readonly [string, TokenRequest, string][] = [
  [
    "another type",
    { ...request(), tokenType: 1, blindedMessage: new Uint8Array(49) },
    "TOKEN_TYPE_UNSUPPORTED",
  ],
  ["another key", request({ truncatedTokenKeyId: (truncated + 1) % 256 }), "TOKEN_KEY_UNKNOWN"],
  [
    "too large a number",
    request({ blindedMessage: new Uint8Array(256).fill(255) }),
    "TOKEN_REQUEST_INVALID",
  ],
];

describe("single requests", () => {
  it("issues", async () => {
    const body = encodeTokenRequest(request());
    const result = await issuerWith().issue(SINGLE, body);
    expect(result).toEqual({
      status: 200,
      mediaType: MEDIA_TYPE_TOKEN_RESPONSE,
      body: rawRsaSign(key.privateKey, request().blindedMessage),
      issued: 1,
    });
    expect(countTokenRequests(SINGLE, body, DEFAULT_BATCH_LIMITS)).toBe(1);
  });

  it.each(unusable)("rejects %s", async (_, wrong, code) => {
    const body = encodeTokenRequest(wrong);
    expect(await codeOfAsync(() => issuerWith().issue(SINGLE, body))).toBe(code);
  });

  it("rejects malformed bodies with one code, and never asks the signer", async () => {
    const signer = testSigner([key]);
    const body = encodeTokenRequest(request());
    for (const wrong of [
      new Uint8Array(0),
      body.subarray(0, -1),
      concatBytes([body, Uint8Array.of(0)]),
    ]) {
      expect(await codeOfAsync(() => issuerWith(signer).issue(SINGLE, wrong))).toBe(
        "TOKEN_REQUEST_INVALID",
      );
      expect(codeOf(() => countTokenRequests(SINGLE, wrong, DEFAULT_BATCH_LIMITS))).toBe(
        "TOKEN_REQUEST_INVALID",
      );
    }
    const unknownType = Uint8Array.of(0xda, 0x7b, ...body.subarray(2));
    expect(await codeOfAsync(() => issuerWith(signer).issue(SINGLE, unknownType))).toBe(
      "TOKEN_TYPE_UNSUPPORTED",
    );
    expect(signer.calls).toBe(0);
  });

  it("rejects a key that is not active yet or any more", async () => {
    const body = encodeTokenRequest(request());
    for (const advance of [-1, DAY_MS]) {
      const clock = testClock();
      clock.advance(advance);
      expect(
        await codeOfAsync(() => issuerWith(testSigner([key]), clock).issue(SINGLE, body)),
      ).toBe("TOKEN_KEY_UNKNOWN");
    }
  });
});

describe("generic batches", () => {
  const good = Array.from({ length: 9 }, (_, i) =>
    request({ blindedMessage: new Uint8Array(256).fill(i + 1, 1) }),
  );
  const responsesOf = (body: Uint8Array): (Uint8Array | undefined)[] =>
    parseGenericBatchTokenResponse(body, DEFAULT_BATCH_LIMITS).map((item) => item?.response);

  it("issues all, in order, a few at a time", async () => {
    const signer = testSigner([key]);
    const body = encodeGenericBatchTokenRequest(good);
    const result = await issuerWith(signer).issue(BATCH, body);
    expect(result).toMatchObject({
      status: 200,
      mediaType: MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
      issued: 9,
    });
    const expected = good.map((item) => rawRsaSign(key.privateKey, item.blindedMessage));
    expect(responsesOf(result.body)).toEqual(expected);
    // Four messages a call, and four at a time.
    expect(signer.calls).toBe(3);
    expect(signer.peak).toBe(1);
    expect(countTokenRequests(BATCH, body, DEFAULT_BATCH_LIMITS)).toBe(9);
  });

  it("asks for eight messages at once and for several times eight, as the concurrency allows", async () => {
    const many = [...good, ...good, ...good];
    const signer = testSigner([key]);
    const body = encodeGenericBatchTokenRequest(many);
    const result = await issuerWith(signer, testClock(), 24).issue(BATCH, body);
    const expected = many.map((item) => rawRsaSign(key.privateKey, item.blindedMessage));
    expect(responsesOf(result.body)).toEqual(expected);
    expect([signer.calls, signer.peak]).toEqual([4, 3]);
  });

  it("issues in part with 206, leaving out what cannot be issued", async () => {
    const mixed = unusable.flatMap(([, wrong], i) => [wrong, good[i] ?? wrong]);
    const result = await issuerWith().issue(BATCH, encodeGenericBatchTokenRequest(mixed));
    expect(result).toMatchObject({ status: 206, issued: 3 });
    const present = responsesOf(result.body).map((response) => response !== undefined);
    expect(present).toEqual([false, true, false, true, false, true]);
  });

  it("rejects a batch of which nothing can be issued", async () => {
    const body = encodeGenericBatchTokenRequest(unusable.map(([, wrong]) => wrong));
    expect(await codeOfAsync(() => issuerWith().issue(BATCH, body))).toBe("TOKEN_BATCH_REFUSED");
  });

  it("rejects too large, empty and malformed batches, in both entry points", async () => {
    const hundredOne = Array.from({ length: 101 }, () => request());
    const one = encodeGenericBatchTokenRequest([request()]);
    const cases: readonly [Uint8Array, string][] = [
      [encodeGenericBatchTokenRequest(hundredOne), "TOKEN_BATCH_TOO_LARGE"],
      [new Uint8Array(40_000), "TOKEN_BATCH_TOO_LARGE"],
      [Uint8Array.of(0), "TOKEN_REQUEST_INVALID"],
      [one.subarray(0, -1), "TOKEN_REQUEST_INVALID"],
      [Uint8Array.of(0x41, 3, 0xda, 0x7a, ...one.subarray(4)), "TOKEN_TYPE_UNSUPPORTED"],
    ];
    for (const [body, code] of cases) {
      expect(await codeOfAsync(() => issuerWith().issue(BATCH, body))).toBe(code);
      expect(codeOf(() => countTokenRequests(BATCH, body, DEFAULT_BATCH_LIMITS))).toBe(code);
    }
  });

  it("rejects the whole batch when the signer is busy, and stops asking it", async () => {
    const signer: TestSigner = {
      ...testSigner([key]),
      async blindSign() {
        this.calls += 1;
        throw new StileError("TOKEN_ISSUER_BUSY", "the signing queue is full");
      },
    };
    const body = encodeGenericBatchTokenRequest(good);
    expect(await codeOfAsync(() => issuerWith(signer).issue(BATCH, body))).toBe(
      "TOKEN_ISSUER_BUSY",
    );
    expect(signer.calls).toBeLessThanOrEqual(4);
  });
});

describe("examine", () => {
  it("tells before signing what issuance would give", async () => {
    const signer = testSigner([key]);
    const issuer = issuerWith(signer);
    expect(issuer.examine(SINGLE, encodeTokenRequest(request()))).toBe(1);
    const zero = request({ blindedMessage: new Uint8Array(256) });
    const mixed = [request(), ...unusable.map(([, wrong]) => wrong), zero, request()];
    expect(issuer.examine(BATCH, encodeGenericBatchTokenRequest(mixed))).toBe(2);
    expect(signer.calls).toBe(0);
    // @ts-expect-error -- not a media type of issuance
    expect(() => issuer.examine("text/plain", new Uint8Array(0))).toThrow(TypeError);
  });

  it("rejects what issuance rejects, with the same code", async () => {
    const [type, unknown, large] = unusable;
    const none = encodeGenericBatchTokenRequest([type![1], unknown![1]]);
    const cases: readonly [typeof SINGLE | typeof BATCH, Uint8Array][] = [
      [SINGLE, encodeTokenRequest(type![1])],
      [SINGLE, encodeTokenRequest(unknown![1])],
      [SINGLE, encodeTokenRequest(large![1])],
      [SINGLE, new Uint8Array(3)],
      [BATCH, none],
      [BATCH, none.subarray(1)],
    ];
    for (const [mediaType, body] of cases) {
      const code = codeOf(() => issuerWith().examine(mediaType, body));
      expect(code).toMatch(/^TOKEN_/);
      expect(code).toBe(await codeOfAsync(() => issuerWith().issue(mediaType, body)));
    }
  });
});

describe("the caller's own mistakes", () => {
  it("rejects a media type that is not one of issuance, and a concurrency below one", async () => {
    expect(isIssuanceMediaType(SINGLE)).toBe(true);
    expect(isIssuanceMediaType(BATCH)).toBe(true);
    expect(isIssuanceMediaType("text/plain")).toBe(false);
    // @ts-expect-error -- not a media type of issuance
    await expect(issuerWith().issue("text/plain", new Uint8Array(0))).rejects.toThrow(TypeError);
    // @ts-expect-error -- not a media type of issuance
    expect(() => countTokenRequests("", new Uint8Array(0), DEFAULT_BATCH_LIMITS)).toThrow(
      TypeError,
    );
    const keyRing = createKeyRing({ records: [], clock: testClock() });
    const options = { keyRing, signer: testSigner([]), limits: DEFAULT_BATCH_LIMITS };
    expect(() => createIssuer({ ...options, batchConcurrency: 0 })).toThrow(RangeError);
  });
});
