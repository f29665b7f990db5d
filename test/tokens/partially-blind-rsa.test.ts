/** Partially blind RSA and its structures: vectors of others, what is refused, and keys of our own. */
import { createPublicKey, generatePrimeSync, type KeyObject } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  encodeExtendedTokenRequest,
  encodeExtensions,
  encodeToken,
  EXTENSION_TYPE_EXPIRATION,
  expirationExtension,
  parseExpirationTimestamp,
  parseExtendedTokenRequest,
  parseExtensions,
  parseGenericBatchTokenRequest,
  parseToken,
  parseTokenRequest,
  parseTokenResponse,
  DEFAULT_BATCH_LIMITS,
  TOKEN_TYPE_PARTIALLY_BLIND_RSA,
} from "../../tokens/index.ts";
import { createNodeTokenCrypto, encodeRsaPublicKey, rawRsaSign } from "../../tokens/node/index.ts";
import {
  createPartiallyBlindSigner,
  generatePartiallyBlindRsaKey,
  partiallyBlindRsaEngine,
} from "../../tokens/partially-blind-rsa/index.ts";
import {
  derivePrivateKey,
  privateKeyOfPrimes,
} from "../../tokens/partially-blind-rsa/private-key.ts";
import { bytesToInt, intToBytes } from "../../tokens/partially-blind-rsa/big-integers.ts";
import { blindWithMetadata } from "../../tokens/partially-blind-rsa/blind-client.ts";
import { messageWithMetadata } from "../../tokens/partially-blind-rsa/derivation.ts";
import {
  derivePublicExponent,
  derivePublicKey,
} from "../../tokens/partially-blind-rsa/public-key.ts";
import {
  encodeRsaPrivateKey,
  parseRsaPrivateKey,
} from "../../tokens/partially-blind-rsa/rsa-private-key.ts";
import { concatBytes, decodeHex, encodeHex, isStileError } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { metadataVectors, privateKeyOf } from "./metadata-fixtures.ts";
import { atOffset, bytesOf, readVectors, type Vector } from "./vectors.ts";

const CFRG = "blindrsa-rfc9474/test_vectors_partially_blind_rsa_draft_2.json";
const F4 = Uint8Array.of(1, 0, 1);
const crypto = createNodeTokenCrypto();

function modulusOf(key: KeyObject): Uint8Array {
  return Uint8Array.from(Buffer.from(key.export({ format: "jwk" }).n ?? "", "base64url"));
}

function keyOfPrimes(vector: Vector): KeyObject {
  const primes = { prime1: bytesOf(vector, "p"), prime2: bytesOf(vector, "q") };
  return privateKeyOfPrimes(partiallyBlindRsaEngine(), primes, F4);
}

describe.skipIf(sharedMissing)("partially blind RSA against vectors", () => {
  it("draft-amjad-cfrg-partially-blind-rsa-02: derives, signs and verifies byte for byte", async () => {
    for (const vector of readVectors(CFRG)) {
      const [info, n] = [bytesOf(vector, "info"), bytesOf(vector, "n")];
      const key = keyOfPrimes(vector);
      expect(modulusOf(key)).toEqual(n);
      expect(derivePublicExponent(n, info)).toEqual(bytesOf(vector, "eprime"));
      const signer = createPartiallyBlindSigner(key);
      const blinded = atOffset(bytesOf(vector, "blind_msg"));
      expect(signer.sign(blinded, atOffset(info))).toEqual(bytesOf(vector, "blind_sig"));
      const [message, signature] = [bytesOf(vector, "msg"), bytesOf(vector, "sig")];
      const spki = encodeRsaPublicKey(key);
      expect(await crypto.verifyTypeDa7a(spki, atOffset(info), message, signature)).toBe(true);
      const others = [concatBytes([info, Uint8Array.of(0)]), Uint8Array.of(7)];
      for (const other of others) {
        expect(await crypto.verifyTypeDa7a(spki, other, message, signature)).toBe(false);
      }
      expect(crypto.verifyType2(spki, messageWithMetadata(info, message), signature)).toBe(false);
    }
  });

  it("draft-amjad-cfrg-partially-blind-rsa-02: blinds and finalises byte for byte, nothing else", async () => {
    for (const vector of readVectors(CFRG)) {
      const [modulus, metadata] = [bytesOf(vector, "n"), bytesOf(vector, "info")];
      const message = concatBytes([bytesOf(vector, "msg_prefix"), bytesOf(vector, "msg")]);
      const [salt, r] = [bytesOf(vector, "salt"), bytesOf(vector, "r")];
      const asked: number[] = [];
      // Above the modulus first: then another is drawn.
      const drawn = [salt, new Uint8Array(modulus.length).fill(255), r];
      const random = (length: number): Uint8Array => {
        asked.push(length);
        return drawn.shift() ?? new Uint8Array();
      };
      const blinded = await blindWithMetadata({ modulus, metadata, message, random });
      expect(asked).toEqual([48, modulus.length, modulus.length]);
      expect(encodeHex(blinded.blindedMessage)).toBe(encodeHex(bytesOf(vector, "blind_msg")));
      const response = bytesOf(vector, "blind_sig");
      expect(blinded.finalize(atOffset(response))).toEqual(bytesOf(vector, "sig"));
      const above = bytesToInt(response) + bytesToInt(modulus);
      for (const wrong of [
        response.with(7, response[7]! ^ 1),
        response.subarray(1),
        concatBytes([Uint8Array.of(0), response]),
        new Uint8Array(response.length),
        intToBytes(bytesToInt(modulus) - bytesToInt(response), response.length),
        intToBytes(above, response.length + 1).subarray(1),
      ]) {
        expect(blinded.finalize(wrong)).toBeUndefined();
      }
    }
  });

  it("draft-hendrickson-privacypass-public-metadata-03: request, response and token", async () => {
    for (const vector of metadataVectors()) {
      const key = privateKeyOf(vector);
      const spki = bytesOf(vector, "pkS");
      expect(encodeHex(encodeRsaPublicKey(key))).toBe(encodeHex(spki));
      const bytes = bytesOf(vector, "token_request");
      const { extensions, request } = parseExtendedTokenRequest(atOffset(bytes));
      expect(Uint8Array.from(extensions.encoded)).toEqual(bytesOf(vector, "extensions"));
      expect(encodeExtensions(extensions.extensions)).toEqual(bytesOf(vector, "extensions"));
      expect(encodeExtendedTokenRequest(request, extensions.encoded)).toEqual(bytes);
      const response = createPartiallyBlindSigner(key).sign(
        request.blindedMessage,
        extensions.encoded,
      );
      expect(response).toEqual(bytesOf(vector, "token_response"));
      expect(parseTokenResponse(response, 0xda7a).response).toEqual(response);
      const token = parseToken(atOffset(bytesOf(vector, "token")));
      expect(encodeToken(token)).toEqual(bytesOf(vector, "token"));
      const { authenticator, authenticatorInput } = token;
      const verify = async (metadata: Uint8Array): Promise<boolean> =>
        crypto.verifyTypeDa7a(spki, metadata, authenticatorInput, authenticator);
      expect(await verify(extensions.encoded)).toBe(true);
      expect(await verify(encodeExtensions([]))).toBe(false);
    }
  });

  it("keeps the derived keys of few metadata, and signs the same when one is derived anew", () => {
    const [vector] = metadataVectors();
    if (vector === undefined) throw new Error("no vector");
    const signer = createPartiallyBlindSigner(privateKeyOf(vector));
    const { extensions, request } = parseExtendedTokenRequest(bytesOf(vector, "token_request"));
    for (let i = 0; i < 34; i += 1) signer.sign(request.blindedMessage, Uint8Array.of(i));
    expect(signer.sign(request.blindedMessage, extensions.encoded)).toEqual(
      bytesOf(vector, "token_response"),
    );
  });

  it("derives a private exponent that inverts the public one, in the form of PKCS #1", () => {
    const [vector] = readVectors(CFRG);
    if (vector === undefined) throw new Error("no vector");
    const derived = derivePrivateKey(
      partiallyBlindRsaEngine(),
      keyOfPrimes(vector),
      Uint8Array.of(1),
    );
    const der = Uint8Array.from(derived.export({ format: "der", type: "pkcs1" }));
    const key = parseRsaPrivateKey(atOffset(der));
    expect(encodeRsaPrivateKey(key)).toEqual(der);
    const number = (bytes: Uint8Array): bigint => BigInt(`0x${encodeHex(bytes)}`);
    const [p1, q1] = [number(key.prime1) - 1n, number(key.prime2) - 1n];
    const product = number(key.publicExponent) * number(key.privateExponent);
    expect(product % ((p1 * q1) / 2n)).toBe(1n);
    expect([number(key.exponent1), number(key.exponent2)]).toEqual([
      number(key.privateExponent) % p1,
      number(key.privateExponent) % q1,
    ]);
    expect((number(key.coefficient) * (q1 + 1n)) % (p1 + 1n)).toBe(1n);
  });

  it("rejects blinded messages that are none, and withholds what does not verify", () => {
    const [vector] = metadataVectors();
    if (vector === undefined) throw new Error("no vector");
    const signer = createPartiallyBlindSigner(privateKeyOf(vector));
    const modulus = modulusOf(privateKeyOf(vector));
    for (const wrong of [new Uint8Array(256), new Uint8Array(255).fill(1), modulus]) {
      expect(codeOf(() => signer.sign(wrong, Uint8Array.of(1)))).toBe("TOKEN_REQUEST_INVALID");
    }
  });

  it("rejects primes that are not safe, or withholds what they sign", () => {
    // Another order than p'q': the inverse is none, and no signature leaves. One more than a multiple of
    // six is never safe, since 3 divides its half; of others one pair in some ten thousand is.
    const keyWhere = (rem: bigint): (() => Uint8Array) => {
      const prime = (): Uint8Array =>
        new Uint8Array(generatePrimeSync(1024, { add: 12n, rem, bigint: false }));
      const primes = { prime1: prime(), prime2: prime() };
      return () =>
        createPartiallyBlindSigner(privateKeyOfPrimes(partiallyBlindRsaEngine(), primes, F4)).sign(
          new Uint8Array(256).fill(1),
          Uint8Array.of(1),
        );
    };
    expect(codeOf(keyWhere(7n))).toBe("TOKEN_SIGNATURE_FAULT");
    expect(codeOf(keyWhere(1n))).toBe("TOKEN_KEY_STORE_INVALID");
  });
});

it("generates keys of 2048 bits that sign under any metadata", { timeout: 120_000 }, async () => {
  const { privateKey, publicKeySpki } = await generatePartiallyBlindRsaKey();
  expect(publicKeySpki).toEqual(encodeRsaPublicKey(createPublicKey(privateKey)));
  const message = new Uint8Array(256).fill(7);
  const signer = createPartiallyBlindSigner(privateKey);
  for (const metadata of [Uint8Array.of(), Uint8Array.of(1), new Uint8Array(300)]) {
    // withheld unless it verifies under the derived public key
    expect(signer.sign(message, metadata)).toHaveLength(256);
    const derived = derivePublicKey(modulusOf(privateKey), metadata);
    expect(derived.asymmetricKeyDetails?.modulusLength).toBe(2048);
  }
  expect(rawRsaSign(privateKey, message)).toHaveLength(256);
});

describe("the structures of public metadata", () => {
  const blindedMessage = new Uint8Array(256).fill(3);
  const request = {
    tokenType: TOKEN_TYPE_PARTIALLY_BLIND_RSA,
    truncatedTokenKeyId: 9,
    blindedMessage,
  };
  const expiration = { timestampPrecision: 3600n, timestamp: 1_800_000_000n };
  const extensions = encodeExtensions([
    expirationExtension(expiration),
    { extensionType: 1, extensionData: Uint8Array.of(1, 2, 3) },
    { extensionType: 0xffff, extensionData: new Uint8Array(0) },
  ]);
  const extended = encodeExtendedTokenRequest(request, extensions);

  it("rejects extensions out of order, cut short, and with bytes behind them", () => {
    const refusals: readonly [string, number[]][] = [
      ["WIRE_VALUE_NOT_ALLOWED", [0, 8, 0, 2, 0, 0, 0, 1, 0, 0]],
      ["WIRE_TOO_SHORT", [0, 5, 0, 1, 0, 0]],
      ["WIRE_TOO_SHORT", [0, 4, 0, 1, 0, 1]],
      ["WIRE_TOO_SHORT", [0, 3, 0, 1, 0]],
      ["WIRE_TOO_SHORT", [0]],
      ["WIRE_TRAILING_BYTES", [0, 4, 0, 1, 0, 0, 0]],
    ];
    for (const [code, bytes] of refusals) {
      expect(codeOf(() => parseExtensions(Uint8Array.from(bytes)))).toBe(code);
    }
    const descending = [2, 1].map((extensionType) => ({
      extensionType,
      extensionData: new Uint8Array(0),
    }));
    expect(() => encodeExtensions(descending)).toThrow(RangeError);
  });

  it("reads and writes the expiration of the draft's example, as google/anonymous-tokens has it", () => {
    const bytes = decodeHex("0014000100100000000000000e100000000064a5bdb0");
    const example = { timestampPrecision: 3600n, timestamp: 1_688_583_600n };
    const [extension] = parseExtensions(atOffset(bytes)).extensions;
    expect(extension?.extensionType).toBe(EXTENSION_TYPE_EXPIRATION);
    const data = extension?.extensionData ?? new Uint8Array(0);
    expect(parseExpirationTimestamp(data)).toEqual(example);
    expect(encodeExtensions([expirationExtension(example)])).toEqual(bytes);
    const two = decodeHex("000b0001000101000200020202");
    const parsed = parseExtensions(two).extensions;
    expect(parsed.map(({ extensionType }) => extensionType)).toEqual([1, 2]);
    expect(encodeExtensions(parsed)).toEqual(two);
  });

  it("rejects an expiration of another length", () => {
    for (const [length, code] of [
      [15, "WIRE_TOO_SHORT"],
      [17, "WIRE_TRAILING_BYTES"],
    ] as const) {
      expect(codeOf(() => parseExpirationTimestamp(new Uint8Array(length)))).toBe(code);
    }
    expect(parseExpirationTimestamp(expirationExtension(expiration).extensionData)).toEqual(
      expiration,
    );
  });

  it("rejects metadata where there is none, and a request without its metadata", () => {
    const plain = concatBytes([Uint8Array.of(0, 2), extended.subarray(2)]);
    for (const [parse, bytes, code] of [
      [parseTokenRequest, extended, "TOKEN_TYPE_UNSUPPORTED"],
      [parseTokenRequest, plain, "WIRE_TRAILING_BYTES"],
      [parseExtendedTokenRequest, plain, "TOKEN_TYPE_UNSUPPORTED"],
      [parseExtendedTokenRequest, extended.subarray(0, 259), "WIRE_TOO_SHORT"],
      [parseExtendedTokenRequest, concatBytes([extended, Uint8Array.of(0)]), "WIRE_TRAILING_BYTES"],
    ] as const) {
      expect(codeOf(() => parse(bytes))).toBe(code);
    }
    // 0x4103: the varint of 259
    const batch = concatBytes([Uint8Array.of(0x41, 3), extended.subarray(0, 259)]);
    expect(codeOf(() => parseGenericBatchTokenRequest(batch, DEFAULT_BATCH_LIMITS))).toBe(
      "TOKEN_TYPE_UNSUPPORTED",
    );
    expect(() => encodeExtendedTokenRequest({ ...request, tokenType: 2 }, extensions)).toThrow(
      RangeError,
    );
  });

  it("what is accepted re-encodes to itself", () => {
    const change = fc.tuple(fc.nat(extended.length - 1), fc.nat(255));
    let accepted = 0;
    const trip = (bytes: Uint8Array): string => {
      try {
        const parsed = parseExtendedTokenRequest(bytes);
        const encoded = encodeExtensions(parsed.extensions.extensions);
        expect(encoded).toEqual(Uint8Array.from(parsed.extensions.encoded));
        return encodeHex(encodeExtendedTokenRequest(parsed.request, encoded));
      } catch (error) {
        if (isStileError(error)) return error.code;
        throw error;
      }
    };
    fc.assert(
      fc.property(fc.array(change, { maxLength: 3 }), fc.nat(3), (changes, cut) => {
        const bytes = Uint8Array.from(extended);
        for (const [at, value] of changes) bytes[at] = value;
        const hostile = bytes.subarray(0, bytes.length - Math.max(0, cut - 2));
        const text = trip(hostile);
        expect(trip(atOffset(hostile))).toBe(text);
        if (text.includes("_")) return;
        expect(text).toBe(encodeHex(hostile));
        accepted += 1;
      }),
      { seed: 20_261_128, numRuns: 400 },
    );
    expect(accepted).toBeGreaterThan(20);
    expect(accepted).toBeLessThan(400);
  });
});

it("rejects an RSAPrivateKey that is not one of two primes in DER", () => {
  for (const [code, bytes] of [
    ["WIRE_VALUE_NOT_ALLOWED", [0x31, 0]],
    ["WIRE_VALUE_NOT_ALLOWED", [0x30, 3, 2, 1, 1]],
    ["WIRE_BAD_ENCODING", [0x30, 0x83, 0, 0, 0]],
    ["WIRE_TOO_SHORT", [0x30, 0x82, 1, 0, 0]],
    ["WIRE_TRAILING_BYTES", [0x30, 0x81, 0, 0]],
  ] as const) {
    expect(codeOf(() => parseRsaPrivateKey(Uint8Array.from(bytes)))).toBe(code);
  }
});
