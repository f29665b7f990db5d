/**
 * Where an AK is (checklist D4): its qualified Name, which the TPM puts into everything that the AK signs,
 * recomputed from the parents that the verifier knows. It decides what else of an attestation can be
 * believed: resetCount, restartCount and firmwareVersion are plain only where the AK is in the endorsement
 * or platform hierarchy, and blurred by a value of that AK's own elsewhere (Part 2 §10.12).
 */
import { constantTimeEqual, StileError, Writer } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import {
  TPM_RH_ENDORSEMENT,
  TPM_RH_NULL,
  TPM_RH_OWNER,
  TPM_RH_PLATFORM,
} from "../structures/constants.ts";
import { computeQualifiedName } from "../structures/name.ts";
import type { TpmtPublic } from "../structures/public.ts";

export type HierarchyName = "endorsement" | "owner" | "platform" | "null";

const HANDLES: Readonly<Record<HierarchyName, number>> = {
  endorsement: TPM_RH_ENDORSEMENT,
  owner: TPM_RH_OWNER,
  platform: TPM_RH_PLATFORM,
  null: TPM_RH_NULL,
};

/** The qualified Name of a hierarchy: its handle. */
export function hierarchyName(hierarchy: HierarchyName): Uint8Array {
  return new Writer().u32(HANDLES[hierarchy]).finish();
}

/** @throws `ATTEST_NAME_MISMATCH` unless the signer is the one expected; nothing is, where it is undefined */
export function checkQualifiedSigner(actual: Uint8Array, expected: Uint8Array | undefined): void {
  if (expected !== undefined && !constantTimeEqual(actual, expected)) {
    throw new StileError("ATTEST_NAME_MISMATCH", "qualifiedSigner: is not that of the AK's place");
  }
}

/**
 * The hierarchy of an AK that is a primary, or a child of the EK.
 * @param qualifiedSigner of an attestation whose signature has been verified
 * @param ek the verified EK; it is a primary of the endorsement hierarchy
 * @returns undefined where its parent is another key, which the verifier cannot know
 */
export function hierarchyOfSigner(
  ak: TpmtPublic,
  qualifiedSigner: Uint8Array,
  crypto: AttestCrypto,
  ek?: TpmtPublic,
): HierarchyName | undefined {
  if (ek !== undefined) {
    const parent = computeQualifiedName(ek, hierarchyName("endorsement"), crypto);
    const asChild = computeQualifiedName(ak, parent, crypto);
    if (constantTimeEqual(asChild, qualifiedSigner)) return "endorsement";
  }
  return (["endorsement", "owner", "platform", "null"] as const).find((hierarchy) =>
    constantTimeEqual(computeQualifiedName(ak, hierarchyName(hierarchy), crypto), qualifiedSigner),
  );
}
