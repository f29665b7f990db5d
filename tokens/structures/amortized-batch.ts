/**
 * The amortized batch of draft-ietf-privacypass-batched-tokens: many elements for one key of a private
 * token type, answered with one proof for all of them, so that a token costs half of what it costs alone.
 * The vectors are measured in bytes, by the shortest RFC 9000 §16 integer. It is issued whole or refused.
 */
import { Reader, StileError, Writer } from "../../wire/index.ts";
import type { BatchLimits } from "./generic-batch.ts";
import { tokenTypeEntry, type TokenTypeEntry } from "./token-types.ts";

/** A parsed request. The elements have their length and nothing more. */
export interface AmortizedBatchTokenRequest {
  readonly tokenType: number;
  /** Last byte of the token_key_id. */
  readonly truncatedTokenKeyId: number;
  /** One or more, each of the `blindedLength` of the type. */
  readonly blindedElements: readonly Uint8Array[];
}

/** A parsed response, unverified. */
export interface AmortizedBatchTokenResponse {
  readonly tokenType: number;
  /** One for each element of the request, in its order. */
  readonly evaluatedElements: readonly Uint8Array[];
  /** `proofLength` bytes. */
  readonly evaluatedProof: Uint8Array;
}

/** @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_BATCH_TOO_LARGE` */
export function parseAmortizedBatchTokenRequest(
  bytes: Uint8Array,
  limits: BatchLimits,
): AmortizedBatchTokenRequest {
  checkSize(bytes, limits);
  const reader = new Reader(bytes, "AmortizedBatchTokenRequest");
  // uint16_t token_type;
  const { tokenType, blindedLength } = privateType(reader.u16("token_type"));
  // uint8_t truncated_token_key_id;
  const truncatedTokenKeyId = reader.u8("truncated_token_key_id");
  // BlindedElement blinded_elements<V>;
  const blindedElements = readElements(reader, "blinded_elements", blindedLength, limits);
  reader.end();
  return { tokenType, truncatedTokenKeyId, blindedElements };
}

/** @throws RangeError for no element, or one of another length than the type has */
export function encodeAmortizedBatchTokenRequest(
  request: AmortizedBatchTokenRequest,
): Uint8Array<ArrayBuffer> {
  const elements = joined(request.blindedElements, privateType(request.tokenType));
  return new Writer()
    .u16(request.tokenType)
    .u8(request.truncatedTokenKeyId)
    .vecVarint(elements)
    .finish();
}

/** The type is that of the request. @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_BATCH_TOO_LARGE` */
export function parseAmortizedBatchTokenResponse(
  bytes: Uint8Array,
  tokenType: number,
  limits: BatchLimits,
): AmortizedBatchTokenResponse {
  checkSize(bytes, limits);
  const { blindedLength, proofLength } = privateType(tokenType);
  const reader = new Reader(bytes, "AmortizedBatchTokenResponse");
  // EvaluatedElement evaluated_elements<V>;
  const evaluatedElements = readElements(reader, "evaluated_elements", blindedLength, limits);
  // uint8_t evaluated_proof[Ns + Ns];
  const evaluatedProof = reader.bytes("evaluated_proof", proofLength);
  reader.end();
  return { tokenType, evaluatedElements, evaluatedProof };
}

/** @throws RangeError for no element, or a part of another length than the type has */
export function encodeAmortizedBatchTokenResponse(
  response: AmortizedBatchTokenResponse,
): Uint8Array<ArrayBuffer> {
  const entry = privateType(response.tokenType);
  if (response.evaluatedProof.length !== entry.proofLength) {
    throw new RangeError("evaluated_proof: expected Ns + Ns bytes");
  }
  const elements = joined(response.evaluatedElements, entry);
  return new Writer().vecVarint(elements).bytes(response.evaluatedProof).finish();
}

function readElements(
  reader: Reader,
  field: string,
  length: number,
  limits: BatchLimits,
): readonly Uint8Array[] {
  const bytes = reader.vecVarint(field, length, limits.maxBytes);
  if (bytes.length > limits.maxItems * length) {
    throw new StileError("TOKEN_BATCH_TOO_LARGE", `expected at most ${limits.maxItems} elements`);
  }
  const items = new Reader(bytes, field);
  const elements: Uint8Array[] = [];
  while (items.remaining > 0) elements.push(items.bytes("element", length));
  return elements;
}

function joined(elements: readonly Uint8Array[], entry: TokenTypeEntry): Uint8Array {
  if (elements.length === 0 || elements.some((one) => one.length !== entry.blindedLength)) {
    throw new RangeError("expected one or more elements of the token type");
  }
  const writer = new Writer();
  elements.forEach((element) => writer.bytes(element));
  return writer.finish();
}

function privateType(tokenType: number): TokenTypeEntry {
  const entry = tokenTypeEntry(tokenType);
  if (entry !== undefined && entry.proofLength > 0) return entry;
  throw new StileError("TOKEN_TYPE_UNSUPPORTED", "token_type: expected a private token type");
}

function checkSize(bytes: Uint8Array, limits: BatchLimits): void {
  if (bytes.length <= limits.maxBytes) return;
  throw new StileError("TOKEN_BATCH_TOO_LARGE", `expected at most ${limits.maxBytes} bytes`);
}
