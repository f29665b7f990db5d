/**
 * Algorithm identifiers, curves, structure tags and object attributes that the verifier knows.
 * TCG Algorithm Registry; TPM 2.0 Library Part 2 §6.3 (TPM_ALG_ID), §6.4 (TPM_ECC_CURVE),
 * §6.9 (TPM_ST), §8.3 (TPMA_OBJECT). What is not listed here is refused where it is read.
 */
export const TPM_ALG_RSA = 0x0001;
export const TPM_ALG_SHA1 = 0x0004;
export const TPM_ALG_AES = 0x0006;
export const TPM_ALG_SHA256 = 0x000b;
export const TPM_ALG_SHA384 = 0x000c;
export const TPM_ALG_SHA512 = 0x000d;
export const TPM_ALG_NULL = 0x0010;
export const TPM_ALG_RSASSA = 0x0014;
export const TPM_ALG_RSAES = 0x0015;
export const TPM_ALG_RSAPSS = 0x0016;
export const TPM_ALG_OAEP = 0x0017;
export const TPM_ALG_ECDSA = 0x0018;
export const TPM_ALG_ECDH = 0x0019;
export const TPM_ALG_ECC = 0x0023;
export const TPM_ALG_CFB = 0x0043;

export const TPM_ECC_NIST_P256 = 0x0003;
export const TPM_ECC_NIST_P384 = 0x0004;
export const TPM_ECC_NIST_P521 = 0x0005;

export const TPM_ST_ATTEST_CERTIFY = 0x8017;
export const TPM_ST_ATTEST_QUOTE = 0x8018;
export const TPM_ST_ATTEST_CREATION = 0x801a;

/** Part 2 §7.4 (TPM_RH): the Name of a hierarchy is its handle. */
export const TPM_RH_OWNER = 0x4000_0001;
export const TPM_RH_NULL = 0x4000_0007;
export const TPM_RH_ENDORSEMENT = 0x4000_000b;
export const TPM_RH_PLATFORM = 0x4000_000c;

/** Part 2 §6.2: "\xffTCG". No structure that a TPM signs for outside data begins with it. */
export const TPM_GENERATED_VALUE = 0xff54_4347;

export const TPMA_OBJECT_FIXEDTPM = 0x0000_0002;
export const TPMA_OBJECT_FIXEDPARENT = 0x0000_0010;
export const TPMA_OBJECT_SENSITIVEDATAORIGIN = 0x0000_0020;
export const TPMA_OBJECT_USERWITHAUTH = 0x0000_0040;
export const TPMA_OBJECT_ADMINWITHPOLICY = 0x0000_0080;
export const TPMA_OBJECT_NODA = 0x0000_0400;
export const TPMA_OBJECT_RESTRICTED = 0x0001_0000;
export const TPMA_OBJECT_DECRYPT = 0x0002_0000;
export const TPMA_OBJECT_SIGN_ENCRYPT = 0x0004_0000;

/** A hash by the name that Web Crypto and Node give it. */
export type HashName = "sha1" | "sha256" | "sha384" | "sha512";

export interface HashRow {
  readonly alg: number;
  readonly name: HashName;
  readonly digestBytes: number;
}

/** The hashes of the TCG registry that are read at all; policy decides which are believed. */
export const HASH_ROWS: readonly HashRow[] = [
  { alg: TPM_ALG_SHA1, name: "sha1", digestBytes: 20 },
  { alg: TPM_ALG_SHA256, name: "sha256", digestBytes: 32 },
  { alg: TPM_ALG_SHA384, name: "sha384", digestBytes: 48 },
  { alg: TPM_ALG_SHA512, name: "sha512", digestBytes: 64 },
];

/** The row of a TPM_ALG_ID, or undefined. */
export function hashRow(alg: number): HashRow | undefined {
  return HASH_ROWS.find((row) => row.alg === alg);
}

/** A curve by the name that Web Crypto gives it. */
export type CurveName = "P-256" | "P-384" | "P-521";

export interface CurveRow {
  readonly curveId: number;
  readonly name: CurveName;
  readonly coordinateBytes: number;
}

export const CURVE_ROWS: readonly CurveRow[] = [
  { curveId: TPM_ECC_NIST_P256, name: "P-256", coordinateBytes: 32 },
  { curveId: TPM_ECC_NIST_P384, name: "P-384", coordinateBytes: 48 },
  { curveId: TPM_ECC_NIST_P521, name: "P-521", coordinateBytes: 66 },
];

/** The row of a TPM_ECC_CURVE, or undefined. */
export function curveRow(curveId: number): CurveRow | undefined {
  return CURVE_ROWS.find((row) => row.curveId === curveId);
}
