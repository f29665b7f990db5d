/**
 * go-tpm's vectors of the key derivations and of labelled encapsulation, which the TCG reference code
 * validated. Shared by the tests and by the page that lists the verdicts.
 */
import {
  constants,
  createECDH,
  createPrivateKey,
  type KeyObject,
  privateDecrypt,
} from "node:crypto";
import { encodeSpki, hashRow, kdfa, kdfe, parseTpmtPublic } from "../../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import { decodeHex, encodeHex, Reader } from "../../../../wire/index.ts";
import { readSharedJson } from "../../../support/shared.ts";

const crypto = createNodeAttestCrypto();

type Vector = Readonly<Record<string, string & number>>;

/** What we compute for one vector, and what the reference has. */
export interface VectorVerdict {
  readonly name: string;
  readonly got: string;
  readonly expected: string;
}

/** Each file: what it is of, and the verdict of those of its vectors that an EK profile can need. */
export const TPM_VECTORS: Readonly<
  Record<
    string,
    { readonly what: string; readonly judge: (v: Vector) => VectorVerdict | undefined }
  >
> = {
  "kdfa.json": { what: "KDFa", judge: judgeKdfa },
  "kdfe.json": { what: "KDFe", judge: judgeKdfe },
  "ecc_labeled_encaps.json": {
    what: "a seed for an ECC key: one-pass ECDH and KDFe",
    judge: judgeEccSeed,
  },
  "rsa_labeled_encaps.json": {
    what: "a seed for an RSA key: OAEP with its label",
    judge: judgeRsaSeed,
  },
};

export function tpmVectors(file: string): readonly Vector[] {
  return readSharedJson(`corpora/tpm-structures/${file}`) as readonly Vector[];
}

/** Verdicts of the vectors of a file that apply. */
export function tpmVectorVerdicts(file: string): readonly VectorVerdict[] {
  const judge = TPM_VECTORS[file]?.judge;
  if (judge === undefined) throw new Error(`${file} has no row`);
  return tpmVectors(file)
    .map(judge)
    .filter((verdict) => verdict !== undefined);
}

const row = (alg: number) => hashRow(alg) ?? missing(`hash ${alg}`);
function missing(what: string): never {
  throw new Error(`the vector lacks ${what}`);
}
const text = (v: Vector, field: string): string => v[field] ?? missing(field);
const bytes = (v: Vector, field: string): Uint8Array => decodeHex(text(v, field));

function judgeKdfa(v: Vector): VectorVerdict {
  const bits = v["Bits"] ?? missing("Bits");
  const contexts = [bytes(v, "ContextU"), bytes(v, "ContextV")] as const;
  const hash = row(v["HashAlg"] ?? missing("HashAlg"));
  const got = kdfa(crypto, hash, bytes(v, "Key"), text(v, "Label"), ...contexts, bits);
  return { name: text(v, "Name"), got: encodeHex(got), expected: text(v, "Result") };
}

function judgeKdfe(v: Vector): VectorVerdict {
  const bits = v["Bits"] ?? missing("Bits");
  const contexts = [bytes(v, "ContextU"), bytes(v, "ContextV")] as const;
  const hash = row(v["HashAlg"] ?? missing("HashAlg"));
  const got = kdfe(crypto, hash, bytes(v, "Z"), text(v, "Label"), ...contexts, bits);
  return { name: text(v, "Name"), got: encodeHex(got), expected: text(v, "Result") };
}

function judgeEccSeed(v: Vector): VectorVerdict | undefined {
  const area = areaOf(text(v, "PublicKey"));
  if (area?.type !== 0x0023 || v["Label"] !== "IDENTITY") return undefined;
  const curves = { "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1" };
  const ecdh = createECDH(curves[area.curve.name]);
  ecdh.setPrivateKey(bytes(v, "EphemeralPrivate"));
  const ephemeral = ecdh.getPublicKey();
  const size = area.curve.coordinateBytes;
  const z = ecdh.computeSecret(Buffer.concat([Buffer.of(4), area.unique.x, area.unique.y]));
  const x = ephemeral.subarray(1, 1 + size);
  const bits = area.nameAlg.digestBytes * 8;
  const seed = kdfe(crypto, area.nameAlg, z, "IDENTITY", x, area.unique.x, bits);
  const reader = new Reader(bytes(v, "Ciphertext"), "TPMS_ECC_POINT");
  const sent = encodeHex(reader.vec16("x", 0, 66));
  return {
    name: text(v, "Name"),
    got: `${encodeHex(seed)} ${encodeHex(x)}`,
    expected: `${text(v, "Secret")} ${sent}`,
  };
}

/** Ours opens with the reference's key, and the reference's with ours. */
function judgeRsaSeed(v: Vector): VectorVerdict | undefined {
  const area = areaOf(text(v, "PublicKey"));
  if (area?.type !== 0x0001) return undefined;
  // Part 1 B.4: an unrestricted key's own scheme names the hash, else it is the nameAlg.
  const oaepHash = area.scheme?.hashAlg?.name ?? area.nameAlg.name;
  const options = {
    key: rsaPrivateKey(area.unique, bytes(v, "PrivateKey")),
    padding: constants.RSA_PKCS1_OAEP_PADDING,
    oaepHash,
    oaepLabel: Buffer.from(`${text(v, "Label")}\0`),
  };
  const seed = privateDecrypt(options, bytes(v, "Ciphertext"));
  const ours = crypto.rsaOaepEncrypt(encodeSpki(area), oaepHash, options.oaepLabel, seed);
  const opened = privateDecrypt(options, ours as Uint8Array);
  const expected = text(v, "Secret");
  const got = `${seed.toString("hex")} ${opened.toString("hex")}`;
  return { name: text(v, "Name"), got, expected: `${expected} ${expected}` };
}

/** Vectors with keys that no EK profile has (SHA3, SM2, …) are not read. */
function areaOf(hex: string): ReturnType<typeof parseTpmtPublic> | undefined {
  try {
    return parseTpmtPublic(decodeHex(hex));
  } catch {
    return undefined;
  }
}

/** From TPMT_SENSITIVE: one prime of the modulus. */
function rsaPrivateKey(modulus: Uint8Array, sensitive: Uint8Array): KeyObject {
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
