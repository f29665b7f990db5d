/**
 * What can be told of a request without signing: how many tokens it asks for, and how many of them this
 * issuer would give (RFC 9578 §5.2, §6.2). Malformed requests of every form get one answer.
 */
import { isStileError, StileError } from "../../wire/index.ts";
import type { IssuerKeyRecord } from "../keys/issuer-key-record.ts";
import type { KeyRing } from "../keys/key-ring.ts";
import { parseAmortizedBatchTokenRequest } from "../structures/amortized-batch.ts";
import { type BatchLimits, parseGenericBatchTokenRequest } from "../structures/generic-batch.ts";
import {
  type IssuanceMediaType,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_TOKEN_REQUEST,
} from "../structures/media-types.ts";
import type { MetadataPolicy } from "../metadata/expiration-policy.ts";
import {
  type ExtendedTokenRequest,
  parseExtendedTokenRequest,
} from "../structures/extended-token-request.ts";
import { peekTokenType } from "../structures/token-challenge.ts";
import { parseBlindRsaTokenKey } from "../structures/token-key.ts";
import { parseTokenRequest, type TokenRequest } from "../structures/token-request.ts";
import { hasPublicMetadata, isPrivateTokenType } from "../structures/token-types.ts";

/** What says whether a request can be issued. */
export interface IssuancePolicy {
  readonly keyRing: KeyRing;
  readonly limits: BatchLimits;
  /** Of type 0xDA7A; without it that type is not issued. */
  readonly metadataPolicy?: MetadataPolicy;
}

/** A request with its metadata, where its type has any. */
type SingleTokenRequest = Pick<ExtendedTokenRequest, "request"> & Partial<ExtendedTokenRequest>;

/**
 * How many tokens a body asks for, by the same strict parse as issuance.
 * @param body hostile
 * @param metadataPolicy of an attester that holds its clients to it; without it, metadata is the issuer's to judge
 * @throws `TOKEN_REQUEST_INVALID`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_BATCH_TOO_LARGE`, `TOKEN_METADATA_REFUSED`
 */
export function countTokenRequests(
  mediaType: IssuanceMediaType,
  body: Uint8Array,
  limits: BatchLimits,
  metadataPolicy?: MetadataPolicy,
): number {
  switch (mediaType) {
    case MEDIA_TYPE_TOKEN_REQUEST: {
      const { extensions } = parseSingle(body);
      if (extensions !== undefined) metadataPolicy?.checkRequested(extensions);
      return 1;
    }
    case MEDIA_TYPE_GENERIC_BATCH_REQUEST:
      return refusingMalformed(() => parseGenericBatchTokenRequest(body, limits)).length;
    case MEDIA_TYPE_AMORTIZED_BATCH_REQUEST:
      return refusingMalformed(() => parseAmortizedBatchTokenRequest(body, limits)).blindedElements
        .length;
  }
  return unknownMediaType(mediaType);
}

/**
 * The key for a request. RFC 9578 §6.2: token_type is supported; truncated_token_key_id is that of a key that
 * may sign; blinded_msg is a unit of its ring.
 * @throws `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_KEY_UNKNOWN`, `TOKEN_REQUEST_INVALID`
 */
export function issuanceKeyFor(keyRing: KeyRing, request: TokenRequest): IssuerKeyRecord {
  const key = activeKeyFor(keyRing, request);
  if (!isPrivateTokenType(request.tokenType)) checkBlindedMessage(key, request);
  return key;
}

/** The same of an amortized batch, of whose elements only the signer can tell whether they are sound. */
export function activeKeyFor(
  keyRing: KeyRing,
  request: Pick<TokenRequest, "tokenType" | "truncatedTokenKeyId">,
): IssuerKeyRecord {
  if (!keyRing.servesType(request.tokenType)) throw unservedType();
  const key = keyRing.issuanceKey(request.tokenType, request.truncatedTokenKeyId);
  if (key === undefined) {
    throw new StileError("TOKEN_KEY_UNKNOWN", "truncated_token_key_id: expected an active key");
  }
  return key;
}

/** @param body hostile. @throws `TOKEN_REQUEST_INVALID`, `TOKEN_TYPE_UNSUPPORTED` */
function parseSingle(body: Uint8Array): SingleTokenRequest {
  return refusingMalformed(() =>
    hasPublicMetadata(peekTokenType(body))
      ? parseExtendedTokenRequest(body)
      : { request: parseTokenRequest(body) },
  );
}

/**
 * A request that may be signed, and the key for it.
 * @param body hostile
 * @throws as {@link issuanceKeyFor}; `TOKEN_METADATA_REFUSED`
 */
export function issuableSingle(
  { keyRing, metadataPolicy }: IssuancePolicy,
  body: Uint8Array,
): SingleTokenRequest & { readonly key: IssuerKeyRecord } {
  const single = parseSingle(body);
  if (single.extensions !== undefined && metadataPolicy === undefined) throw unservedType();
  const key = issuanceKeyFor(keyRing, single.request);
  if (single.extensions !== undefined) metadataPolicy?.checkRequested(single.extensions);
  return { ...single, key };
}

/** `Issuer.examine`: what would be issued now, by everything that can be known without signing. */
export function countIssuable(
  policy: IssuancePolicy,
  mediaType: IssuanceMediaType,
  body: Uint8Array,
): number {
  const { keyRing, limits } = policy;
  switch (mediaType) {
    case MEDIA_TYPE_TOKEN_REQUEST:
      issuableSingle(policy, body);
      return 1;
    case MEDIA_TYPE_GENERIC_BATCH_REQUEST: {
      const requests = refusingMalformed(() => parseGenericBatchTokenRequest(body, limits));
      const issuable = requests.filter((request) => isIssuable(keyRing, request)).length;
      if (issuable === 0) throw noneIssuable();
      return issuable;
    }
    case MEDIA_TYPE_AMORTIZED_BATCH_REQUEST: {
      const request = refusingMalformed(() => parseAmortizedBatchTokenRequest(body, limits));
      activeKeyFor(keyRing, request);
      return request.blindedElements.length;
    }
  }
  return unknownMediaType(mediaType);
}

function isIssuable(keyRing: KeyRing, request: TokenRequest): boolean {
  const key = keyRing.issuanceKey(request.tokenType, request.truncatedTokenKeyId);
  if (key === undefined) return false;
  return isPrivateTokenType(request.tokenType) || isUnit(key, request.blindedMessage);
}

function checkBlindedMessage(key: IssuerKeyRecord, { blindedMessage }: TokenRequest): void {
  if (isUnit(key, blindedMessage)) return;
  throw new StileError("TOKEN_REQUEST_INVALID", "blinded_msg: expected 1 to the modulus less 1");
}

/** Public values only: both are known to whoever asks. */
function isUnit({ publicKeySpki }: IssuerKeyRecord, blindedMessage: Uint8Array): boolean {
  const modulus = parseBlindRsaTokenKey(publicKeySpki);
  const at = modulus.findIndex((byte, i) => byte !== blindedMessage[i]);
  const isBelow = at >= 0 && (blindedMessage[at] ?? 0) < (modulus[at] ?? 0);
  return isBelow && blindedMessage.some((byte) => byte !== 0);
}

/** draft-ietf-privacypass-batched-tokens: "it MUST return an HTTP 400". */
export function noneIssuable(): StileError {
  return new StileError("TOKEN_BATCH_REFUSED", "no request of the batch can be issued");
}

/** RFC 9578 knows one answer to a malformed request, and so do we. */
export function refusingMalformed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (!isStileError(cause) || !cause.code.startsWith("WIRE_")) throw cause;
    throw new StileError("TOKEN_REQUEST_INVALID", cause.message, { cause });
  }
}

function unservedType(): StileError {
  return new StileError("TOKEN_TYPE_UNSUPPORTED", "token_type: expected a type of this issuer");
}

export function unknownMediaType(mediaType: never): never {
  throw new TypeError(`expected a media type of issuance, got ${String(mediaType)}`);
}
