/** WebAuthn: registrations with their attestation, and assertions. */
export type { ClientData } from "./client-data.ts";
export { type MetadataBlob, type MetadataBlobOptions, parseMetadataBlob } from "./mds.ts";
export type { MetadataEntry } from "./mds-entries.ts";
export { parseAssertionResponse, parseRegistrationResponse } from "./messages.ts";
export {
  type AndroidSecurityLevel,
  ATTESTATION_FORMATS,
  type AttestationFormat,
  DEFAULT_WEBAUTHN_POLICY,
  type Sha1Use,
  type WebAuthnPolicy,
} from "./policy.ts";
export type { AttestationDetail } from "./statement.ts";
export {
  parseAndroidRevocationList,
  parseTrustAnchors,
  type TrustAnchors,
  type WebAuthnTrust,
} from "./trust.ts";
export {
  type AssertionCheck,
  type AssertionResponse,
  type VerifiedAssertion,
  verifyAssertion,
} from "./verify-assertion.ts";
export {
  type ExpectedCeremony,
  type ExpectedRegistration,
  type RegisteredCredential,
  type RegistrationCheck,
  type RegistrationResponse,
  type VerifiedRegistration,
  verifyRegistration,
} from "./verify-registration.ts";
export type { AttestationTrust } from "./verify-trust.ts";
