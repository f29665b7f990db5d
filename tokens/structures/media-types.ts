/** Media types and paths of RFC 9578 §4, §8.3 and of draft-ietf-privacypass-batched-tokens. */

export const ISSUER_DIRECTORY_PATH = "/.well-known/private-token-issuer-directory";

export const MEDIA_TYPE_ISSUER_DIRECTORY = "application/private-token-issuer-directory";
export const MEDIA_TYPE_TOKEN_REQUEST = "application/private-token-request";
export const MEDIA_TYPE_TOKEN_RESPONSE = "application/private-token-response";
export const MEDIA_TYPE_GENERIC_BATCH_REQUEST = "application/private-token-generic-batch-request";
export const MEDIA_TYPE_GENERIC_BATCH_RESPONSE = "application/private-token-generic-batch-response";

export const MEDIA_TYPE_AMORTIZED_BATCH_REQUEST =
  "application/private-token-amortized-batch-request";
export const MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE =
  "application/private-token-amortized-batch-response";

/** The media types of an issuance request that are served here. */
export type IssuanceMediaType =
  | typeof MEDIA_TYPE_TOKEN_REQUEST
  | typeof MEDIA_TYPE_GENERIC_BATCH_REQUEST
  | typeof MEDIA_TYPE_AMORTIZED_BATCH_REQUEST;

export const ISSUANCE_MEDIA_TYPES: readonly IssuanceMediaType[] = [
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
];

/** Any other type is for the HTTP layer to refuse (415). */
export function isIssuanceMediaType(mediaType: string): mediaType is IssuanceMediaType {
  return ISSUANCE_MEDIA_TYPES.some((one) => one === mediaType);
}
