/**
 * Issuance, RFC 9578 §5.2, §6.2 and the batches of draft-ietf-privacypass-batched-tokens: from the
 * body of a request to the body of a response. It knows nothing of who asks and charges no one;
 * `countTokenRequests` tells the attester what to charge before the issuer is asked.
 */
import { concatBytes } from "../../wire/index.ts";
import type { BlindSigner } from "../stores.ts";
import {
  encodeAmortizedBatchTokenResponse,
  parseAmortizedBatchTokenRequest,
} from "../structures/amortized-batch.ts";
import {
  encodeGenericBatchTokenResponse,
  parseGenericBatchTokenRequest,
} from "../structures/generic-batch.ts";
import {
  type IssuanceMediaType,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
} from "../structures/media-types.ts";
import { encodeTokenResponse } from "../structures/token-request.ts";
import { tokenTypeEntry } from "../structures/token-types.ts";
import {
  activeKeyFor,
  countIssuable,
  type IssuancePolicy,
  issuableSingle,
  noneIssuable,
  refusingMalformed,
  unknownMediaType,
} from "./examine.ts";
import { signBatch } from "./sign-batch.ts";

export interface IssuerOptions extends IssuancePolicy {
  readonly signer: BlindSigner;
  /** Most messages of one batch that are with the signer at a time, so that one batch cannot fill its queue. */
  readonly batchConcurrency: number;
}

export interface IssuanceResult {
  /** 206 when a generic batch was issued in part. */
  readonly status: 200 | 206;
  readonly mediaType:
    | typeof MEDIA_TYPE_TOKEN_RESPONSE
    | typeof MEDIA_TYPE_GENERIC_BATCH_RESPONSE
    | typeof MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE;
  readonly body: Uint8Array;
  /** How many tokens were issued, 1 or more. */
  readonly issued: number;
}

export interface Issuer {
  /**
   * How many tokens {@link issue} would give for this body now, 1 or more, by everything that can be
   * known without signing; what the signer finds out (an element that is none of the group) is not among it.
   * For charging before issuance, so that a refused request costs nothing.
   * @param body hostile
   * @throws as {@link issue} for a request that cannot be issued
   */
  examine(mediaType: IssuanceMediaType, body: Uint8Array): number;
  /**
   * @param body hostile
   * @throws `TOKEN_REQUEST_INVALID`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_KEY_UNKNOWN`,
   * `TOKEN_METADATA_REFUSED`, `TOKEN_BATCH_TOO_LARGE`: all of them 422 in HTTP
   * @throws `TOKEN_BATCH_REFUSED` for a generic batch of which nothing can be issued: 400
   * @throws `TOKEN_ISSUER_BUSY`, `TOKEN_SIGNATURE_FAULT` of the signer; nothing is then issued
   */
  issue(mediaType: IssuanceMediaType, body: Uint8Array): Promise<IssuanceResult>;
}

export function createIssuer(options: IssuerOptions): Issuer {
  const { keyRing, signer, limits, batchConcurrency } = options;
  if (!Number.isInteger(batchConcurrency) || batchConcurrency < 1) {
    throw new RangeError("batchConcurrency: expected 1 or more");
  }

  async function issueSingle(body: Uint8Array): Promise<IssuanceResult> {
    const { extensions, key, request } = issuableSingle(options, body);
    const { blindedMessage, tokenType } = request;
    const response = await signer.blindSign(key.tokenKeyId, blindedMessage, extensions?.encoded);
    const encoded = encodeTokenResponse({ tokenType, response });
    return { status: 200, mediaType: MEDIA_TYPE_TOKEN_RESPONSE, body: encoded, issued: 1 };
  }

  async function issueBatch(body: Uint8Array): Promise<IssuanceResult> {
    const requests = refusingMalformed(() => parseGenericBatchTokenRequest(body, limits));
    const responses = await signBatch(requests, { keyRing, signer, concurrency: batchConcurrency });
    const issued = responses.filter((response) => response !== undefined).length;
    if (issued === 0) throw noneIssuable();
    return {
      status: issued === requests.length ? 200 : 206,
      mediaType: MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
      body: encodeGenericBatchTokenResponse(responses),
      issued,
    };
  }

  return {
    examine: (mediaType, body) => countIssuable(options, mediaType, body),
    async issue(mediaType, body) {
      switch (mediaType) {
        case MEDIA_TYPE_TOKEN_REQUEST:
          return issueSingle(body);
        case MEDIA_TYPE_GENERIC_BATCH_REQUEST:
          return issueBatch(body);
        case MEDIA_TYPE_AMORTIZED_BATCH_REQUEST:
          return issueAmortized(options, body);
      }
      return unknownMediaType(mediaType);
    },
  };
}

/** The amortized batch: one key, one call of the signer, all or nothing. */
async function issueAmortized(options: IssuerOptions, body: Uint8Array): Promise<IssuanceResult> {
  const { keyRing, signer, limits } = options;
  const request = refusingMalformed(() => parseAmortizedBatchTokenRequest(body, limits));
  const { tokenType, blindedElements } = request;
  const key = activeKeyFor(keyRing, request);
  const response = await signer.blindSign(key.tokenKeyId, concatBytes(blindedElements));
  return {
    status: 200,
    mediaType: MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
    body: encodeAmortized(tokenType, response),
    issued: blindedElements.length,
  };
}

/** Cuts the signer's answer into elements and proof. */
function encodeAmortized(tokenType: number, response: Uint8Array): Uint8Array {
  const { blindedLength = 1, proofLength = 0 } = tokenTypeEntry(tokenType) ?? {};
  const proofAt = response.length - proofLength;
  const evaluatedElements: Uint8Array[] = [];
  for (let at = 0; at < proofAt; at += blindedLength) {
    evaluatedElements.push(response.subarray(at, at + blindedLength));
  }
  const evaluatedProof = response.subarray(proofAt);
  return encodeAmortizedBatchTokenResponse({ tokenType, evaluatedElements, evaluatedProof });
}
