/**
 * The generic batch of draft-ietf-privacypass-batched-tokens: token requests of any known type one
 * after the other, and a response for each that was issued. The vectors are measured in bytes, by the
 * shortest RFC 9000 §16 integer. A batch with a type whose length is not known cannot be cut into its
 * requests and is refused whole, as the draft asks (422).
 */
import { Reader, StileError, Writer } from "../../wire/index.ts";
import {
  encodeTokenRequest,
  encodeTokenResponse,
  readTokenRequest,
  readTokenResponse,
  type TokenRequest,
  type TokenResponse,
} from "./token-request.ts";

/** What one batch may hold; checked before any of it is worked on. */
export interface BatchLimits {
  /** Most requests in a batch, 1 or more. */
  readonly maxItems: number;
  /** Most bytes of the whole structure, with its length. */
  readonly maxBytes: number;
}

/** 100 as in the Rust `privacypass` crate; 100 type 0x0002 responses take 25,904 bytes. */
export const DEFAULT_BATCH_LIMITS: BatchLimits = { maxItems: 100, maxBytes: 32_768 };

/** The shortest request, of type 0x0005. */
const MIN_REQUEST_BYTES = 35;

/** @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_BATCH_TOO_LARGE` */
export function parseGenericBatchTokenRequest(
  bytes: Uint8Array,
  limits: BatchLimits,
): readonly TokenRequest[] {
  // TokenRequest token_requests<V>;
  const items = itemsOf(bytes, limits, "BatchTokenRequest", "token_requests", MIN_REQUEST_BYTES);
  const requests: TokenRequest[] = [];
  while (items.remaining > 0) {
    checkCount(requests.length + 1, limits);
    requests.push(readTokenRequest(items));
  }
  return requests;
}

export function encodeGenericBatchTokenRequest(
  requests: readonly TokenRequest[],
): Uint8Array<ArrayBuffer> {
  const items = new Writer();
  for (const request of requests) items.bytes(encodeTokenRequest(request));
  return new Writer().vecVarint(items.finish()).finish();
}

/**
 * One element per request, in order; `undefined` where the issuer refused that one.
 * @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_BATCH_TOO_LARGE`
 */
export function parseGenericBatchTokenResponse(
  bytes: Uint8Array,
  limits: BatchLimits,
): readonly (TokenResponse | undefined)[] {
  // OptionalTokenResponse optional_token_responses<V>;
  const items = itemsOf(bytes, limits, "GenericBatchTokenResponse", "token_responses", 1);
  const responses: (TokenResponse | undefined)[] = [];
  while (items.remaining > 0) {
    checkCount(responses.length + 1, limits);
    responses.push(readOptionalTokenResponse(items));
  }
  return responses;
}

export function encodeGenericBatchTokenResponse(
  responses: readonly (TokenResponse | undefined)[],
): Uint8Array<ArrayBuffer> {
  const items = new Writer();
  for (const response of responses) {
    if (response === undefined) items.u8(0);
    else items.u8(1).u16(response.tokenType).bytes(encodeTokenResponse(response));
  }
  return new Writer().vecVarint(items.finish()).finish();
}

function readOptionalTokenResponse(reader: Reader): TokenResponse | undefined {
  // uint8 present;
  const present = reader.u8("present");
  if (present === 0) return undefined;
  if (present !== 1) reader.fail("WIRE_VALUE_NOT_ALLOWED", "present", "expected 0 or 1", -1);
  // uint16_t token_type; TokenResponse
  return readTokenResponse(reader, reader.u16("token_type"));
}

/** A reader over the elements of a structure that is one vector. */
function itemsOf(
  bytes: Uint8Array,
  limits: BatchLimits,
  structure: string,
  field: string,
  minBytes: number,
): Reader {
  if (bytes.length > limits.maxBytes) {
    throw new StileError("TOKEN_BATCH_TOO_LARGE", `expected at most ${limits.maxBytes} bytes`);
  }
  const reader = new Reader(bytes, structure);
  const items = reader.vecVarint(field, minBytes, limits.maxBytes);
  reader.end();
  return new Reader(items, structure);
}

function checkCount(count: number, limits: BatchLimits): void {
  if (count <= limits.maxItems) return;
  throw new StileError("TOKEN_BATCH_TOO_LARGE", `expected at most ${limits.maxItems} requests`);
}
