/**
 * From error codes to HTTP: the one place where a domain error becomes a status and a problem document
 * (RFC 9457). The table is exhaustive by its type; whatever is not a StileError is a bare 500.
 * A problem says what kind of thing went wrong and never repeats what the client sent.
 */
import { STATUS_CODES } from "node:http";
import { ERROR_CODES, type ErrorCode, isStileError, type StileError } from "../wire/index.ts";

/** Media type of problem documents. */
export const PROBLEM_MEDIA_TYPE = "application/problem+json";

/** Of every problem type. */
export const PROBLEM_PREFIX = "urn:stile:problem:";

export interface Problem {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: {
    /** Stable: `urn:stile:problem:` and the code in lower case with hyphens. */
    readonly type: string;
    readonly title: string;
    readonly status: number;
    readonly detail?: string;
  };
}

const INTERNAL = 500;

/** HTTP status of each code. Codes of the device side never reach a response: 500 if one did. */
const STATUS_OF: Readonly<Record<ErrorCode, number>> = {
  WIRE_TOO_SHORT: 400,
  WIRE_TRAILING_BYTES: 400,
  WIRE_LENGTH_OUT_OF_BOUNDS: 400,
  WIRE_VALUE_NOT_ALLOWED: 400,
  WIRE_BAD_ENCODING: 400,

  ATTEST_MESSAGE_INVALID: 400,
  ATTEST_STRUCTURE_INVALID: 400,
  ATTEST_ALGORITHM_NOT_ALLOWED: 403,
  ATTEST_EK_CERTIFICATE_INVALID: 403,
  ATTEST_EK_CHAIN_UNTRUSTED: 403,
  ATTEST_EK_CERTIFICATE_EXPIRED: 403,
  ATTEST_EK_KEY_MISMATCH: 403,
  ATTEST_EK_TEMPLATE_INVALID: 403,
  ATTEST_EK_REVOKED: 403,
  ATTEST_REVOCATION_UNKNOWN: 403,
  ATTEST_REVOCATION_DATA_INVALID: INTERNAL,
  ATTEST_ROOT_BUNDLE_INVALID: INTERNAL,
  ATTEST_KEY_WEAK: 403,
  ATTEST_FIRMWARE_REFUSED: 403,
  ATTEST_CREATION_MISMATCH: 403,
  ATTEST_CLOCK_WENT_BACK: 403,
  ATTEST_KEY_ATTRIBUTES_INVALID: 403,
  ATTEST_SESSION_UNKNOWN: 403,
  ATTEST_SESSION_LIMIT: 503,
  ATTEST_CREDENTIAL_MISMATCH: 403,
  ATTEST_SIGNATURE_INVALID: 403,
  ATTEST_MAGIC_MISMATCH: 403,
  ATTEST_TYPE_MISMATCH: 403,
  ATTEST_NONCE_MISMATCH: 403,
  ATTEST_PCR_SELECTION_MISMATCH: 403,
  ATTEST_PCR_DIGEST_MISMATCH: 403,
  ATTEST_NAME_MISMATCH: 403,
  ATTEST_POLICY_REFUSED: 403,
  ATTEST_EVENT_LOG_INVALID: 403,
  ATTEST_EVENT_LOG_MISMATCH: 403,
  ATTEST_RESULT_INVALID: 401,
  ATTEST_PROOF_INVALID: 401,
  ATTEST_DEVICE_REVOKED: 403,
  ATTEST_REGISTRY_UNAVAILABLE: 503,
  ATTEST_ALLOWANCE_EXCEEDED: 429,
  ATTEST_ALLOWANCE_UNAVAILABLE: 503,
  ATTEST_WEBAUTHN_CLIENT_DATA_INVALID: 400,
  ATTEST_WEBAUTHN_CHALLENGE_MISMATCH: 403,
  ATTEST_WEBAUTHN_ORIGIN_REFUSED: 403,
  ATTEST_WEBAUTHN_CBOR_INVALID: 400,
  ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID: 400,
  ATTEST_WEBAUTHN_USER_ABSENT: 403,
  ATTEST_WEBAUTHN_FORMAT_REFUSED: 403,
  ATTEST_WEBAUTHN_STATEMENT_INVALID: 400,
  ATTEST_WEBAUTHN_KEY_MISMATCH: 403,
  ATTEST_WEBAUTHN_CERTIFICATE_INVALID: 403,
  ATTEST_WEBAUTHN_CERTIFICATE_EXPIRED: 403,
  ATTEST_WEBAUTHN_CERTIFICATE_REVOKED: 403,
  ATTEST_WEBAUTHN_CHAIN_UNTRUSTED: 403,
  ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED: 403,
  ATTEST_WEBAUTHN_METADATA_INVALID: INTERNAL,
  ATTEST_WEBAUTHN_METADATA_STALE: 503,
  ATTEST_WEBAUTHN_COUNTER_INVALID: 403,
  ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN: 403,
  ATTEST_WEBAUTHN_CREDENTIAL_EXISTS: 403,
  ATTEST_WEBAUTHN_NETWORK_LIMIT: 429,
  ATTEST_WEBAUTHN_STORE_UNAVAILABLE: 503,
  ATTEST_TSS_BUSY: INTERNAL,
  ATTEST_TSS_MISSING: INTERNAL,
  ATTEST_TSS_FAILED: INTERNAL,
  ATTEST_AGENT_REFUSED: INTERNAL,

  TOKEN_TYPE_UNSUPPORTED: 422,
  TOKEN_KEY_UNKNOWN: 422,
  TOKEN_REQUEST_INVALID: 422,
  TOKEN_METADATA_REFUSED: 422,
  TOKEN_BATCH_REFUSED: 400,
  TOKEN_BATCH_TOO_LARGE: 422,
  TOKEN_ISSUER_BUSY: 503,
  TOKEN_CHALLENGE_INVALID: 401,
  TOKEN_CHALLENGE_MISMATCH: 401,
  TOKEN_AUTHENTICATOR_INVALID: 401,
  TOKEN_ALREADY_SPENT: 401,
  TOKEN_EXPIRED: 401,
  TOKEN_STORE_UNAVAILABLE: 503,
  TOKEN_KEY_STORE_INVALID: INTERNAL,
  TOKEN_ENGINE_MISSING: INTERNAL,
  TOKEN_ISSUER_UNAVAILABLE: 503,
  TOKEN_ATTESTER_REFUSED: 403,
  TOKEN_ATTESTER_QUOTA_EXCEEDED: 429,
  TOKEN_SIGNATURE_FAULT: INTERNAL,
  TOKEN_KEY_RING_INVALID: INTERNAL,
  TOKEN_KEY_ROTATION_REFUSED: 409,
  TOKEN_DIRECTORY_LOG_INVALID: INTERNAL,
  TOKEN_WALLET_DAMAGED: INTERNAL,
  TOKEN_WALLET_EMPTY: INTERNAL,
  TOKEN_WALLET_LOCKED: INTERNAL,
  TOKEN_ISSUANCE_REFUSED: INTERNAL,

  TLS_HEAD_REJECTED: 400,
  TLS_UPSTREAM_UNREACHABLE: 502,
  TLS_UPSTREAM_TIMEOUT: 504,
  TLS_UPSTREAM_BUSY: 503,
  TLS_CERTIFICATE_INVALID: INTERNAL,
  TLS_BODY_TOO_LARGE: 413,
  TLS_TICKET_KEYS_INVALID: INTERNAL,
  TLS_OCSP_INVALID: INTERNAL,

  SWTPM_FAILED: INTERNAL,

  SERVICE_CONFIG_INVALID: INTERNAL,
  SERVICE_REQUEST_INVALID: 400,
  SERVICE_MEDIA_TYPE_UNSUPPORTED: 415,
  SERVICE_NOT_ACCEPTABLE: 406,
  SERVICE_HOST_UNKNOWN: 421,
  SERVICE_PROXY_UNTRUSTED: 403,
  SERVICE_PATH_AMBIGUOUS: 400,
  SERVICE_REQUEST_BLOCKED: 403,
  SERVICE_NOT_FOUND: 404,
  SERVICE_METHOD_NOT_ALLOWED: 405,
  SERVICE_BODY_TOO_LARGE: 413,
  SERVICE_RATE_LIMITED: 429,
  SERVICE_OVERLOADED: 503,
  SERVICE_TOKEN_REQUIRED: 401,
};

/** Statuses that must carry Retry-After, and the seconds where the error does not know better. */
const RETRY_AFTER_SECONDS: Readonly<Record<number, number>> = { 429: 60, 503: 1 };

/** The status of a code. */
export function statusOf(code: ErrorCode): number {
  return STATUS_OF[code];
}

/** The stable `type` of a code's problem. */
export function problemType(code: ErrorCode): string {
  return `${PROBLEM_PREFIX}${code.toLowerCase().replaceAll("_", "-")}`;
}

/** The problem document of any thrown value. */
export function problemOf(error: unknown): Problem {
  if (!isStileError(error)) return bareProblem(INTERNAL);
  const status = STATUS_OF[error.code];
  if (status === INTERNAL) return bareProblem(INTERNAL);
  return {
    status,
    headers: retryAfter(status, error),
    body: {
      type: problemType(error.code),
      title: ERROR_CODES[error.code],
      status,
      detail: error.message,
    },
  };
}

/** A problem of which nothing is known but its status. */
export function bareProblem(status: number): Problem {
  const title = STATUS_CODES[status] ?? "error";
  return { status, headers: {}, body: { type: "about:blank", title, status } };
}

function retryAfter(status: number, error: StileError): Record<string, string> {
  const fallback = RETRY_AFTER_SECONDS[status];
  if (fallback === undefined) return {};
  return { "retry-after": String(Math.ceil(error.retryAfterSeconds ?? fallback)) };
}
