/**
 * ExtendedTokenRequest, draft-ietf-privacypass-public-metadata-issuance (the wire format of
 * draft-hendrickson-privacypass-public-metadata-03): a TokenRequest with the metadata that is to be signed. The
 * response is a TokenResponse. No batch holds such requests: the drafts define none.
 */
import { Reader, Writer } from "../../wire/index.ts";
import { type Extensions, readExtensions } from "./extensions.ts";
import { encodeTokenRequest, readRequestOfType, type TokenRequest } from "./token-request.ts";
import { hasPublicMetadata } from "./token-types.ts";

/** Hostile in every part. */
export interface ExtendedTokenRequest {
  readonly request: TokenRequest;
  readonly extensions: Extensions;
}

/** @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` for a type without metadata */
export function parseExtendedTokenRequest(bytes: Uint8Array): ExtendedTokenRequest {
  const reader = new Reader(bytes, "ExtendedTokenRequest");
  // TokenRequest request;
  const request = readRequestOfType(reader, hasPublicMetadata);
  // Extensions extensions;
  const extensions = readExtensions(reader);
  reader.end();
  return { request, extensions };
}

/**
 * @param extensions encoded
 * @throws RangeError for a request of another type or length
 */
export function encodeExtendedTokenRequest(
  request: TokenRequest,
  extensions: Uint8Array,
): Uint8Array<ArrayBuffer> {
  if (!hasPublicMetadata(request.tokenType)) {
    throw new RangeError("token_type: expected a type with public metadata");
  }
  return new Writer().bytes(encodeTokenRequest(request)).bytes(extensions).finish();
}
