import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import {
  encodeBlindRsaTokenKey,
  parseBlindRsaTokenKey,
  parseToken,
  parseTokenRequest,
} from "../../tokens/index.ts";
import {
  createNodeTokenCrypto,
  encodeRsaPublicKey,
  generateBlindRsaKey,
  importBlindRsaTokenKey,
  rawRsaSign,
} from "../../tokens/node/index.ts";
import { concatBytes, decodeHex, encodeHex } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { atOffset, bytesOf, readBatchVectors, readVectors, type Vector } from "./vectors.ts";

const crypto = createNodeTokenCrypto();

function privateKeyOf(vector: Vector): KeyObject {
  return createPrivateKey(Buffer.from(bytesOf(vector, "skS")));
}

describe.skipIf(sharedMissing)("type 0x0002 against vectors", () => {
  it.each([
    "privacypass-ts/pub_verif_rfc9578.go.json",
    "pat-go/type2__type2-issuance-test-vectors.json",
  ])("signs, verifies and spells keys as %s", (path) => {
    for (const vector of readVectors(path)) {
      const key = privateKeyOf(vector);
      const spki = bytesOf(vector, "pkS");
      expect(encodeHex(encodeRsaPublicKey(key))).toBe(encodeHex(spki));
      expect(encodeHex(encodeRsaPublicKey(createPublicKey(key)))).toBe(encodeHex(spki));
      expect(encodeBlindRsaTokenKey(parseBlindRsaTokenKey(atOffset(spki)))).toEqual(spki);

      const request = parseTokenRequest(atOffset(bytesOf(vector, "token_request")));
      expect(rawRsaSign(key, request.blindedMessage)).toEqual(bytesOf(vector, "token_response"));

      const token = parseToken(atOffset(bytesOf(vector, "token")));
      expect(crypto.sha256(spki)).toEqual(Uint8Array.from(token.tokenKeyId));
      expect(crypto.verifyType2(spki, token.authenticatorInput, token.authenticator)).toBe(true);
      const other = Uint8Array.from(token.authenticatorInput);
      other[5] = (other[5] ?? 0) ^ 1;
      expect(crypto.verifyType2(spki, other, token.authenticator)).toBe(false);
    }
  });

  it("signs and verifies the type 2 items of the generic batches", () => {
    let items = 0;
    for (const vector of readBatchVectors("pat-go/batched__batched-issuance-test-vectors.json")) {
      for (const item of vector.issuance.filter(({ type }) => type === "0002")) {
        const token = parseToken(bytesOf(item, "token"));
        const spki = bytesOf(item, "pkS");
        expect(crypto.verifyType2(spki, token.authenticatorInput, token.authenticator)).toBe(true);
        items += 1;
      }
    }
    expect(items).toBe(4);
  });

  it("agrees with RFC 9474 appendix A, all four variants (RSA-4096)", () => {
    const vectors = readVectors("blindrsa-rfc9474/test_vectors_rfc9474.json");
    expect(vectors).toHaveLength(4);
    for (const vector of vectors) {
      const blinded = decodeHex(vector["blinded_msg"] ?? "");
      const signature = rawRsaSign(rsaKeyOf(vector), blinded);
      expect(encodeHex(signature)).toBe(vector["blind_sig"]);
      expect(codeOf(() => rawRsaSign(rsaKeyOf(vector), blinded.subarray(1)))).toBe(
        "TOKEN_REQUEST_INVALID",
      );
    }
  });

  function rsaKeyOf(vector: Vector): KeyObject {
    const number = (field: string): bigint => BigInt(vector[field] ?? "missing");
    const text = (value: bigint): string => {
      const hex = value.toString(16);
      return Buffer.from(hex.padStart(Math.ceil(hex.length / 2) * 2, "0"), "hex").toString(
        "base64url",
      );
    };
    const [n, e, d, p, q] = [number("n"), number("e"), number("d"), number("p"), number("q")];
    const key = { n: text(n), e: text(e), d: text(d), p: text(p), q: text(q) };
    const crt = { dp: text(d % (p - 1n)), dq: text(d % (q - 1n)), qi: text(power(q, p - 2n, p)) };
    return createPrivateKey({ format: "jwk", key: { kty: "RSA", ...key, ...crt } });
  }

  function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
    let [result, square] = [1n, base % modulus];
    for (let rest = exponent; rest > 0n; rest >>= 1n) {
      if ((rest & 1n) === 1n) result = (result * square) % modulus;
      square = (square * square) % modulus;
    }
    return result;
  }
});

describe("rawRsaSign", () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });

  it("rejects a message of another length", () => {
    for (const length of [0, 255, 257, 512]) {
      const message = new Uint8Array(length).fill(1);
      expect(codeOf(() => rawRsaSign(privateKey, message))).toBe("TOKEN_REQUEST_INVALID");
    }
  });

  it("rejects zero, the modulus and anything above it", () => {
    const modulus = Uint8Array.from(parseBlindRsaTokenKey(encodeRsaPublicKey(privateKey)));
    const below = Uint8Array.from(modulus);
    below[255] = (below[255] ?? 0) - 1;
    expect(codeOf(() => rawRsaSign(privateKey, new Uint8Array(256)))).toBe("TOKEN_REQUEST_INVALID");
    expect(codeOf(() => rawRsaSign(privateKey, modulus))).toBe("TOKEN_REQUEST_INVALID");
    expect(codeOf(() => rawRsaSign(privateKey, new Uint8Array(256).fill(255)))).toBe(
      "TOKEN_REQUEST_INVALID",
    );
    // (n - 1) to an odd power is n - 1: the largest number that is allowed
    expect(rawRsaSign(privateKey, below)).toEqual(below);
  });

  it("rejects a signature that a faulty key made, and withholds it", () => {
    const jwk = privateKey.export({ format: "jwk" });
    const faulty = createPrivateKey({
      format: "jwk",
      key: { ...jwk, d: withFlippedBit(jwk.d ?? ""), dp: withFlippedBit(jwk.dp ?? "") },
    });
    const message = new Uint8Array(256).fill(3, 1);
    expect(codeOf(() => rawRsaSign(faulty, message))).toBe("TOKEN_SIGNATURE_FAULT");
  });

  it("passes a key of the wrong kind on as the caller's mistake", () => {
    const pss = generateKeyPairSync("rsa-pss", { modulusLength: 2048 }).privateKey;
    expect(codeOf(() => rawRsaSign(pss, new Uint8Array(256).fill(1)))).toMatch(/^not a StileError/);
  });

  function withFlippedBit(text: string): string {
    const bytes = Buffer.from(text, "base64url");
    bytes[bytes.length - 2] = (bytes[bytes.length - 2] ?? 0) ^ 4;
    return bytes.toString("base64url");
  }
});

describe("keys", () => {
  it("are named without a word of their private half in the heap", async () => {
    const { privateKey, publicKeySpki } = await generateBlindRsaKey();
    const exported = vi.spyOn(Object.getPrototypeOf(privateKey) as KeyObject, "export");
    onTestFinished(() => exported.mockRestore());
    expect(encodeRsaPublicKey(privateKey)).toEqual(publicKeySpki);
    expect(exported).not.toHaveBeenCalled();
  });

  it("generates RSA-2048 keys in RFC 9578's encoding, not in Node's", async () => {
    const { privateKey, publicKeySpki, tokenKeyId } = await generateBlindRsaKey();
    expect(privateKey.asymmetricKeyType).toBe("rsa");
    expect(publicKeySpki).toHaveLength(342);
    expect(tokenKeyId).toEqual(crypto.sha256(publicKeySpki));
    const key = importBlindRsaTokenKey(publicKeySpki);
    expect(key.asymmetricKeyDetails).toMatchObject({
      modulusLength: 2048,
      publicExponent: 65_537n,
      hashAlgorithm: "sha384",
      mgf1HashAlgorithm: "sha384",
      saltLength: 48,
    });
    expect(key.export({ format: "der", type: "spki" })).not.toHaveLength(342);
  });

  it("rejects token keys of another encoding, size or exponent", () => {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const spki = encodeRsaPublicKey(privateKey);
    const nodes = importBlindRsaTokenKey(spki).export({ format: "der", type: "spki" });
    const plain = createPublicKey(privateKey).export({ format: "der", type: "spki" });
    expect(codeOf(() => importBlindRsaTokenKey(new Uint8Array(nodes)))).toBe("WIRE_TRAILING_BYTES");
    expect(codeOf(() => importBlindRsaTokenKey(new Uint8Array(plain)))).toBe("WIRE_TOO_SHORT");
    expect(codeOf(() => parseBlindRsaTokenKey(concatBytes([spki, Uint8Array.of(0)])))).toBe(
      "WIRE_TRAILING_BYTES",
    );
    const cases: readonly [number, number][] = [
      [0, 1],
      [60, 1],
      [341, 2],
      [81, 0x80],
    ];
    for (const [at, flip] of cases) {
      const bytes = Uint8Array.from(spki);
      bytes[at] = (bytes[at] ?? 0) ^ flip;
      expect(codeOf(() => parseBlindRsaTokenKey(bytes))).toBe("WIRE_VALUE_NOT_ALLOWED");
    }
  });

  it("rejects a key that is not RSA-2048 with the exponent 65537", () => {
    const options = [{ modulusLength: 3072 }, { modulusLength: 2048, publicExponent: 3 }];
    for (const option of options) {
      const { publicKey } = generateKeyPairSync("rsa", option);
      expect(() => encodeRsaPublicKey(publicKey)).toThrow(RangeError);
    }
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    expect(() => encodeRsaPublicKey(publicKey)).toThrow(RangeError);
    expect(() => encodeBlindRsaTokenKey(new Uint8Array(256))).toThrow(RangeError);
  });

  it("computes HMAC-SHA256 (RFC 4231 test case 2)", () => {
    const text = new TextEncoder();
    expect(
      encodeHex(
        crypto.hmacSha256(text.encode("Jefe"), text.encode("what do ya want for nothing?")),
      ),
    ).toBe("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  });
});
