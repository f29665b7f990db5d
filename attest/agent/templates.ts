/**
 * Public-area templates for TPM2_CreatePrimary (TPM 2.0 Part 2 §12.2.4, as TPM2B_PUBLIC): the EK of
 * TCG EK Credential Profile v2.5 Annex B.3.3 (L-1, RSA-2048) and B.3.4 (L-2, P-256), the AK and the
 * device key. A primary is derived from the hierarchy's seed and its template, so the keys of a
 * device come back after every start and nothing has to be stored.
 */
import { decodeHex, encodeUtf8, isStileError } from "../../wire/index.ts";
import { checkEkPublic } from "../keys/ek-templates.ts";
import {
  curveRow,
  type CurveRow,
  hashRow,
  type HashRow,
  TPM_ALG_AES,
  TPM_ALG_CFB,
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSA,
  TPM_ALG_SHA256,
  TPM_ECC_NIST_P256,
  TPMA_OBJECT_ADMINWITHPOLICY,
  TPMA_OBJECT_DECRYPT,
  TPMA_OBJECT_FIXEDPARENT,
  TPMA_OBJECT_FIXEDTPM,
  TPMA_OBJECT_NODA,
  TPMA_OBJECT_RESTRICTED,
  TPMA_OBJECT_SENSITIVEDATAORIGIN,
  TPMA_OBJECT_SIGN_ENCRYPT,
  TPMA_OBJECT_USERWITHAUTH,
} from "../structures/constants.ts";
import { encodeTpm2bPublic, parseTpm2bPublic } from "../structures/public.ts";

export type EkAlgorithm = "rsa" | "ecc";

const SHA256: HashRow = known(hashRow(TPM_ALG_SHA256));
const P256: CurveRow = known(curveRow(TPM_ECC_NIST_P256));

const GENERATED_HERE =
  TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN;

/** What both EK templates have in common. */
const EK_COMMON = {
  nameAlg: SHA256,
  objectAttributes:
    GENERATED_HERE | TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT,
  // Annex B.2: PolicyA with SHA-256, that is PolicySecret(TPM_RH_ENDORSEMENT).
  authPolicy: decodeHex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"),
  symmetric: { algorithm: TPM_ALG_AES, keyBits: 128, mode: TPM_ALG_CFB },
  scheme: undefined,
} as const;

/**
 * The EK template: L-1 or L-2, with the EK nonce of NV in `unique` where the manufacturer left one
 * (Annex B.3.2).
 * @returns TPM2B_PUBLIC
 */
export function ekTemplate(
  algorithm: EkAlgorithm,
  nonce: Uint8Array = new Uint8Array(),
): Uint8Array {
  if (algorithm === "rsa") {
    const unique = padded(nonce, 256);
    // The exponent 0 stands for 65537.
    const parameters = { type: TPM_ALG_RSA, keyBits: 2048, exponent: 0 } as const;
    return encodeTpm2bPublic({ ...EK_COMMON, ...parameters, unique });
  }
  const unique = { x: padded(nonce, 32), y: new Uint8Array(32) };
  return encodeTpm2bPublic({ ...EK_COMMON, type: TPM_ALG_ECC, curve: P256, unique });
}

/** True when a public area (TPM2B_PUBLIC) is that of an EK of the default template. */
export function isDefaultEk(publicArea: Uint8Array, algorithm: EkAlgorithm): boolean {
  try {
    const area = parseTpm2bPublic(publicArea);
    // A high template has another policy, which this side does not satisfy.
    return checkEkPublic(area) === (algorithm === "rsa" ? "L-1" : "L-2");
  } catch (error) {
    // Other software keeps keys of kinds that no EK has at persistent handles.
    if (isStileError(error)) return false;
    throw error;
  }
}

/** The AK: an ECDSA P-256 key that signs only what the TPM itself made. @returns TPM2B_PUBLIC */
export function akTemplate(): Uint8Array {
  return signingTemplate(TPMA_OBJECT_RESTRICTED, "stile/1 attestation key");
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
  const common =
    GENERATED_HERE | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT;
  return encodeTpm2bPublic({
    type: TPM_ALG_ECC,
    nameAlg: SHA256,
    objectAttributes: common | attributes,
    authPolicy: new Uint8Array(),
    symmetric: undefined,
    scheme: { scheme: TPM_ALG_ECDSA, hashAlg: SHA256 },
    curve: P256,
    unique: { x: padded(encodeUtf8(label), 32), y: new Uint8Array(32) },
  });
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length);
  out.set(bytes);
  return out;
}

function known<T>(row: T | undefined): T {
  if (row === undefined) throw new TypeError("the algorithm tables lack SHA-256 or P-256");
  return row;
}
