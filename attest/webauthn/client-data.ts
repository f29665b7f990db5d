/**
 * clientDataJSON (WebAuthn Level 3 §5.8.1, §7.1 steps 5 to 12; checklist F1): what the browser says of
 * the ceremony. The authenticator signs its hash, so it is only as honest as the browser; unknown
 * members are allowed, as the specification wants, but no member twice.
 */
import { decode as decodeJson } from "cborg/json";
import {
  constantTimeEqual,
  decodeBase64Url,
  decodeUtf8,
  isStileError,
  StileError,
} from "../../wire/index.ts";

const MAX_CLIENT_DATA_BYTES = 4 * 1024;
/** §13.4.3. */
const MIN_CHALLENGE_BYTES = 16;

export interface ExpectedClientData {
  readonly type: "webauthn.create" | "webauthn.get";
  /** The bytes that were sent: 16 at least, fresh and used once, which is the caller's to see to. */
  readonly challenge: Uint8Array;
  /** Serialised origins, compared as they are. */
  readonly origins: readonly string[];
  /** Origins that may embed the relying party in a frame. Default: none, and no cross-origin use. */
  readonly topOrigins?: readonly string[];
}

export interface ClientData {
  readonly origin: string;
  readonly crossOrigin: boolean;
  readonly topOrigin: string | undefined;
}

/**
 * @throws `ATTEST_WEBAUTHN_CLIENT_DATA_INVALID`, `ATTEST_WEBAUTHN_CHALLENGE_MISMATCH`,
 * `ATTEST_WEBAUTHN_ORIGIN_REFUSED`, `WIRE_*`; RangeError for a challenge that is too short
 */
export function verifyClientData(bytes: Uint8Array, expected: ExpectedClientData): ClientData {
  if (expected.challenge.length < MIN_CHALLENGE_BYTES) {
    throw new RangeError(`challenge: ${MIN_CHALLENGE_BYTES} bytes at least`);
  }
  const members = parseObject(bytes);
  if (members["type"] !== expected.type) throw invalid("expected another ceremony");
  checkChallenge(members["challenge"], expected.challenge);
  return checkOrigin(members, expected);
}

function parseObject(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  if (bytes.length > MAX_CLIENT_DATA_BYTES) throw invalid("larger than the limit");
  const text = decodeUtf8(bytes, "clientDataJSON");
  let value: unknown;
  try {
    value = JSON.parse(text);
    // JSON.parse keeps the last of two members; the browser's own check may have seen the first.
    decodeJson(bytes, { rejectDuplicateMapKeys: true, useMaps: true });
  } catch (cause) {
    throw invalid("expected JSON without a member twice", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid("expected a JSON object");
  }
  return { ...value };
}

function checkChallenge(value: unknown, challenge: Uint8Array): void {
  if (typeof value !== "string") throw invalid("expected a challenge");
  if (!constantTimeEqual(decodeChallenge(value), challenge)) {
    const message = "clientDataJSON.challenge: expected the one that was sent";
    throw new StileError("ATTEST_WEBAUTHN_CHALLENGE_MISMATCH", message);
  }
}

/** The specification says base64url without padding; a second spelling has no honest source. */
function decodeChallenge(text: string): Uint8Array {
  try {
    if (!text.endsWith("=")) return decodeBase64Url(text, "challenge");
  } catch (cause) {
    if (isStileError(cause)) throw invalid("expected base64url in challenge", cause);
    throw cause;
  }
  throw invalid("expected base64url without padding in challenge");
}

function checkOrigin(
  members: Readonly<Record<string, unknown>>,
  expected: ExpectedClientData,
): ClientData {
  const { origin, crossOrigin = false, topOrigin } = members;
  if (typeof origin !== "string" || typeof crossOrigin !== "boolean") {
    throw invalid("expected an origin, and crossOrigin as a boolean");
  }
  if (topOrigin !== undefined && typeof topOrigin !== "string")
    throw invalid("malformed topOrigin");
  if (!expected.origins.includes(origin)) throw originRefused("origin");
  // §5.8.1: topOrigin is there exactly when the ceremony runs inside another site's page.
  if (topOrigin !== undefined && !crossOrigin) throw invalid("topOrigin without crossOrigin");
  if (
    crossOrigin &&
    (topOrigin === undefined || expected.topOrigins?.includes(topOrigin) !== true)
  ) {
    throw originRefused("topOrigin");
  }
  return { origin, crossOrigin, topOrigin };
}

function originRefused(field: string): StileError {
  const message = `clientDataJSON.${field}: expected an origin of the policy`;
  return new StileError("ATTEST_WEBAUTHN_ORIGIN_REFUSED", message);
}

function invalid(what: string, cause?: unknown): StileError {
  const message = `clientDataJSON: ${what}`;
  return new StileError("ATTEST_WEBAUTHN_CLIENT_DATA_INVALID", message, { cause });
}
