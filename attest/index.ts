/**
 * The attestation verifier: TPM structures, EK certificates, credential activation, quotes, certified
 * keys, results. The binding to tpm2-tss is `attest/tss2/index.ts`, the device side
 * `attest/agent/index.ts`, the engine of Node `attest/node/index.ts`.
 */
export type { AttestCrypto, EcdhResult, SignatureCheck, SignatureScheme } from "./crypto.ts";
export { kdfa, kdfe } from "./credential/kdf.ts";
export {
  type MadeCredential,
  makeCredential,
  type MakeCredentialOptions,
} from "./credential/make-credential.ts";
export * from "./ek/index.ts";
export { type BindingInput, type BindingPurpose, evidenceBinding } from "./enrolment/binding.ts";
export * from "./enrolment/messages.ts";
export type { DeviceEntry, DeviceRecord, DeviceRegistry } from "./enrolment/device-registry.ts";
export { devicePseudonym } from "./enrolment/pseudonym.ts";
export {
  type AppraisedDevice,
  createTpmAttester,
  type TpmAttester,
  type TpmAttesterOptions,
} from "./enrolment/tpm-attester.ts";
export { checkEkPublic } from "./keys/ek-templates.ts";
export { type AlgorithmPolicy, checkAkPublic, checkDeviceKeyPublic } from "./keys/roles.ts";
export * from "./policy/index.ts";
export type { SignedAttest } from "./quote/signature.ts";
export { type CertifyCheck, type VerifiedCertify, verifyCertify } from "./quote/verify-certify.ts";
export {
  type PcrValue,
  type QuoteCheck,
  type VerifiedQuote,
  verifyQuote,
} from "./quote/verify-quote.ts";
export * from "./result/index.ts";
export {
  parseTpmsAttestCertify,
  parseTpmsAttestQuote,
  type TpmsAttestCertify,
  type TpmsAttestQuote,
  type TpmsClockInfo,
} from "./structures/attest.ts";
export * from "./structures/constants.ts";
export { computeName } from "./structures/name.ts";
export {
  encodeTpmlPcrSelection,
  parseTpmlPcrSelection,
  type TpmlPcrSelection,
  type TpmsPcrSelection,
} from "./structures/pcr-selection.ts";
export {
  encodeTpm2bPublic,
  encodeTpmtPublic,
  parseTpm2bPublic,
  parseTpmtPublic,
  type TpmtPublic,
  type TpmtPublicEcc,
  type TpmtPublicFields,
  type TpmtPublicRsa,
} from "./structures/public.ts";
export {
  encodeTpmtSignature,
  parseTpmtSignature,
  type TpmtSignature,
} from "./structures/signature.ts";
export { encodeSpki } from "./structures/spki.ts";
