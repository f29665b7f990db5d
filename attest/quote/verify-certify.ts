/**
 * Verification of a TPM2_Certify (checklist D, B; TPM 2.0 Library Part 3 §18.2): the AK vouches that an
 * object of this Name is loaded in its TPM. Signature first, then type, binding and Name.
 */
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { parseTpmsAttestCertify } from "../structures/attest.ts";
import { computeName } from "../structures/name.ts";
import type { TpmtPublic } from "../structures/public.ts";
import { checkQualifiedSigner } from "./qualified-signer.ts";
import { type SignedAttest, verifyAttestSignature } from "./signature.ts";

export interface CertifyCheck {
  /** The AK's public area; passed `checkAkPublic`. */
  readonly ak: TpmtPublic;
  readonly certify: SignedAttest;
  readonly extraData: Uint8Array;
  /** The public area of the certified object, as received; its attributes are the caller's to check. */
  readonly certified: TpmtPublic;
  /** Where the caller knows the AK's parent (D4). */
  readonly akQualifiedName?: Uint8Array;
  /** Where the caller knows the parent of the certified object. */
  readonly certifiedQualifiedName?: Uint8Array;
  readonly crypto: AttestCrypto;
}

/** An object that lives in the TPM of a verified AK. */
export interface VerifiedCertify {
  readonly kind: "verified-certify";
  readonly certified: TpmtPublic;
}

/**
 * @throws `ATTEST_SIGNATURE_INVALID`, `ATTEST_MAGIC_MISMATCH`, `ATTEST_TYPE_MISMATCH`,
 * `ATTEST_NONCE_MISMATCH`, `ATTEST_NAME_MISMATCH`, `WIRE_*`
 */
export async function verifyCertify(check: CertifyCheck): Promise<VerifiedCertify> {
  await verifyAttestSignature(check.ak, check.certify, check.crypto);
  const certify = parseTpmsAttestCertify(check.certify.attest);
  if (!constantTimeEqual(certify.extraData, check.extraData)) {
    throw new StileError("ATTEST_NONCE_MISMATCH", "certify.extraData: expected the binding value");
  }
  checkQualifiedSigner(certify.qualifiedSigner, check.akQualifiedName);
  if (!constantTimeEqual(certify.name, computeName(check.certified, check.crypto))) {
    throw new StileError("ATTEST_NAME_MISMATCH", "certify.name: is not that of the device key");
  }
  const expected = check.certifiedQualifiedName ?? certify.qualifiedName;
  if (!constantTimeEqual(certify.qualifiedName, expected)) {
    throw new StileError("ATTEST_NAME_MISMATCH", "certify.qualifiedName: the object is elsewhere");
  }
  return { kind: "verified-certify", certified: check.certified };
}
