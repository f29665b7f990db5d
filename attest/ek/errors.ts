/** The refusals of this folder. Messages never name a certificate: an EK identifies a device. */
import { StileError } from "../../wire/index.ts";

/** The EK certificate itself is malformed or breaks its profile. */
export function certificateInvalid(what: string, cause?: unknown): StileError {
  return new StileError("ATTEST_EK_CERTIFICATE_INVALID", `ek certificate: ${what}`, { cause });
}

/** No path of certificates that may issue leads to a root. */
export function chainUntrusted(what: string, cause?: unknown): StileError {
  return new StileError("ATTEST_EK_CHAIN_UNTRUSTED", `ek certificate chain: ${what}`, { cause });
}

/** Revocation data of the operator that cannot be used. */
export function revocationDataInvalid(what: string, cause?: unknown): StileError {
  return new StileError("ATTEST_REVOCATION_DATA_INVALID", `revocation data: ${what}`, { cause });
}

export function algorithmNotAllowed(what: string): StileError {
  return new StileError("ATTEST_ALGORITHM_NOT_ALLOWED", `ek certificate chain: ${what}`);
}
