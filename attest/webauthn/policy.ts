/**
 * What an operator decides about authenticators: every weakening has a name and is off by default
 * (checklist F2, F5 to F8, D12). A policy judges only what has been verified.
 */
import { StileError } from "../../wire/index.ts";
import type { AuthenticatorFlags } from "./authenticator-data.ts";

/** Attestation statement formats of WebAuthn Level 3 §8 that are verified here. */
export const ATTESTATION_FORMATS = [
  "tpm",
  "packed",
  "android-key",
  "apple",
  "fido-u2f",
  "none",
] as const;

export type AttestationFormat = (typeof ATTESTATION_FORMATS)[number];

/** Where a key of Android Keystore lives: SecurityLevel of its attestation extension. */
export type AndroidSecurityLevel = "software" | "tee" | "strongbox";

/**
 * Uses of SHA-1 that a policy may name:
 * - `tpm-attestation`: the AIK's signature and extraData (RS1), as Windows makes them to this day. The
 *   signed structure is the TPM's own, so a collision has little to work with;
 * - `tpm-name`: the Name of the credential key;
 * - `credential-key`: RS1 in later assertions.
 */
export type Sha1Use = "tpm-attestation" | "tpm-name" | "credential-key";

export interface WebAuthnPolicy {
  /** Formats that are accepted at all. `none` says nothing of hardware. Default: all but `none`. */
  readonly formats: readonly AttestationFormat[];
  /** Default "required". "optional" admits ceremonies without a touch, as conditional creation has them. */
  readonly userPresence: "required" | "optional";
  /** Default "required". */
  readonly userVerification: "required" | "optional";
  /** Where SHA-1 is believed (D12). Default nowhere. */
  readonly acceptSha1: readonly Sha1Use[];
  /**
   * Formats whose certificate need not chain to an anchor where none is configured and FIDO does not list
   * the model (F7): whoever made it is unknown. Default none.
   */
  readonly acceptUnanchored: readonly AttestationFormat[];
  /** `packed` self attestation: signed with the credential key itself. Default false. */
  readonly acceptSelfAttestation: boolean;
  /** Lower-case UUIDs; undefined allows every model. An allow list needs an anchored attestation. */
  readonly allowedAaguids: readonly string[] | undefined;
  /** Default none. */
  readonly deniedAaguids: readonly string[];
  /** Whether the model must be in the FIDO metadata. Default "if-listed". */
  readonly metadata: "required" | "if-listed";
  /** Default `tee` and `strongbox`. */
  readonly androidSecurityLevels: readonly AndroidSecurityLevel[];
  /** Whether Android's revocation list must be there (A9). Default "required". */
  readonly androidRevocation: "required" | "if-given";
  /** `id:` and eight upper-case hexadecimal digits: vendors outside the TCG registry. Default none. */
  readonly unregisteredTpmVendors: readonly string[];
  /** What to do where a signature counter did not go up (F8). Default "refuse". */
  readonly counterRegression: "refuse" | "report";
}

/** The strictest policy that real platform authenticators pass. */
export const DEFAULT_WEBAUTHN_POLICY: WebAuthnPolicy = {
  formats: ["tpm", "packed", "android-key", "apple", "fido-u2f"],
  userPresence: "required",
  userVerification: "required",
  acceptSha1: [],
  acceptUnanchored: [],
  acceptSelfAttestation: false,
  allowedAaguids: undefined,
  deniedAaguids: [],
  metadata: "if-listed",
  androidSecurityLevels: ["tee", "strongbox"],
  androidRevocation: "required",
  unregisteredTpmVendors: [],
  counterRegression: "refuse",
};

/** @throws `ATTEST_WEBAUTHN_USER_ABSENT` */
export function checkUser(flags: AuthenticatorFlags, policy: WebAuthnPolicy): void {
  const isAbsent = policy.userPresence === "required" && !flags.userPresent;
  const isUnverified = policy.userVerification === "required" && !flags.userVerified;
  if (isAbsent || isUnverified) {
    const message = `authenticatorData.flags: expected ${isAbsent ? "UP" : "UV"}`;
    throw new StileError("ATTEST_WEBAUTHN_USER_ABSENT", message);
  }
}

/**
 * @param isAnchored without it the AAGUID is only what the authenticator claims, so no allow list admits it
 * @throws `ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED`
 */
export function checkAaguid(aaguid: string, isAnchored: boolean, policy: WebAuthnPolicy): void {
  const { allowedAaguids, deniedAaguids } = policy;
  const isAllowed = allowedAaguids === undefined || (isAnchored && allowedAaguids.includes(aaguid));
  if (!isAllowed || deniedAaguids.includes(aaguid)) {
    const message = "aaguid: the policy does not admit this authenticator model";
    throw new StileError("ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED", message);
  }
}

export function formatRefused(what: string): StileError {
  return new StileError("ATTEST_WEBAUTHN_FORMAT_REFUSED", `attestation: ${what}`);
}
