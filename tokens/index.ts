/**
 * Privacy Pass (RFC 9576, 9577, 9578): structures, challenges, issuance, redemption and key life.
 * The engine of Node is `tokens/node/index.ts`, the client with its wallet `tokens/client/index.ts`.
 */
export type { TokenCrypto } from "./crypto.ts";
export type { BlindSigner, SpendOutcome, SpendRequest, SpentStore } from "./stores.ts";
export {
  type BatchLimits,
  DEFAULT_BATCH_LIMITS,
  encodeGenericBatchTokenRequest,
  encodeGenericBatchTokenResponse,
  parseGenericBatchTokenRequest,
  parseGenericBatchTokenResponse,
} from "./structures/generic-batch.ts";
export {
  encodeIssuerDirectory,
  type IssuerDirectory,
  type IssuerDirectoryKey,
  parseIssuerDirectory,
} from "./structures/issuer-directory.ts";
export {
  isIssuanceMediaType,
  ISSUER_DIRECTORY_PATH,
  type IssuanceMediaType,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  MEDIA_TYPE_ISSUER_DIRECTORY,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
} from "./structures/media-types.ts";
export { isOriginInfo, isServerName } from "./structures/server-name.ts";
export {
  encodeTokenChallenge,
  parseTokenChallenge,
  peekTokenType,
  type TokenChallenge,
  type TokenChallengeFields,
} from "./structures/token-challenge.ts";
export { encodeBlindRsaTokenKey, parseBlindRsaTokenKey } from "./structures/token-key.ts";
export {
  encodeTokenRequest,
  encodeTokenResponse,
  parseTokenRequest,
  parseTokenResponse,
  type TokenRequest,
  type TokenResponse,
} from "./structures/token-request.ts";
export {
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_VOPRF_P384,
  TOKEN_TYPE_VOPRF_RISTRETTO255,
  tokenTypeEntry,
  type TokenTypeEntry,
} from "./structures/token-types.ts";
export {
  type AuthenticatorInput,
  encodeAuthenticatorInput,
  encodeToken,
  parseAuthenticatorInput,
  parseToken,
  type Token,
} from "./structures/token.ts";
