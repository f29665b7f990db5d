import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DEFAULT_BATCH_LIMITS,
  encodeAuthenticatorInput,
  encodeGenericBatchTokenRequest,
  encodeGenericBatchTokenResponse,
  encodeToken,
  encodeTokenChallenge,
  encodeTokenRequest,
  encodeTokenResponse,
  parseAuthenticatorInput,
  parseGenericBatchTokenRequest,
  parseGenericBatchTokenResponse,
  parseToken,
  parseTokenChallenge,
  parseTokenRequest,
  parseTokenResponse,
  tokenTypeEntry,
} from "../../tokens/index.ts";
import { concatBytes, decodeHex, encodeHex, isStileError, Writer } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { createNodeTokenCrypto } from "../../tokens/node/index.ts";
import { atOffset, bytesOf, readBatchVectors, readVectors } from "./vectors.ts";

const crypto = createNodeTokenCrypto();
const latin = new TextDecoder();

describe.skipIf(sharedMissing)("structures against vectors", () => {
  it.each([
    ["privacypass-ts/auth_scheme_token_v14.json", 2],
    ["pat-go/token-test-vectors.json", 2],
    ["privacypass-ts/auth_scheme_token_with_extensions_v1.json", 0xda7a],
  ])("RFC 9577 A.1 TokenChallenge and AuthenticatorInput: %s", (path, tokenType) => {
    for (const vector of readVectors(path)) {
      const fields = {
        tokenType,
        issuerName: latin.decode(bytesOf(vector, "issuer_name")),
        redemptionContext: bytesOf(vector, "redemption_context"),
        originInfo: latin.decode(bytesOf(vector, "origin_info")),
      };
      const challenge = encodeTokenChallenge(fields);
      const input = {
        tokenType,
        nonce: bytesOf(vector, "nonce"),
        challengeDigest: crypto.sha256(challenge),
        tokenKeyId: bytesOf(vector, "token_key_id"),
      };
      const encoded = bytesOf(vector, "token_authenticator_input");
      expect(encodeHex(encodeAuthenticatorInput(input))).toBe(encodeHex(encoded));
      expect(parseAuthenticatorInput(atOffset(encoded))).toEqual(input);
      expect(parseTokenChallenge(atOffset(challenge))).toEqual({ ...fields, raw: challenge });
    }
  });

  it.each([
    ["privacypass-ts/pub_verif_rfc9578.go.json", 2],
    ["privacypass-ts/priv_verif_rfc9578.go.json", 1],
    ["pat-go/type2__type2-issuance-test-vectors.json", 2],
    ["pat-go/private__type1-issuance-test-vectors.json", 1],
    ["pat-go/private__type5-issuance-test-vectors.json", 5],
  ] as const)("issuance structures, byte for byte: %s", (path, tokenType) => {
    for (const vector of readVectors(path)) {
      const challenge = parseTokenChallenge(atOffset(bytesOf(vector, "token_challenge")));
      expect(encodeTokenChallenge(challenge)).toEqual(bytesOf(vector, "token_challenge"));

      const request = parseTokenRequest(atOffset(bytesOf(vector, "token_request")));
      const keyId = crypto.sha256(bytesOf(vector, "pkS"));
      expect(request).toMatchObject({ tokenType, truncatedTokenKeyId: keyId.at(-1) });
      expect(encodeTokenRequest(request)).toEqual(bytesOf(vector, "token_request"));

      const responseBytes = bytesOf(vector, "token_response");
      const response = parseTokenResponse(atOffset(responseBytes), tokenType);
      expect(encodeTokenResponse(response)).toEqual(responseBytes);

      const token = parseToken(atOffset(bytesOf(vector, "token")));
      expect(token.nonce).toEqual(bytesOf(vector, "nonce"));
      expect(token.tokenKeyId).toEqual(keyId);
      expect(token.challengeDigest).toEqual(crypto.sha256(challenge.raw));
      expect(encodeToken(token)).toEqual(bytesOf(vector, "token"));
      expect(encodeAuthenticatorInput(token)).toEqual(Uint8Array.from(token.authenticatorInput));
    }
  });

  it.each([
    "privacypass-ts/generic_batched_tokens_v6_go.json",
    "pat-go/batched__batched-issuance-test-vectors.json",
  ])("generic batches of types 1 and 2, byte for byte: %s", (path) => {
    for (const vector of readBatchVectors(path)) {
      const types = vector.issuance.map((item) => Number(item["type"]));
      const requestBytes = decodeHex(vector.token_request);
      const requests = parseGenericBatchTokenRequest(atOffset(requestBytes), DEFAULT_BATCH_LIMITS);
      expect(requests.map((request) => request.tokenType)).toEqual(types);
      expect(encodeGenericBatchTokenRequest(requests)).toEqual(requestBytes);

      const responseBytes = decodeHex(vector.token_response);
      const responses = parseGenericBatchTokenResponse(
        atOffset(responseBytes),
        DEFAULT_BATCH_LIMITS,
      );
      expect(responses.map((response) => response?.tokenType)).toEqual(types);
      expect(encodeGenericBatchTokenResponse(responses)).toEqual(responseBytes);

      for (const item of vector.issuance) {
        const token = parseToken(atOffset(bytesOf(item, "token")));
        expect(encodeToken(token)).toEqual(bytesOf(item, "token"));
        expect(token.challengeDigest).toEqual(crypto.sha256(bytesOf(item, "token_challenge")));
      }
    }
  });
});

describe("TokenChallenge", () => {
  const good = encodeTokenChallenge({
    tokenType: 2,
    issuerName: "issuer.example:8443",
    redemptionContext: new Uint8Array(32).fill(7),
    originInfo: "a.example,[::1]:8443",
  });

  function challenge(issuer: string, context: Uint8Array, origins: string): Uint8Array {
    const text = new TextEncoder();
    return new Writer()
      .u16(2)
      .vec16(text.encode(issuer))
      .vec8(context)
      .vec16(text.encode(origins))
      .finish();
  }

  it("rejects an empty issuer name, and names that are no server names", () => {
    const none = new Uint8Array(0);
    expect(codeOf(() => parseTokenChallenge(challenge("", none, "")))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
    const bad = ["a b", "user@host", "https://a", "a:", "a:123456", "ä.example", "a,b", "a/b"];
    for (const name of bad) {
      expect(codeOf(() => parseTokenChallenge(challenge(name, none, "")))).toBe(
        "WIRE_VALUE_NOT_ALLOWED",
      );
      expect(() =>
        encodeTokenChallenge({
          tokenType: 2,
          issuerName: name,
          redemptionContext: none,
          originInfo: "",
        }),
      ).toThrow(RangeError);
    }
    for (const origins of [",", "a,", ",a", "a, b", "a,,b"]) {
      expect(codeOf(() => parseTokenChallenge(challenge("i", none, origins)))).toBe(
        "WIRE_VALUE_NOT_ALLOWED",
      );
    }
  });

  it("rejects a redemption context that is neither 0 nor 32 bytes", () => {
    for (const length of [1, 31, 33]) {
      expect(codeOf(() => parseTokenChallenge(challenge("i", new Uint8Array(length), "")))).toBe(
        "WIRE_LENGTH_OUT_OF_BOUNDS",
      );
    }
    expect(() =>
      encodeTokenChallenge({
        tokenType: 2,
        issuerName: "i",
        redemptionContext: new Uint8Array(16),
        originInfo: "",
      }),
    ).toThrow(RangeError);
  });

  it("rejects every truncation and any trailing byte", () => {
    for (let length = 0; length < good.length; length += 1) {
      expect(codeOf(() => parseTokenChallenge(good.subarray(0, length)))).toBe("WIRE_TOO_SHORT");
    }
    expect(codeOf(() => parseTokenChallenge(concatBytes([good, Uint8Array.of(0)])))).toBe(
      "WIRE_TRAILING_BYTES",
    );
  });

  it("rejects text that is not UTF-8", () => {
    const bytes = Uint8Array.from(good);
    bytes[4] = 0xff;
    expect(codeOf(() => parseTokenChallenge(bytes))).toBe("WIRE_BAD_ENCODING");
  });
});

describe("Token and TokenRequest", () => {
  const token = encodeToken({
    tokenType: 2,
    nonce: new Uint8Array(32),
    challengeDigest: new Uint8Array(32),
    tokenKeyId: new Uint8Array(32),
    authenticator: new Uint8Array(256),
  });

  it("rejects trailing bytes and truncation", () => {
    expect(codeOf(() => parseToken(concatBytes([token, Uint8Array.of(0)])))).toBe(
      "WIRE_TRAILING_BYTES",
    );
    expect(codeOf(() => parseToken(token.subarray(0, -1)))).toBe("WIRE_TOO_SHORT");
    expect(codeOf(() => parseAuthenticatorInput(token))).toBe("WIRE_TRAILING_BYTES");
  });

  it("rejects a token type whose sizes are not known", () => {
    for (const type of [0x0000, 0x0003, 0x02aa, 0xda7b, 0xffff]) {
      const bytes = Uint8Array.from(token);
      bytes.set([type >> 8, type & 0xff]);
      expect(codeOf(() => parseToken(bytes))).toBe("TOKEN_TYPE_UNSUPPORTED");
      expect(codeOf(() => parseTokenRequest(bytes))).toBe("TOKEN_TYPE_UNSUPPORTED");
      expect(codeOf(() => parseTokenResponse(bytes, type))).toBe("TOKEN_TYPE_UNSUPPORTED");
    }
  });

  it("rejects requests and responses of another length", () => {
    const request = encodeTokenRequest({
      tokenType: 2,
      truncatedTokenKeyId: 9,
      blindedMessage: new Uint8Array(256),
    });
    expect(codeOf(() => parseTokenRequest(request.subarray(0, -1)))).toBe("WIRE_TOO_SHORT");
    expect(codeOf(() => parseTokenRequest(concatBytes([request, request])))).toBe(
      "WIRE_TRAILING_BYTES",
    );
    expect(codeOf(() => parseTokenResponse(new Uint8Array(255), 2))).toBe("WIRE_TOO_SHORT");
    expect(codeOf(() => parseTokenResponse(new Uint8Array(257), 2))).toBe("WIRE_TRAILING_BYTES");
  });

  it("rejects the caller's own fields of a wrong length", () => {
    const short = new Uint8Array(31);
    const input = { tokenType: 2, nonce: short, challengeDigest: short, tokenKeyId: short };
    expect(() => encodeAuthenticatorInput(input)).toThrow(RangeError);
    expect(() => encodeToken({ ...input, authenticator: short })).toThrow(RangeError);
    expect(() => encodeTokenResponse({ tokenType: 2, response: short })).toThrow(RangeError);
    expect(() =>
      encodeTokenRequest({ tokenType: 9, truncatedTokenKeyId: 0, blindedMessage: short }),
    ).toThrow(RangeError);
  });
});

describe("generic batch", () => {
  const request = { tokenType: 2, truncatedTokenKeyId: 1, blindedMessage: new Uint8Array(256) };

  function batch(items: number): Uint8Array {
    return encodeGenericBatchTokenRequest(Array.from({ length: items }, () => request));
  }

  it("takes as many requests as the limit and rejects one more", () => {
    const limits = { maxItems: 3, maxBytes: 10_000 };
    expect(parseGenericBatchTokenRequest(batch(3), limits)).toHaveLength(3);
    expect(codeOf(() => parseGenericBatchTokenRequest(batch(4), limits))).toBe(
      "TOKEN_BATCH_TOO_LARGE",
    );
    expect(parseGenericBatchTokenRequest(batch(100), DEFAULT_BATCH_LIMITS)).toHaveLength(100);
    expect(codeOf(() => parseGenericBatchTokenRequest(batch(101), DEFAULT_BATCH_LIMITS))).toBe(
      "TOKEN_BATCH_TOO_LARGE",
    );
    const refused = encodeGenericBatchTokenResponse([undefined, undefined]);
    expect(
      codeOf(() => parseGenericBatchTokenResponse(refused, { maxItems: 1, maxBytes: 99 })),
    ).toBe("TOKEN_BATCH_TOO_LARGE");
  });

  it("rejects more bytes than the limit before reading them", () => {
    const limits = { maxItems: 100, maxBytes: 300 };
    expect(codeOf(() => parseGenericBatchTokenRequest(new Uint8Array(301), limits))).toBe(
      "TOKEN_BATCH_TOO_LARGE",
    );
  });

  it("rejects an empty batch, a long length form, trailing bytes and a cut request", () => {
    const limits = DEFAULT_BATCH_LIMITS;
    const one = batch(1);
    const longForm = concatBytes([Uint8Array.of(0x80, 0, 1, 3), one.subarray(2)]);
    const cases: readonly [Uint8Array, string][] = [
      [Uint8Array.of(0), "WIRE_LENGTH_OUT_OF_BOUNDS"],
      [new Uint8Array(0), "WIRE_TOO_SHORT"],
      [longForm, "WIRE_BAD_ENCODING"],
      [concatBytes([one, Uint8Array.of(0)]), "WIRE_TRAILING_BYTES"],
      [one.subarray(0, -1), "WIRE_TOO_SHORT"],
      [concatBytes([Uint8Array.of(0x41, 2), one.subarray(2, -1)]), "WIRE_TOO_SHORT"],
    ];
    for (const [bytes, code] of cases) {
      expect(codeOf(() => parseGenericBatchTokenRequest(bytes, limits))).toBe(code);
    }
  });

  it("rejects a batch that holds an unknown type", () => {
    const bytes = Uint8Array.from(batch(2));
    bytes.set([0xda, 0x7a], 2 + 259);
    expect(codeOf(() => parseGenericBatchTokenRequest(bytes, DEFAULT_BATCH_LIMITS))).toBe(
      "TOKEN_TYPE_UNSUPPORTED",
    );
  });

  it("rejects a presence octet other than 0 and 1", () => {
    expect(
      codeOf(() => parseGenericBatchTokenResponse(Uint8Array.of(1, 2), DEFAULT_BATCH_LIMITS)),
    ).toBe("WIRE_VALUE_NOT_ALLOWED");
  });
});

describe("properties", () => {
  const zeros = new Uint8Array(256);
  const request = { tokenType: 2, truncatedTokenKeyId: 1, blindedMessage: zeros };
  const limits = DEFAULT_BATCH_LIMITS;
  type Trip = (bytes: Uint8Array) => Uint8Array;
  const parsers: readonly [string, Uint8Array, Trip][] = [
    [
      "TokenChallenge",
      encodeTokenChallenge({
        tokenType: 2,
        issuerName: "i.example",
        redemptionContext: zeros.subarray(0, 32),
        originInfo: "o.example,p.example",
      }),
      (bytes) => encodeTokenChallenge(parseTokenChallenge(bytes)),
    ],
    [
      "Token",
      concatBytes([Uint8Array.of(0, 5), zeros.subarray(0, 160)]),
      (bytes) => encodeToken(parseToken(bytes)),
    ],
    [
      "TokenRequest",
      concatBytes([Uint8Array.of(0, 5), zeros.subarray(0, 33)]),
      (bytes) => encodeTokenRequest(parseTokenRequest(bytes)),
    ],
    [
      "TokenResponse",
      zeros.subarray(0, 96),
      (bytes) => encodeTokenResponse(parseTokenResponse(bytes, 5)),
    ],
    [
      "BatchTokenRequest",
      encodeGenericBatchTokenRequest([request, request]),
      (bytes) => encodeGenericBatchTokenRequest(parseGenericBatchTokenRequest(bytes, limits)),
    ],
    [
      "GenericBatchTokenResponse",
      encodeGenericBatchTokenResponse([undefined, { tokenType: 2, response: zeros }]),
      (bytes) => encodeGenericBatchTokenResponse(parseGenericBatchTokenResponse(bytes, limits)),
    ],
  ];

  it.each(parsers)("%s: what is accepted re-encodes to itself", (_, seed, trip) => {
    let accepted = 0;
    const change = fc.tuple(fc.nat(seed.length - 1), fc.nat(255));
    const hostile = fc
      .tuple(fc.array(change, { maxLength: 3 }), fc.nat(3))
      .map(([changes, cut]) => {
        const bytes = Uint8Array.from(seed);
        for (const [at, value] of changes) bytes[at] = value;
        return bytes.subarray(0, bytes.length - Math.max(0, cut - 2));
      });
    const outcome = (bytes: Uint8Array): string => {
      try {
        return encodeHex(trip(bytes));
      } catch (error) {
        if (isStileError(error)) return error.code;
        throw error;
      }
    };
    fc.assert(
      fc.property(hostile, (bytes) => {
        const text = outcome(bytes);
        expect(outcome(atOffset(bytes))).toBe(text);
        if (/_/.test(text)) return;
        expect(text).toBe(encodeHex(bytes));
        accepted += 1;
      }),
      { seed: 20_261_123, numRuns: 400 },
    );
    expect(accepted).toBeGreaterThan(20);
    expect(accepted).toBeLessThan(400);
  });

  it("any batch of known types survives the trip", () => {
    const item = fc.constantFrom(1, 2, 5).chain((tokenType) =>
      fc.record({
        tokenType: fc.constant(tokenType),
        truncatedTokenKeyId: fc.nat(255),
        blindedMessage: bytesOfLength(tokenTypeEntry(tokenType)?.blindedLength ?? 0),
      }),
    );
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 20 }), (requests) => {
        const bytes = encodeGenericBatchTokenRequest(requests);
        expect(parseGenericBatchTokenRequest(bytes, DEFAULT_BATCH_LIMITS)).toEqual(requests);
      }),
      { seed: 20_261_123, numRuns: 50 },
    );
  });

  function bytesOfLength(length: number): fc.Arbitrary<Uint8Array> {
    return fc.uint8Array({ minLength: length, maxLength: length });
  }
});
