/**
 * The client of the private token types, 0x0001 and 0x0005: blinds requests and finalises responses (RFC 9578 §5.1,
 * §5.3). Several tokens go as an amortized batch (draft-ietf-privacypass-batched-tokens) with one proof for all. The
 * proof says that they were made with the key that everyone has: an issuer that used another could follow them.
 * For origins that are their own issuer, which alone can verify such tokens. It sends nothing.
 */
import { concatBytes, StileError } from "../../wire/index.ts";
import {
  encodeAmortizedBatchTokenRequest,
  parseAmortizedBatchTokenResponse,
} from "../structures/amortized-batch.ts";
import { DEFAULT_BATCH_LIMITS } from "../structures/generic-batch.ts";
import {
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
} from "../structures/media-types.ts";
import { parseTokenChallenge } from "../structures/token-challenge.ts";
import { encodeTokenRequest, parseTokenResponse } from "../structures/token-request.ts";
import { NONCE_BYTES } from "../structures/token-types.ts";
import { encodeAuthenticatorInput } from "../structures/token.ts";
import { type BlindedInput, createVoprfClient, type VoprfClient } from "../voprf/client.ts";
import { isVoprfTokenType, type VoprfTokenType } from "../voprf/group.ts";
import { checkIssued, refusing } from "./refusals.ts";
import type {
  IssuanceResponse,
  PendingIssuance,
  TokenClient,
  TokenClientRequest,
} from "./token-client.ts";
import { sha256 } from "./token-index.ts";

export interface PrivateTokenClientOptions {
  readonly random: (length: number) => Uint8Array;
}

/** As `createTokenClient`, for the types that only their issuer verifies; without `extensions`. */
export function createPrivateTokenClient({ random }: PrivateTokenClientOptions): TokenClient {
  const engines = new Map<VoprfTokenType, VoprfClient>();

  /** Native where it can be: the first use of a type loads its library. */
  function engineOf(tokenType: VoprfTokenType): VoprfClient {
    const engine = engines.get(tokenType) ?? createVoprfClient(tokenType, "any");
    engines.set(tokenType, engine);
    return engine;
  }

  return {
    async request({ challenge, count, extensions, tokenKey }: TokenClientRequest) {
      if (!Number.isInteger(count) || count < 1 || count > DEFAULT_BATCH_LIMITS.maxItems) {
        throw new RangeError(`count: expected 1 to ${DEFAULT_BATCH_LIMITS.maxItems}`);
      }
      const tokenType = typeOf(challenge);
      const engine = engineOf(tokenType);
      if (extensions !== undefined || !engine.isElement(tokenKey)) {
        throw new StileError("TOKEN_CHALLENGE_INVALID", "token-key: expected a group element");
      }
      const issuerKey = Uint8Array.from(tokenKey);
      const tokenKeyId = sha256(issuerKey);
      const challengeDigest = sha256(challenge);
      const blinded = Array.from({ length: count }, () => {
        const nonce = random(NONCE_BYTES);
        const input = encodeAuthenticatorInput({ tokenType, nonce, challengeDigest, tokenKeyId });
        return engine.blind(input, engine.blindOf(random(engine.uniformLength)));
      });
      const truncatedTokenKeyId = tokenKeyId.at(-1) ?? 0;
      return pendingIssuance({ tokenType, engine, issuerKey, truncatedTokenKeyId, blinded });
    },
  };
}

interface Asked {
  readonly tokenType: VoprfTokenType;
  readonly engine: VoprfClient;
  readonly issuerKey: Uint8Array;
  readonly truncatedTokenKeyId: number;
  readonly blinded: readonly BlindedInput[];
}

function pendingIssuance(asked: Asked): PendingIssuance {
  const { blinded, tokenType, truncatedTokenKeyId } = asked;
  const [single, ...more] = blinded.map(({ blindedElement }) => blindedElement);
  const isBatch = single === undefined || more.length > 0;
  const body = isBatch
    ? encodeAmortizedBatchTokenRequest({
        tokenType,
        truncatedTokenKeyId,
        blindedElements: blinded.map(({ blindedElement }) => blindedElement),
      })
    : encodeTokenRequest({ tokenType, truncatedTokenKeyId, blindedMessage: single });
  const accept = isBatch ? MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE : MEDIA_TYPE_TOKEN_RESPONSE;
  return {
    mediaType: isBatch ? MEDIA_TYPE_AMORTIZED_BATCH_REQUEST : MEDIA_TYPE_TOKEN_REQUEST,
    accept,
    body,
    async finalize(response) {
      checkIssued(response, accept);
      return finalizeAll(asked, responseBytes(asked, response, isBatch));
    },
  };
}

/** The evaluated elements and the proof, end to end. @throws `WIRE_*`, `TOKEN_BATCH_TOO_LARGE` */
function responseBytes(
  { blinded, tokenType }: Asked,
  { body }: IssuanceResponse,
  isBatch: boolean,
): Uint8Array {
  if (!isBatch) return parseTokenResponse(body, tokenType).response;
  const { evaluatedElements, evaluatedProof } = parseAmortizedBatchTokenResponse(
    body,
    tokenType,
    DEFAULT_BATCH_LIMITS,
  );
  if (evaluatedElements.length !== blinded.length) {
    const message = `expected ${blinded.length} elements, got ${evaluatedElements.length}`;
    throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", message);
  }
  return concatBytes([...evaluatedElements, evaluatedProof]);
}

function finalizeAll(asked: Asked, response: Uint8Array): readonly Uint8Array[] {
  const { blinded, engine, issuerKey } = asked;
  const outputs = engine.finalize(issuerKey, blinded, response);
  if (outputs === undefined) {
    const message = "the proof does not hold under the token key";
    throw new StileError("TOKEN_AUTHENTICATOR_INVALID", message);
  }
  return blinded.map(({ input }, i) => concatBytes([input, outputs[i] ?? new Uint8Array()]));
}

/** @throws `TOKEN_CHALLENGE_INVALID` */
function typeOf(challenge: Uint8Array): VoprfTokenType {
  const { tokenType } = refusing(() => parseTokenChallenge(challenge));
  if (isVoprfTokenType(tokenType)) return tokenType;
  throw new StileError("TOKEN_CHALLENGE_INVALID", "token_type: expected a private token type");
}
