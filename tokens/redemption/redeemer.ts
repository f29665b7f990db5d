/**
 * Redemption, RFC 9577 §2.2.2 and RFC 9578 §5.4, §6.4: the one place where a token turns into an admission.
 *
 * A token is redeemed when all of this holds, checked in this order:
 *  1. its bytes are one Token and nothing else;
 *  2. its type is one that is verified here;
 *  3. its token_key_id is that of a key which is active or retired;
 *  4. its challenge_digest is that of a challenge this origin makes in this scope, now or one window ago;
 *  5. of a type with public metadata, its extensions are ones that are accepted here, and have not expired;
 *  6. its authenticator verifies under that key, with these extensions and no others;
 *  7. the spent store had not seen (token_key_id, nonce), or had seen it from the same caller's retry.
 * The store comes last: before step 6 anyone could fill it, or spend a token that is not theirs.
 */
import {
  constantTimeEqual,
  encodeUtf8,
  isStileError,
  StileError,
  Writer,
} from "../../wire/index.ts";
import type { Challenger, ChallengeScope } from "../challenge/challenger.ts";
import type { TokenCrypto } from "../crypto.ts";
import type { IssuerKeyRecord } from "../keys/issuer-key-record.ts";
import type { KeyRing } from "../keys/key-ring.ts";
import type { MetadataPolicy } from "../metadata/expiration-policy.ts";
import type { PrivateTokenVerifier, SpendOutcome, SpendRequest, SpentStore } from "../stores.ts";
import { parseExtensions } from "../structures/extensions.ts";
import { parseToken, type Token } from "../structures/token.ts";
import { hasPublicMetadata, isPrivateTokenType } from "../structures/token-types.ts";

export interface RedeemerOptions {
  /** Public records are enough for types 0x0002 and 0xDA7A, which are verified without a secret. */
  readonly keyRing: KeyRing;
  readonly challenger: Challenger;
  readonly spentStore: Pick<SpentStore, "spend">;
  readonly crypto: TokenCrypto;
  /** Of types 0x0001 and 0x0005; without it they are refused. It holds private keys, so it is an issuer's. */
  readonly privateVerifier?: PrivateTokenVerifier;
  /** Of type 0xDA7A; without it that type is refused. */
  readonly metadataPolicy?: MetadataPolicy;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** How long after the first redemption a repeat is answered; afterwards the token is spent. */
  readonly repeatWindowMs: number;
}

export interface RedemptionRequest {
  /** Hostile. */
  readonly token: Uint8Array;
  /** Hostile: the encoded Extensions that came with the token. Ignored where its type has no metadata. */
  readonly extensions?: Uint8Array;
  readonly scope: ChallengeScope;
  /**
   * Names the caller's own retry (a TLS exporter, an Idempotency-Key), 1 byte or more. Hashed with the
   * token before it is stored, so that one name on two tokens leaves nothing that links them.
   */
  readonly binding?: Uint8Array;
}

/** A token that is verified and, unless it is a repeat, spent by this very call. */
export interface RedeemedToken {
  readonly outcome: "fresh" | "repeat";
  /** Instant of the first redemption, also for a repeat: a repeat is given what the first one has left. */
  readonly redeemedAtMs: number;
  readonly tokenKeyId: Uint8Array;
}

export interface Redeemer {
  /**
   * @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_KEY_UNKNOWN`, `TOKEN_CHALLENGE_MISMATCH`,
   * `TOKEN_METADATA_REFUSED`, `TOKEN_EXPIRED`, `TOKEN_AUTHENTICATOR_INVALID`, `TOKEN_ALREADY_SPENT`, `TOKEN_STORE_UNAVAILABLE`; of a private
   * verifier also `TOKEN_ISSUER_BUSY`, and then nothing was spent
   */
  redeem(request: RedemptionRequest): Promise<RedeemedToken>;
}

const BINDING_LABEL = encodeUtf8("stile/1 redemption binding");

export function createRedeemer(options: RedeemerOptions): Redeemer {
  const { keyRing, challenger, spentStore, crypto, clock, repeatWindowMs } = options;
  if (!Number.isSafeInteger(repeatWindowMs) || repeatWindowMs < 0) {
    throw new RangeError("repeatWindowMs: expected 0 or more");
  }

  async function verify(token: PresentedToken, scope: ChallengeScope): Promise<void> {
    checkTokenType(token, options);
    const key = redemptionKeyOf(token, keyRing);
    const digests = challenger.acceptedDigests(scope, token.tokenType);
    if (!isAccepted(token.challengeDigest, digests)) {
      throw new StileError("TOKEN_CHALLENGE_MISMATCH", "challenge_digest: expected one of ours");
    }
    checkMetadata(token, options);
    if (!(await isAuthentic(token, key, options))) {
      throw new StileError("TOKEN_AUTHENTICATOR_INVALID", "authenticator: expected a signature");
    }
  }

  async function spend(request: SpendRequest): Promise<SpendOutcome> {
    try {
      return await spentStore.spend(request);
    } catch (cause) {
      if (isStileError(cause, "TOKEN_STORE_UNAVAILABLE")) throw cause;
      // Its epoch has ended: another token may do, and this one never will.
      if (isStileError(cause, "TOKEN_KEY_UNKNOWN")) throw cause;
      throw new StileError("TOKEN_STORE_UNAVAILABLE", "the spent store failed", { cause });
    }
  }

  return {
    async redeem({ token: bytes, extensions, scope, binding }) {
      if (binding?.length === 0) throw new RangeError("binding: expected 1 byte or more");
      // A copy: the caller's buffer may change while the verifier or the store is awaited.
      const token = withMetadata(parseToken(Uint8Array.from(bytes)), extensions);
      await verify(token, scope);
      const atMs = clock();
      const { tokenKeyId, nonce } = token;
      const bound = binding && { binding: bindingDigest(crypto, token, binding) };
      const spent = await spend({ tokenKeyId, nonce, atMs, ...bound });
      switch (spent.outcome) {
        case "fresh":
          return { outcome: "fresh", redeemedAtMs: atMs, tokenKeyId };
        case "repeat":
          if (atMs - spent.firstAtMs > repeatWindowMs) throw alreadySpent();
          return { outcome: "repeat", redeemedAtMs: spent.firstAtMs, tokenKeyId };
        case "spent":
          throw alreadySpent();
      }
      return unknownOutcome(spent);
    },
  };
}

/** A token with its metadata, if its type has any. */
interface PresentedToken extends Token {
  /** A copy of the received bytes. */
  readonly metadata?: Uint8Array;
}

function withMetadata(token: Token, extensions: Uint8Array | undefined): PresentedToken {
  if (extensions === undefined || !hasPublicMetadata(token.tokenType)) return token;
  return { ...token, metadata: Uint8Array.from(extensions) };
}

function checkTokenType({ tokenType }: Token, options: RedeemerOptions): void {
  const { metadataPolicy, privateVerifier } = options;
  if (isPrivateTokenType(tokenType) && privateVerifier === undefined) throw unsupportedType();
  if (hasPublicMetadata(tokenType) && metadataPolicy === undefined) throw unsupportedType();
}

function unsupportedType(): StileError {
  return new StileError("TOKEN_TYPE_UNSUPPORTED", "token_type: expected a type of this origin");
}

/** Before the signature, which takes a thousand times as long. */
function checkMetadata(token: PresentedToken, { metadataPolicy }: RedeemerOptions): void {
  if (!hasPublicMetadata(token.tokenType)) return;
  if (token.metadata === undefined) {
    throw new StileError("TOKEN_METADATA_REFUSED", "extensions: expected those of the token");
  }
  metadataPolicy?.checkPresented(parseExtensions(token.metadata));
}

function redemptionKeyOf(token: Token, keyRing: KeyRing): IssuerKeyRecord {
  const key = keyRing.redemptionKey(token.tokenKeyId);
  if (key !== undefined && key.tokenType === token.tokenType) return key;
  throw new StileError("TOKEN_KEY_UNKNOWN", "token_key_id: expected an active or retired key");
}

/** Compares with every digest, so that the time does not tell which window or context was met. */
function isAccepted(digest: Uint8Array, accepted: readonly Uint8Array[]): boolean {
  return accepted.map((one) => constantTimeEqual(digest, one)).includes(true);
}

/** RFC 9578 §5.4, §6.4: over the received bytes, not over an encoding of what was parsed. */
async function isAuthentic(
  { authenticator, authenticatorInput, metadata, tokenType }: PresentedToken,
  { publicKeySpki, tokenKeyId }: IssuerKeyRecord,
  { crypto, privateVerifier }: RedeemerOptions,
): Promise<boolean> {
  if (isPrivateTokenType(tokenType)) {
    // the verifier was there when the type was checked; without one nothing is authentic
    if (privateVerifier === undefined) return false;
    return privateVerifier.verifyPrivate(tokenKeyId, authenticatorInput, authenticator);
  }
  if (!hasPublicMetadata(tokenType)) {
    return crypto.verifyType2(publicKeySpki, authenticatorInput, authenticator);
  }
  // so were the extensions
  if (metadata === undefined) return false;
  return crypto.verifyTypeDa7a(publicKeySpki, metadata, authenticatorInput, authenticator);
}

function bindingDigest(crypto: TokenCrypto, token: Token, binding: Uint8Array): Uint8Array {
  const input = new Writer()
    .vec16(BINDING_LABEL)
    .vec16(token.tokenKeyId)
    .vec16(token.nonce)
    .vec16(binding)
    .finish();
  return crypto.sha256(input);
}

function alreadySpent(): StileError {
  return new StileError("TOKEN_ALREADY_SPENT", "the token was redeemed before");
}

function unknownOutcome(outcome: never): never {
  throw new TypeError(`expected an outcome of the spent store, got ${typeof outcome}`);
}
