/**
 * Privacy Pass (RFC 9576, 9577, 9578): structures, challenges, issuance, redemption and key life.
 * The engine of Node is `tokens/node/index.ts`, the client with its wallet `tokens/client/index.ts`.
 */
export type { TokenCrypto } from "./crypto.ts";
export type {
  BlindSigner,
  PrivateTokenVerifier,
  SpendOutcome,
  SpendRequest,
  SpentStore,
} from "./stores.ts";
export {
  type AmortizedBatchTokenRequest,
  type AmortizedBatchTokenResponse,
  encodeAmortizedBatchTokenRequest,
  encodeAmortizedBatchTokenResponse,
  parseAmortizedBatchTokenRequest,
  parseAmortizedBatchTokenResponse,
} from "./structures/amortized-batch.ts";
export {
  type BatchLimits,
  DEFAULT_BATCH_LIMITS,
  encodeGenericBatchTokenRequest,
  encodeGenericBatchTokenResponse,
  parseGenericBatchTokenRequest,
  parseGenericBatchTokenResponse,
} from "./structures/generic-batch.ts";
export {
  EXTENSION_TYPE_EXPIRATION,
  expirationExtension,
  type ExpirationTimestamp,
  parseExpirationTimestamp,
} from "./structures/expiration.ts";
export {
  encodeExtensionSet,
  type ExtensionEntry,
  parseExtensionSet,
} from "./structures/extension-set.ts";
export {
  encodeExtendedTokenRequest,
  type ExtendedTokenRequest,
  parseExtendedTokenRequest,
} from "./structures/extended-token-request.ts";
export {
  encodeExtensions,
  type Extension,
  type Extensions,
  parseExtensions,
} from "./structures/extensions.ts";
export {
  encodeIssuerDirectory,
  type IssuerDirectory,
  type IssuerDirectoryKey,
  parseIssuerDirectory,
} from "./structures/issuer-directory.ts";
export {
  isIssuanceMediaType,
  ISSUANCE_MEDIA_TYPES,
  ISSUER_DIRECTORY_PATH,
  type IssuanceMediaType,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
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
  hasPublicMetadata,
  isPrivateTokenType,
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_PARTIALLY_BLIND_RSA,
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
export {
  type Challenger,
  type ChallengerOptions,
  type ChallengeScope,
  createChallenger,
} from "./challenge/challenger.ts";
export { type AuthItem, MAX_AUTH_HEADER_LENGTH, parseAuthItems } from "./challenge/http-auth.ts";
export { GREASED_TOKEN_TYPES, withGrease } from "./challenge/grease.ts";
export {
  formatAuthorization,
  formatWwwAuthenticate,
  otherCredentials,
  parseAuthorization,
  parseWwwAuthenticate,
  type PresentedToken,
  type PrivateTokenChallenge,
  type ReceivedChallenge,
} from "./challenge/private-token.ts";
export { countTokenRequests } from "./issuer/examine.ts";
export {
  createIssuer,
  type IssuanceResult,
  type Issuer,
  type IssuerOptions,
} from "./issuer/issuer.ts";
export { type DirectoryOptions, encodeDirectory, type EncodedDirectory } from "./keys/directory.ts";
export {
  DIRECTORY_LOG_JWS_TYPE,
  type DirectoryLogEntry,
  type DirectoryLogEvent,
  type DirectoryLogHead,
  type DirectoryLogVerifier,
  encodeDirectoryLogEntry,
  followDirectoryLog,
  type FollowedDirectoryLog,
  isLoggedDirectory,
} from "./keys/directory-log.ts";
export { type EarlyRotation, planEarlyRotation } from "./keys/early-rotation.ts";
export {
  type IssuerKeyRecord,
  type IssuerKeyState,
  keyStateAt,
  tokenKeyIdOf,
  truncatedTokenKeyId,
} from "./keys/issuer-key-record.ts";
export {
  createKeyRing,
  type KeyRing,
  type KeyRingOptions,
  MAX_LIVE_KEYS,
} from "./keys/key-ring.ts";
export {
  checkKeySchedule,
  type KeySchedule,
  type PlannedKey,
  planRotation,
  type RotationPlan,
} from "./keys/key-schedule.ts";
export {
  type ClientMetadata,
  createClientMetadata,
  DEFAULT_EXPIRATION_GRID,
  MIN_CLIENT_PRECISION_SECONDS,
} from "./metadata/client-metadata.ts";
export {
  checkExpirationGrid,
  createExpirationPolicy,
  type ExpirationGrid,
  latestExpiration,
  MAX_EXPIRATIONS,
  type MetadataPolicy,
} from "./metadata/expiration-policy.ts";
export {
  createRedeemer,
  type RedeemedToken,
  type Redeemer,
  type RedeemerOptions,
  type RedemptionRequest,
} from "./redemption/redeemer.ts";
