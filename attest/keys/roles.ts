/**
 * What the public areas of AK and device key must look like (checklist B1 to B5): attribute by attribute,
 * since a key with one attribute more or less is another kind of key. TPM 2.0 Library Part 2 §8.3.
 */
import { StileError } from "../../wire/index.ts";
import {
  type CurveName,
  type HashName,
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSA,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
  TPMA_OBJECT_ADMINWITHPOLICY,
  TPMA_OBJECT_FIXEDPARENT,
  TPMA_OBJECT_FIXEDTPM,
  TPMA_OBJECT_NODA,
  TPMA_OBJECT_RESTRICTED,
  TPMA_OBJECT_SENSITIVEDATAORIGIN,
  TPMA_OBJECT_SIGN_ENCRYPT,
  TPMA_OBJECT_USERWITHAUTH,
} from "../structures/constants.ts";
import { checkUnique, type TpmtPublic } from "../structures/public.ts";
import { hasDefaultExponent } from "./exponent.ts";
import { hasRocaFingerprint } from "./roca.ts";

/** Which algorithms are believed beyond the default; each is a named weakening. */
export interface AlgorithmPolicy {
  /** SHA-1 as nameAlg, in signatures and as a PCR bank. Default false (B3, D12). */
  readonly allowSha1: boolean;
}

/** Made in this TPM and unable to leave it. */
const GENERATED_HERE =
  TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN;

/** Attributes that say who may use a key, not what the key is: either value is fine on an AK. */
const USAGE_ATTRIBUTES = TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_NODA;

/** AK: signs only what the TPM itself made. */
const AK_ATTRIBUTES = GENERATED_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT;
/** Device key: signs outside data. */
const DEVICE_KEY_ATTRIBUTES = GENERATED_HERE | TPMA_OBJECT_SIGN_ENCRYPT;

/**
 * The AK public area is that of a restricted signing key (B1 to B5, A10).
 * @throws `ATTEST_KEY_ATTRIBUTES_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_STRUCTURE_INVALID`,
 * `ATTEST_KEY_WEAK`
 */
export function checkAkPublic(area: TpmtPublic, policy: AlgorithmPolicy): void {
  checkAttributes(area, AK_ATTRIBUTES, "AK");
  checkSigningKey(area, "AK", policy);
}

/** Signature algorithms of RFC 7518 §3.1 that a device key may be for. */
export type DeviceKeyAlgorithm = "ES256" | "ES384" | "PS256" | "RS256";

interface DeviceKeyRow {
  readonly scheme: number;
  readonly hash: HashName;
  /** Undefined: RSA. */
  readonly curve: CurveName | undefined;
}

const DEVICE_KEY_ROWS: Readonly<Record<DeviceKeyAlgorithm, DeviceKeyRow>> = {
  ES256: { scheme: TPM_ALG_ECDSA, hash: "sha256", curve: "P-256" },
  ES384: { scheme: TPM_ALG_ECDSA, hash: "sha384", curve: "P-384" },
  PS256: { scheme: TPM_ALG_RSAPSS, hash: "sha256", curve: undefined },
  RS256: { scheme: TPM_ALG_RSASSA, hash: "sha256", curve: undefined },
};

/**
 * The device key public area is that of an unrestricted signing key for one of the algorithms, with that
 * scheme or with none fixed (B1 to B5, D9, A10).
 * @param accepted in order of preference, for a key without a fixed scheme
 * @returns the algorithm that the key is for
 * @throws as {@link checkAkPublic}
 */
export function checkDeviceKeyPublic(
  area: TpmtPublic,
  accepted: readonly DeviceKeyAlgorithm[] = ["ES256"],
): DeviceKeyAlgorithm {
  checkAttributes(area, DEVICE_KEY_ATTRIBUTES, "device key");
  checkUnique(area);
  const algorithm = accepted.find((name) => isKeyOf(area, DEVICE_KEY_ROWS[name]));
  if (algorithm === undefined || area.nameAlg.name === "sha1" || area.symmetric !== undefined) {
    throw notAllowed(`device key: expected one for ${accepted.join(" or ")}`);
  }
  checkRsa(area, "device key");
  return algorithm;
}

function isKeyOf(area: TpmtPublic, row: DeviceKeyRow): boolean {
  const curve = area.type === TPM_ALG_ECC ? area.curve.name : undefined;
  const { scheme } = area;
  const fits =
    scheme === undefined || (scheme.scheme === row.scheme && scheme.hashAlg?.name === row.hash);
  return curve === row.curve && fits;
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
  if (area.type === TPM_ALG_ECC && area.curve.name === "P-521") {
    throw notAllowed(`${role}: expected P-256 or P-384`);
  }
  checkRsa(area, role);
}

function checkRsa(area: TpmtPublic, role: string): void {
  if (area.type !== TPM_ALG_RSA) return;
  if (area.keyBits < 2048 || !hasDefaultExponent(area.exponent)) {
    throw notAllowed(`${role}: expected RSA of 2048 bits or more with the exponent 65537`);
  }
  if (hasRocaFingerprint(area.unique)) {
    throw new StileError("ATTEST_KEY_WEAK", `${role}: of a generator that is known to be weak`);
  }
}

function notAllowed(message: string): StileError {
  return new StileError("ATTEST_ALGORITHM_NOT_ALLOWED", message);
}
