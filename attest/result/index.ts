/** Attestation results and the proof of possession that goes with them. */
export {
  type AttestationResultClaims,
  type AttestationResultSigner,
  type AttestationResultSignerOptions,
  type AttestationResultVerifier,
  type AttestationResultVerifierOptions,
  createAttestationResultSigner,
  createAttestationResultVerifier,
  type Es256PublicJwk,
  type VerifiedAttestationResult,
} from "./attestation-result.ts";
export {
  createDpopVerifier,
  type DpopCheck,
  type DpopVerifier,
  type DpopVerifierOptions,
  parseDpopAuthorization,
} from "./dpop.ts";
export type { TrustworthinessVector } from "./trustworthiness.ts";
