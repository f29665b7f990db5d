/** The refusals that several files of this folder share. No message names a key, a credential or a device. */
import { type ErrorCode, isStileError, StileError } from "../../wire/index.ts";

/** An attestation statement breaks a rule of its format. */
export function statementInvalid(what: string, cause?: unknown): StileError {
  return new StileError("ATTEST_WEBAUTHN_STATEMENT_INVALID", `attestation statement: ${what}`, {
    cause,
  });
}

export function certificateInvalid(what: string, cause?: unknown): StileError {
  const message = `attestation certificate: ${what}`;
  return new StileError("ATTEST_WEBAUTHN_CERTIFICATE_INVALID", message, { cause });
}

export function chainUntrusted(what: string): StileError {
  return new StileError("ATTEST_WEBAUTHN_CHAIN_UNTRUSTED", `attestation chain: ${what}`);
}

export function keyMismatch(): StileError {
  const message = "attestation: it is for another key than the credential's";
  return new StileError("ATTEST_WEBAUTHN_KEY_MISMATCH", message);
}

export function signatureInvalid(what: string): StileError {
  return new StileError("ATTEST_SIGNATURE_INVALID", `${what}: the signature does not verify`);
}

export function algorithmNotAllowed(what: string): StileError {
  return new StileError("ATTEST_ALGORITHM_NOT_ALLOWED", `webauthn: ${what}`);
}

const MALFORMED: ErrorCode = "ATTEST_EK_CERTIFICATE_INVALID";

/**
 * Runs a reader of `attest/ek`, whose X.509 and DER this folder shares, and gives its refusal the code
 * of this folder: an operator who counts refusals must not look for an EK.
 */
export function asAttestationCertificate<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!isStileError(error)) throw error;
    const what = error.message.replace(/^[a-z ]+: /, "");
    if (error.code === MALFORMED) throw certificateInvalid(what, error);
    if (error.code === "ATTEST_ALGORITHM_NOT_ALLOWED") throw algorithmNotAllowed(what);
    throw error;
  }
}
