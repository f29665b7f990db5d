/** MakeCredential and its key derivations against values that the TCG reference code validated. */
import { createPrivateKey, privateDecrypt, createECDH, constants } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  encodeSpki,
  kdfa,
  kdfe,
  hashRow,
  makeCredential,
  parseTpmtPublic,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { decodeHex, encodeHex, Reader } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { readSharedJson, sharedMissing } from "../support/shared.ts";

const crypto = createNodeAttestCrypto();
const row = (alg: number) => hashRow(alg) ?? expect.unreachable(`hash ${alg}`);
const vectors = (name: string): Record<string, string & number>[] =>
  readSharedJson(`corpora/tpm-structures/${name}.json`) as Record<string, string & number>[];

describe.skipIf(sharedMissing)("key derivation, go-tpm's vectors", () => {
  it("C1: KDFa gives the reference values", () => {
    const all = vectors("kdfa");
    expect(all.length).toBe(100);
    for (const v of all) {
      const [key, u, w] = [v["Key"], v["ContextU"], v["ContextV"]].map((x) => decodeHex(x ?? ""));
      const got = kdfa(crypto, row(v["HashAlg"]!), key!, v["Label"]!, u!, w!, v["Bits"]!);
      expect(encodeHex(got), v["Name"]).toBe(v["Result"]);
    }
  });

  it("C1: KDFe gives the reference values", () => {
    const all = vectors("kdfe");
    expect(all.length).toBe(100);
    for (const v of all) {
      const [z, u, w] = [v["Z"], v["ContextU"], v["ContextV"]].map((x) => decodeHex(x ?? ""));
      const got = kdfe(crypto, row(v["HashAlg"]!), z!, v["Label"]!, u!, w!, v["Bits"]!);
      expect(encodeHex(got), v["Name"]).toBe(v["Result"]);
    }
  });
});

describe.skipIf(sharedMissing)("shared seeds, go-tpm's vectors", () => {
  it("C1: the ECC seed of the label IDENTITY is KDFe over one-pass ECDH", () => {
    let seen = 0;
    for (const v of vectors("ecc_labeled_encaps")) {
      const area = areaOf(v["PublicKey"]!);
      if (area === undefined || area.type !== 0x0023 || v["Label"] !== "IDENTITY") continue;
      const curve = { "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1" }[
        area.curve.name
      ];
      const ecdh = createECDH(curve);
      ecdh.setPrivateKey(Buffer.from(v["EphemeralPrivate"]!, "hex"));
      const ephemeral = ecdh.getPublicKey();
      const size = area.curve.coordinateBytes;
      const z = ecdh.computeSecret(Buffer.concat([Buffer.of(4), area.unique.x, area.unique.y]));
      const x = ephemeral.subarray(1, 1 + size);
      const bits = area.nameAlg.digestBytes * 8;
      const seed = kdfe(crypto, area.nameAlg, z, "IDENTITY", x, area.unique.x, bits);
      expect(encodeHex(seed), v["Name"]).toBe(v["Secret"]);
      const reader = new Reader(decodeHex(v["Ciphertext"]!), "TPMS_ECC_POINT");
      expect(encodeHex(reader.vec16("x", 0, 66))).toBe(encodeHex(x));
      seen += 1;
    }
    expect(seen).toBeGreaterThan(5);
  });

  it("C1: the OAEP encoding and its label are those of the reference", () => {
    let seen = 0;
    for (const v of vectors("rsa_labeled_encaps")) {
      const area = areaOf(v["PublicKey"]!);
      if (area === undefined || area.type !== 0x0001) continue;
      const key = rsaPrivateKey(area.unique, decodeHex(v["PrivateKey"]!));
      // Part 1 B.4: an unrestricted key's own scheme names the hash, else it is the nameAlg.
      const oaepHash = area.scheme?.hashAlg?.name ?? area.nameAlg.name;
      const options = {
        key,
        padding: constants.RSA_PKCS1_OAEP_PADDING,
        oaepHash,
        oaepLabel: Buffer.from(`${v["Label"]}\0`),
      };
      const seed = privateDecrypt(options, Buffer.from(v["Ciphertext"]!, "hex"));
      expect(seed.toString("hex"), v["Name"]).toBe(v["Secret"]);
      const again = crypto.rsaOaepEncrypt(encodeSpki(area), oaepHash, options.oaepLabel, seed);
      expect(privateDecrypt(options, again as Uint8Array)).toEqual(seed);
      seen += 1;
    }
    expect(seen).toBeGreaterThan(5);
  });
});

describe("makeCredential", () => {
  const random = (length: number): Uint8Array => new Uint8Array(length).fill(7);

  it("B4: refuses a point that is not on the curve", async () => {
    const ek = parseTpmtPublic(
      decodeHex(
        `0023000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa` +
          `0006008000430010000300100020${"11".repeat(32)}0020${"22".repeat(32)}`,
      ),
    );
    const made = makeCredential({ crypto, random, ek, name: random(34), secret: random(32) });
    expect(await codeOfAsync(() => made)).toBe("ATTEST_STRUCTURE_INVALID");
  });
});

/** Vectors with keys that no EK profile has (SHA3, SM2, …) are not read. */
function areaOf(hex: string): ReturnType<typeof parseTpmtPublic> | undefined {
  try {
    return parseTpmtPublic(decodeHex(hex));
  } catch {
    return undefined;
  }
}

/** From TPMT_SENSITIVE: one prime of the modulus. */
function rsaPrivateKey(modulus: Uint8Array, sensitive: Uint8Array) {
  const reader = new Reader(sensitive, "TPMT_SENSITIVE");
  reader.u16("sensitiveType");
  reader.vec16("authValue", 0, 64);
  reader.vec16("seedValue", 0, 64);
  const big = (bytes: Uint8Array): bigint => BigInt(`0x${encodeHex(bytes)}`);
  const p = big(reader.vec16("sensitive", 1, 256));
  const n = big(modulus);
  const q = n / p;
  const e = 65_537n;
  const d = inverse(e, (p - 1n) * (q - 1n));
  const b64 = (x: bigint): string => {
    const text = x.toString(16);
    return Buffer.from(text.length % 2 === 0 ? text : `0${text}`, "hex").toString("base64url");
  };
  const jwk = {
    kty: "RSA",
    n: b64(n),
    e: b64(e),
    d: b64(d),
    p: b64(p),
    q: b64(q),
    dp: b64(d % (p - 1n)),
    dq: b64(d % (q - 1n)),
    qi: b64(inverse(q, p)),
  };
  return createPrivateKey({ key: jwk, format: "jwk" });
}

function inverse(a: bigint, m: bigint): bigint {
  let [r0, r1, s0, s1] = [a % m, m, 1n, 0n];
  while (r1 !== 0n) {
    const q = r0 / r1;
    [r0, r1, s0, s1] = [r1, r0 - q * r1, s1, s0 - q * s1];
  }
  return ((s0 % m) + m) % m;
}
