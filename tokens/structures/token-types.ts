/**
 * The Privacy Pass token types whose structures this code can frame, with their sizes.
 *
 * IANA "Privacy Pass Token Type" registry, RFC 9578 §8.2.1; type 0x0005 from
 * draft-ietf-privacypass-batched-tokens, 0xDA7A from draft-ietf-privacypass-public-metadata-issuance. That a type is in this table means that its bytes can be
 * told apart in a batch, not that it is issued or accepted here: the key ring decides that.
 */

/** VOPRF (P-384, SHA-384), RFC 9578 §5. */
export const TOKEN_TYPE_VOPRF_P384 = 0x0001;
/** Blind RSA (2048-bit), RFC 9578 §6. */
export const TOKEN_TYPE_BLIND_RSA = 0x0002;
/** VOPRF (ristretto255, SHA-512), draft-ietf-privacypass-batched-tokens. */
export const TOKEN_TYPE_VOPRF_RISTRETTO255 = 0x0005;
/** Partially blind RSA (2048-bit), draft-ietf-privacypass-public-metadata-issuance. */
export const TOKEN_TYPE_PARTIALLY_BLIND_RSA = 0xda7a;

/** Sizes in bytes, by the specification's names where it has one. */
export interface TokenTypeEntry {
  readonly tokenType: number;
  /** Length of the authenticator. */
  readonly Nk: number;
  /** Length of `blinded_msg` in a TokenRequest. */
  readonly blindedLength: number;
  /** Length of a TokenResponse. */
  readonly responseLength: number;
  /**
   * Length of the proof that ends a response, Ns + Ns, for the types that only the holder of the private
   * key verifies; what is before it has `blindedLength`. 0 for a publicly verifiable type.
   */
  readonly proofLength: number;
}

/** Nid of every registered type: a token_key_id is a SHA-256 digest. */
export const TOKEN_KEY_ID_BYTES = 32;
export const NONCE_BYTES = 32;
export const CHALLENGE_DIGEST_BYTES = 32;

const ENTRIES: readonly TokenTypeEntry[] = [
  entry(TOKEN_TYPE_VOPRF_P384, { Nk: 48, blindedLength: 49, proofLength: 96 }),
  entry(TOKEN_TYPE_BLIND_RSA, { Nk: 256, blindedLength: 256, proofLength: 0 }),
  entry(TOKEN_TYPE_VOPRF_RISTRETTO255, { Nk: 64, blindedLength: 32, proofLength: 64 }),
  entry(TOKEN_TYPE_PARTIALLY_BLIND_RSA, { Nk: 256, blindedLength: 256, proofLength: 0 }),
];

/** The sizes of a token type, or `undefined` for a type that cannot be framed. */
export function tokenTypeEntry(tokenType: number): TokenTypeEntry | undefined {
  return ENTRIES.find((entry) => entry.tokenType === tokenType);
}

/** True for a type whose tokens only the holder of the private key can verify (RFC 9578 §5). */
export function isPrivateTokenType(tokenType: number): boolean {
  return (tokenTypeEntry(tokenType)?.proofLength ?? 0) > 0;
}

/** True for a type whose requests and tokens carry extensions, without which they mean nothing. */
export function hasPublicMetadata(tokenType: number): boolean {
  return tokenType === TOKEN_TYPE_PARTIALLY_BLIND_RSA;
}

function entry(
  tokenType: number,
  sizes: Omit<TokenTypeEntry, "tokenType" | "responseLength">,
): TokenTypeEntry {
  return { tokenType, ...sizes, responseLength: sizes.blindedLength + sizes.proofLength };
}
