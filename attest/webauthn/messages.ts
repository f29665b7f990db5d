/**
 * RegistrationResponseJSON and AuthenticationResponseJSON (WebAuthn Level 3 §5.1, `toJSON()`): the JSON
 * in which a page sends what the browser gave it. Only the form is judged here. Members that repeat
 * what the signed bytes say (`publicKey`, `authenticatorData` of a registration) are not looked at.
 */
import { constantTimeEqual, decodeBase64Url, isStileError, StileError } from "../../wire/index.ts";
import type { AssertionResponse } from "./verify-assertion.ts";
import type { RegistrationResponse } from "./verify-registration.ts";

/** The verifiers have caps of their own, which are lower. */
const MAX_MEMBER_CHARACTERS = 64 * 1024;

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseRegistrationResponse(json: unknown): RegistrationResponse {
  const { rawId, response } = parseCredential(json);
  return {
    rawId,
    clientDataJSON: bytesMember(response, "clientDataJSON"),
    attestationObject: bytesMember(response, "attestationObject"),
  };
}

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseAssertionResponse(json: unknown): AssertionResponse {
  const { rawId, response } = parseCredential(json);
  return {
    rawId,
    clientDataJSON: bytesMember(response, "clientDataJSON"),
    authenticatorData: bytesMember(response, "authenticatorData"),
    signature: bytesMember(response, "signature"),
  };
}

type Members = Readonly<Record<string, unknown>>;

function parseCredential(json: unknown): { rawId: Uint8Array; response: Members } {
  const members = membersOf(json, "credential");
  if (members["type"] !== "public-key") throw invalid("expected type public-key");
  const rawId = bytesMember(members, "rawId");
  // §5.1: id is rawId in base64url; a difference would let two readers see two credentials.
  if (!constantTimeEqual(bytesMember(members, "id"), rawId)) throw invalid("id is not rawId");
  return { rawId, response: membersOf(members["response"], "response") };
}

function membersOf(value: unknown, name: string): Members {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw invalid(`expected ${name} as an object`);
}

function bytesMember(members: Members, name: string): Uint8Array {
  const value = members[name];
  if (typeof value !== "string" || value.endsWith("=") || value.length > MAX_MEMBER_CHARACTERS) {
    throw invalid(`expected ${name} as base64url`);
  }
  try {
    return decodeBase64Url(value, name);
  } catch (cause) {
    if (isStileError(cause)) throw invalid(`expected ${name} as base64url`, cause);
    throw cause;
  }
}

function invalid(what: string, cause?: unknown): StileError {
  return new StileError("ATTEST_MESSAGE_INVALID", `webauthn credential: ${what}`, { cause });
}
