/**
 * What the public area of each key of the chain must look like (checklist A11, B1 to B5): attribute by
 * attribute, since a key with one attribute more or less is another kind of key.
 * TPM 2.0 Library Part 2 §8.3; TCG EK Credential Profile v2.5 Annex B.
 */
import { constantTimeEqual, decodeHex, StileError } from "../../wire/index.ts";
import {
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSA,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
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
import { checkUnique, type TpmtPublic } from "../structures/public.ts";
import { DEFAULT_RSA_EXPONENT } from "../structures/spki.ts";
import { hasRocaFingerprint } from "./roca.ts";

/** Which algorithms are believed beyond the default; each is a named weakening. */
export interface AlgorithmPolicy {
  /** SHA-1 as nameAlg, in signatures and as a PCR bank. Default false (B3, D12). */
  readonly allowSha1: boolean;
}

/** Made in this TPM and unable to leave it. */
const GENERATED_HERE =
  TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN;

/** EK profile B.3: fixed; userWithAuth is clear in templates L-1 and L-2. */
const EK_ATTRIBUTES =
  GENERATED_HERE | TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT;
/** EK profile B.2: PolicyA with SHA-256, PolicySecret(TPM_RH_ENDORSEMENT). */
const EK_POLICY_A_SHA256: Uint8Array = decodeHex(
  "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
);
/** Attributes that say who may use a key, not what the key is: either value is fine on an AK. */
const USAGE_ATTRIBUTES = TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_NODA;

/** AK: signs only what the TPM itself made. */
const AK_ATTRIBUTES = GENERATED_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT;
/** Device key: signs outside data. */
const DEVICE_KEY_ATTRIBUTES = GENERATED_HERE | TPMA_OBJECT_SIGN_ENCRYPT;

/**
 * The EK public area is one of the default templates L-1 (RSA-2048) and L-2 (P-256) (A11).
 * @throws `ATTEST_EK_TEMPLATE_INVALID`, `ATTEST_STRUCTURE_INVALID`
 */
export function checkEkPublic(area: TpmtPublic): void {
  checkUnique(area);
  const isTemplate =
    area.nameAlg.name === "sha256" &&
    area.objectAttributes === EK_ATTRIBUTES &&
    constantTimeEqual(area.authPolicy, EK_POLICY_A_SHA256) &&
    area.symmetric?.keyBits === 128 &&
    area.scheme === undefined &&
    (area.type === TPM_ALG_RSA
      ? area.keyBits === 2048 && hasDefaultExponent(area.exponent)
      : area.curve.name === "P-256");
  if (!isTemplate) {
    const message = "EK public area: expected the TCG default template L-1 or L-2";
    throw new StileError("ATTEST_EK_TEMPLATE_INVALID", message);
  }
}

/**
 * The AK public area is that of a restricted signing key (B1 to B5, A10).
 * @throws `ATTEST_KEY_ATTRIBUTES_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_STRUCTURE_INVALID`,
 * `ATTEST_KEY_WEAK`
 */
export function checkAkPublic(area: TpmtPublic, policy: AlgorithmPolicy): void {
  checkAttributes(area, AK_ATTRIBUTES, "AK");
  checkSigningKey(area, "AK", policy);
}

/**
 * The device key public area is that of an unrestricted ES256 signing key: P-256 with ECDSA and SHA-256,
 * or with no fixed scheme (B1 to B5, D9).
 * @throws as {@link checkAkPublic}
 */
export function checkDeviceKeyPublic(area: TpmtPublic): void {
  checkAttributes(area, DEVICE_KEY_ATTRIBUTES, "device key");
  checkUnique(area);
  const { scheme } = area;
  const isEs256 =
    area.type === TPM_ALG_ECC &&
    area.curve.name === "P-256" &&
    area.nameAlg.name !== "sha1" &&
    (scheme === undefined ||
      (scheme.scheme === TPM_ALG_ECDSA && scheme.hashAlg?.name === "sha256"));
  if (!isEs256) throw notAllowed("device key: expected ECDSA P-256 with SHA-256");
}

function checkAttributes(area: TpmtPublic, required: number, role: string): void {
  // Every other bit must be clear: decrypt above all, and the reserved ones.
  if ((area.objectAttributes & ~USAGE_ATTRIBUTES) !== required) {
    const message = `${role} public area: expected exactly the attributes of its role`;
    throw new StileError("ATTEST_KEY_ATTRIBUTES_INVALID", message);
  }
}

function checkSigningKey(area: TpmtPublic, role: string, policy: AlgorithmPolicy): void {
  checkUnique(area);
  if (area.symmetric !== undefined) throw notAllowed(`${role}: expected no symmetric cipher`);
  const schemes: readonly number[] =
    area.type === TPM_ALG_RSA ? [TPM_ALG_RSASSA, TPM_ALG_RSAPSS] : [TPM_ALG_ECDSA];
  if (area.scheme === undefined || !schemes.includes(area.scheme.scheme)) {
    throw notAllowed(`${role}: expected a signing scheme`);
  }
  const isWeakHash = area.nameAlg.name === "sha1" || area.scheme.hashAlg?.name === "sha1";
  if (isWeakHash && !policy.allowSha1) throw notAllowed(`${role}: SHA-1 is not allowed`);
  if (area.type === TPM_ALG_RSA && hasRocaFingerprint(area.unique)) {
    throw new StileError("ATTEST_KEY_WEAK", `${role}: of a generator that is known to be weak`);
  }
  if (area.type === TPM_ALG_RSA && (area.keyBits < 2048 || !hasDefaultExponent(area.exponent))) {
    throw notAllowed(`${role}: expected RSA of 2048 bits or more with the exponent 65537`);
  }
}

function hasDefaultExponent(exponent: number): boolean {
  return exponent === 0 || exponent === DEFAULT_RSA_EXPONENT;
}

function notAllowed(message: string): StileError {
  return new StileError("ATTEST_ALGORITHM_NOT_ALLOWED", message);
}
