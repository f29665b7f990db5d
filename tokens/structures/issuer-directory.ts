/**
 * The issuer directory, RFC 9578 §4: JSON with the request URI and the token keys in order of
 * preference. Keys are base64url WITH padding; `not-before` is in Unix seconds. Unknown members are
 * ignored, and so is what an unknown token type puts into its key. Choosing a key is the client's work.
 */
import {
  decodeBase64Url,
  decodeUtf8,
  encodeBase64Url,
  encodeUtf8,
  StileError,
} from "../../wire/index.ts";
import type { ErrorCode } from "../../wire/index.ts";

export interface IssuerDirectoryKey {
  readonly tokenType: number;
  /** Encoded as its token type says; for 0x0002 the SubjectPublicKeyInfo. */
  readonly tokenKey: Uint8Array;
  /** Unix seconds from which on clients may use the key. */
  readonly notBefore?: number;
}

export interface IssuerDirectory {
  /** Absolute, or relative to the directory's own URL. */
  readonly issuerRequestUri: string;
  readonly tokenKeys: readonly IssuerDirectoryKey[];
}

/** Of a document whose honest size is below 5 KiB (8 keys of 456 letters). */
const MAX_DIRECTORY_BYTES = 65_536;
const MAX_DIRECTORY_KEYS = 64;
const MAX_URI_LENGTH = 2048;

/** @throws `WIRE_BAD_ENCODING`, `WIRE_VALUE_NOT_ALLOWED`, `WIRE_LENGTH_OUT_OF_BOUNDS` */
export function parseIssuerDirectory(bytes: Uint8Array): IssuerDirectory {
  if (bytes.length > MAX_DIRECTORY_BYTES) {
    throw malformed("WIRE_LENGTH_OUT_OF_BOUNDS", `expected at most ${MAX_DIRECTORY_BYTES} bytes`);
  }
  const document = record(parseJson(decodeUtf8(bytes, "issuer directory")), "issuer directory");
  const uri = document["issuer-request-uri"];
  if (typeof uri !== "string" || uri === "" || uri.length > MAX_URI_LENGTH) {
    throw malformed("WIRE_VALUE_NOT_ALLOWED", "issuer-request-uri: expected a URI reference");
  }
  const keys = document["token-keys"];
  if (!Array.isArray(keys)) {
    throw malformed("WIRE_VALUE_NOT_ALLOWED", "token-keys: expected an array");
  }
  if (keys.length > MAX_DIRECTORY_KEYS) {
    throw malformed("WIRE_LENGTH_OUT_OF_BOUNDS", `expected at most ${MAX_DIRECTORY_KEYS} keys`);
  }
  return { issuerRequestUri: uri, tokenKeys: keys.map(parseKey) };
}

/** Deterministic: the same directory gives the same bytes, to every client. */
export function encodeIssuerDirectory(directory: IssuerDirectory): Uint8Array<ArrayBuffer> {
  const keys = directory.tokenKeys.map((key) => ({
    "token-type": key.tokenType,
    "token-key": encodeBase64Url(key.tokenKey, "padded"),
    ...(key.notBefore === undefined ? {} : { "not-before": key.notBefore }),
  }));
  return encodeUtf8(
    JSON.stringify({ "issuer-request-uri": directory.issuerRequestUri, "token-keys": keys }),
  );
}

function parseKey(value: unknown): IssuerDirectoryKey {
  const key = record(value, "token-keys element");
  const tokenType = key["token-type"];
  if (!isCount(tokenType) || tokenType > 0xffff) {
    throw malformed("WIRE_VALUE_NOT_ALLOWED", "token-type: expected a 16-bit integer");
  }
  const text = key["token-key"];
  if (typeof text !== "string") {
    throw malformed("WIRE_VALUE_NOT_ALLOWED", "token-key: expected a string");
  }
  const tokenKey = decodeBase64Url(text, "token-key");
  const notBefore = key["not-before"];
  if (notBefore === undefined) return { tokenType, tokenKey };
  if (!isCount(notBefore)) {
    throw malformed("WIRE_VALUE_NOT_ALLOWED", "not-before: expected Unix seconds");
  }
  return { tokenType, tokenKey, notBefore };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function record(value: unknown, field: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw malformed("WIRE_VALUE_NOT_ALLOWED", `${field}: expected an object`);
  }
  return { ...value };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new StileError("WIRE_BAD_ENCODING", "issuer directory: expected JSON", { cause });
  }
}

function malformed(code: ErrorCode, message: string): StileError {
  return new StileError(code, message);
}
