/**
 * Verification of a TPM2_CertifyCreation (checklist D; TPM 2.0 Library Part 3 §18.3): the AK vouches that
 * its TPM made an object of this Name under these circumstances, not only that the object is loaded there.
 * Signature first, then type, binding, Name, and the digest of the creation data before it is read.
 */
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { parseTpmsAttestCreation } from "../structures/attest.ts";
import { parseTpmsCreationData, type TpmsCreationData } from "../structures/creation-data.ts";
import { computeName, computeQualifiedName } from "../structures/name.ts";
import type { TpmtPublic } from "../structures/public.ts";
import { checkQualifiedSigner } from "./qualified-signer.ts";
import { type SignedAttest, verifyAttestSignature } from "./signature.ts";

export interface CreationCheck {
  /** The AK's public area; passed `checkAkPublic`. */
  readonly ak: TpmtPublic;
  readonly creation: SignedAttest;
  readonly extraData: Uint8Array;
  /** The public area of the created object, as received; its attributes are the caller's to check. */
  readonly created: TpmtPublic;
  /** TPMS_CREATION_DATA. Hostile. */
  readonly creationData: Uint8Array;
  /** Where the caller knows the parent that the object must have. */
  readonly parent?: TpmtPublic;
  /** Where the caller knows the AK's parent (D4). */
  readonly akQualifiedName?: Uint8Array;
  readonly crypto: AttestCrypto;
}

/** An object that the TPM of a verified AK made. */
export interface VerifiedCreation {
  readonly kind: "verified-creation";
  readonly created: TpmtPublic;
  /** The TPM's own record, but for `outsideInfo`. */
  readonly creationData: TpmsCreationData;
  /** Of the object, by the parent of the record. */
  readonly qualifiedName: Uint8Array;
}

/** TPMS_CREATION_DATA with the largest digests and names is under 400 bytes. */
const MAX_CREATION_DATA_BYTES = 512;

/**
 * @throws `ATTEST_SIGNATURE_INVALID`, `ATTEST_MAGIC_MISMATCH`, `ATTEST_TYPE_MISMATCH`,
 * `ATTEST_NONCE_MISMATCH`, `ATTEST_NAME_MISMATCH`, `ATTEST_CREATION_MISMATCH`, `WIRE_*`
 */
export async function verifyCreation(check: CreationCheck): Promise<VerifiedCreation> {
  const { created, crypto } = check;
  if (check.creationData.length > MAX_CREATION_DATA_BYTES) {
    throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", "creationData: larger than a TPM makes it");
  }
  await verifyAttestSignature(check.ak, check.creation, crypto);
  const creation = parseTpmsAttestCreation(check.creation.attest);
  if (!constantTimeEqual(creation.extraData, check.extraData)) {
    throw new StileError("ATTEST_NONCE_MISMATCH", "creation.extraData: expected the binding value");
  }
  checkQualifiedSigner(creation.qualifiedSigner, check.akQualifiedName);
  if (!constantTimeEqual(creation.objectName, computeName(created, crypto))) {
    throw new StileError("ATTEST_NAME_MISMATCH", "creation.objectName: is not that of the object");
  }
  // Part 3 §18.3: with the nameAlg of the object.
  const digest = crypto.hash(created.nameAlg.name, check.creationData);
  if (!constantTimeEqual(creation.creationHash, digest)) throw mismatch("is not of this data");
  const creationData = parseTpmsCreationData(check.creationData);
  if (check.parent !== undefined) checkParent(creationData, check.parent, crypto);
  const qualifiedName = computeQualifiedName(created, creationData.parentQualifiedName, crypto);
  return { kind: "verified-creation", created, creationData, qualifiedName };
}

function checkParent(data: TpmsCreationData, parent: TpmtPublic, crypto: AttestCrypto): void {
  const isParent = constantTimeEqual(data.parentName, computeName(parent, crypto));
  if (!isParent) throw mismatch("has another parent");
}

function mismatch(what: string): StileError {
  return new StileError("ATTEST_CREATION_MISMATCH", `creation data: ${what}`);
}
