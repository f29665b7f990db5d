/**
 * TokenRequest and TokenResponse of one token, RFC 9578 §5.1, §5.2, §6.1, §6.2. All known types share
 * one frame: type, truncated key id, blinded message of the type's length. The elements themselves
 * (is this a point, is it below the modulus) are the signer's to check.
 */
import { Reader, StileError, Writer } from "../../wire/index.ts";
import { hasPublicMetadata, type TokenTypeEntry, tokenTypeEntry } from "./token-types.ts";

/** A parsed request. Hostile: the blinded message is whatever the client chose. */
export interface TokenRequest {
  readonly tokenType: number;
  /** Last byte of the token_key_id. */
  readonly truncatedTokenKeyId: number;
  /** `blindedLength` bytes of its type. */
  readonly blindedMessage: Uint8Array;
}

/** A parsed response: the evaluated message with its proof, or the blind signature, unverified. */
export interface TokenResponse {
  readonly tokenType: number;
  /** `responseLength` bytes of its type. */
  readonly response: Uint8Array;
}

/** @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` */
export function parseTokenRequest(bytes: Uint8Array): TokenRequest {
  const reader = new Reader(bytes, "TokenRequest");
  const request = readTokenRequest(reader);
  reader.end();
  return request;
}

/** Of a type without metadata: the others are ExtendedTokenRequests. @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` */
export function readTokenRequest(reader: Reader): TokenRequest {
  return readRequestOfType(reader, (tokenType) => !hasPublicMetadata(tokenType));
}

/** @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` */
export function readRequestOfType(
  reader: Reader,
  isExpected: (tokenType: number) => boolean,
): TokenRequest {
  // uint16_t token_type;
  const entry = knownType(reader.u16("token_type"));
  if (!isExpected(entry.tokenType)) throw unsupportedType();
  // uint8_t truncated_token_key_id;
  const truncatedTokenKeyId = reader.u8("truncated_token_key_id");
  // uint8_t blinded_msg[Ne or Nk];
  const blindedMessage = reader.bytes("blinded_msg", entry.blindedLength);
  return { tokenType: entry.tokenType, truncatedTokenKeyId, blindedMessage };
}

/** @throws RangeError for a message of another length than its type has */
export function encodeTokenRequest(request: TokenRequest): Uint8Array<ArrayBuffer> {
  if (request.blindedMessage.length !== tokenTypeEntry(request.tokenType)?.blindedLength) {
    throw new RangeError("blinded_msg: expected the length of a known token type");
  }
  return new Writer()
    .u16(request.tokenType)
    .u8(request.truncatedTokenKeyId)
    .bytes(request.blindedMessage)
    .finish();
}

/** A whole TokenResponse body; its type is that of the request. @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` */
export function parseTokenResponse(bytes: Uint8Array, tokenType: number): TokenResponse {
  const reader = new Reader(bytes, "TokenResponse");
  const response = readTokenResponse(reader, tokenType);
  reader.end();
  return response;
}

/** @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` */
export function readTokenResponse(reader: Reader, tokenType: number): TokenResponse {
  // uint8_t blind_sig[Nk];  or  evaluated_msg[Ne] and evaluated_proof[Ns + Ns]
  const response = reader.bytes("response", knownType(tokenType).responseLength);
  return { tokenType, response };
}

/** @throws RangeError for a response of another length than its type has */
export function encodeTokenResponse(response: TokenResponse): Uint8Array<ArrayBuffer> {
  if (response.response.length !== tokenTypeEntry(response.tokenType)?.responseLength) {
    throw new RangeError("response: expected the length of a known token type");
  }
  return Uint8Array.from(response.response);
}

function knownType(tokenType: number): TokenTypeEntry {
  const entry = tokenTypeEntry(tokenType);
  if (entry !== undefined) return entry;
  throw unsupportedType();
}

function unsupportedType(): StileError {
  return new StileError("TOKEN_TYPE_UNSUPPORTED", "token_type: expected a known token type");
}
