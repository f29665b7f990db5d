/** WebAuthn attestation of browsers: sessions, the binding to a device key, registered credentials. */
export {
  type CredentialStore,
  isCounterAccepted,
  type StoredCredential,
} from "./credential-store.ts";
export { type CeremonyOptions, parseCeremonyEvidence, parseCeremonyRequest } from "./messages.ts";
export {
  createWebAuthnAttester,
  type WebAuthnAttester,
  type WebAuthnAttesterOptions,
} from "./webauthn-attester.ts";
