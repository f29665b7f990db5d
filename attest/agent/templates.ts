/**
 * Public-area templates for TPM2_CreatePrimary (TPM 2.0 Part 2 §12.2.4, as TPM2B_PUBLIC): the EK of
 * TCG EK Credential Profile v2.5 Annex B.3.3 (L-1, RSA-2048) and B.3.4 (L-2, P-256), the AK and the
 * device key. A primary is derived from the hierarchy's seed and its template, so the keys of a
 * device come back after every start and nothing has to be stored.
 */
import { decodeHex, encodeUtf8, Reader, Writer } from "../../wire/index.ts";

export type EkAlgorithm = "rsa" | "ecc";

const TPM_ALG_RSA = 0x0001;
const TPM_ALG_AES = 0x0006;
const TPM_ALG_SHA256 = 0x000b;
const TPM_ALG_NULL = 0x0010;
const TPM_ALG_ECDSA = 0x0018;
const TPM_ALG_ECC = 0x0023;
const TPM_ALG_CFB = 0x0043;
const TPM_ECC_NIST_P256 = 0x0003;

/** TPMA_OBJECT bits (Part 2 §8.3). */
const TPMA_OBJECT = {
  fixedTPM: 0x0000_0002,
  fixedParent: 0x0000_0010,
  sensitiveDataOrigin: 0x0000_0020,
  userWithAuth: 0x0000_0040,
  adminWithPolicy: 0x0000_0080,
  noDA: 0x0000_0400,
  restricted: 0x0001_0000,
  decrypt: 0x0002_0000,
  sign: 0x0004_0000,
} as const;

const GENERATED_HERE =
  TPMA_OBJECT.fixedTPM | TPMA_OBJECT.fixedParent | TPMA_OBJECT.sensitiveDataOrigin;
/** Annex B.2: PolicyA with SHA-256, that is PolicySecret(TPM_RH_ENDORSEMENT). */
const EK_POLICY = decodeHex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa");

/**
 * The EK template: L-1 or L-2, with the EK nonce of NV in `unique` where the manufacturer left one
 * (profile Annex B.3.2).
 * @returns TPM2B_PUBLIC
 */
export function ekTemplate(
  algorithm: EkAlgorithm,
  nonce: Uint8Array = new Uint8Array(),
): Uint8Array {
  const size = algorithm === "rsa" ? 256 : 32;
  if (nonce.length > size) throw new RangeError("the EK nonce is longer than the unique field");
  const unique = new Uint8Array(size);
  unique.set(nonce);
  const writer = ekPrefix(algorithm).vec16(unique);
  if (algorithm === "ecc") writer.vec16(new Uint8Array(size));
  return tpm2b(writer);
}

/** The EK template up to `unique`: what every EK of this template has in common. */
function ekPrefix(algorithm: EkAlgorithm): Writer {
  const attributes =
    GENERATED_HERE | TPMA_OBJECT.adminWithPolicy | TPMA_OBJECT.restricted | TPMA_OBJECT.decrypt;
  const writer = new Writer()
    .u16(algorithm === "rsa" ? TPM_ALG_RSA : TPM_ALG_ECC)
    .u16(TPM_ALG_SHA256)
    .u32(attributes)
    .vec16(EK_POLICY)
    .u16(TPM_ALG_AES)
    .u16(128)
    .u16(TPM_ALG_CFB)
    .u16(TPM_ALG_NULL);
  // The exponent 0 stands for 65537.
  return algorithm === "rsa"
    ? writer.u16(2048).u32(0)
    : writer.u16(TPM_ECC_NIST_P256).u16(TPM_ALG_NULL);
}

/** True when a public area (TPM2B_PUBLIC) equals the default EK template but for `unique`. */
export function isDefaultEk(publicArea: Uint8Array, algorithm: EkAlgorithm): boolean {
  const prefix = ekPrefix(algorithm).finish();
  const area = new Reader(publicArea, "TPM2B_PUBLIC").vec16("publicArea", 0, 0xffff);
  return prefix.every((byte, i) => area[i] === byte);
}

/** The AK: an ECDSA P-256 key that signs only what the TPM itself made. @returns TPM2B_PUBLIC */
export function akTemplate(): Uint8Array {
  return signingTemplate(TPMA_OBJECT.restricted, "stile/1 attestation key");
}

/** The device key: ES256 over outside data, for DPoP and for JWS. @returns TPM2B_PUBLIC */
export function deviceKeyTemplate(): Uint8Array {
  return signingTemplate(0, "stile/1 device key");
}

/**
 * @param label put into `unique`, so that the key is another one than any program gets that uses the
 * same parameters; 32 bytes at most, as long as a coordinate
 */
function signingTemplate(attributes: number, label: string): Uint8Array {
  const unique = new Uint8Array(32);
  unique.set(encodeUtf8(label));
  const common = GENERATED_HERE | TPMA_OBJECT.userWithAuth | TPMA_OBJECT.noDA | TPMA_OBJECT.sign;
  return tpm2b(
    new Writer()
      .u16(TPM_ALG_ECC)
      .u16(TPM_ALG_SHA256)
      .u32(common | attributes)
      .vec16(new Uint8Array())
      .u16(TPM_ALG_NULL)
      .u16(TPM_ALG_ECDSA)
      .u16(TPM_ALG_SHA256)
      .u16(TPM_ECC_NIST_P256)
      .u16(TPM_ALG_NULL)
      .vec16(unique)
      .vec16(new Uint8Array(32)),
  );
}

function tpm2b(writer: Writer): Uint8Array {
  return new Writer().vec16(writer.finish()).finish();
}
