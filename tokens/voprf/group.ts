/**
 * A prime-order group as RFC 9497 §2.1 wants it, over serialized elements and scalars, and the
 * constants of the two ciphersuites that Privacy Pass uses (RFC 9497 §4.1, §4.4). Who implements it
 * keeps secret scalars out of JavaScript numbers: they arrive and leave as bytes in native memory.
 */
import { TOKEN_TYPE_VOPRF_P384, TOKEN_TYPE_VOPRF_RISTRETTO255 } from "../structures/token-types.ts";

/** The token types whose issuer key is a VOPRF key. */
export type VoprfTokenType = typeof TOKEN_TYPE_VOPRF_P384 | typeof TOKEN_TYPE_VOPRF_RISTRETTO255;

/** As `isPrivateTokenType`, for the types that are computed here. */
export function isVoprfTokenType(tokenType: number): tokenType is VoprfTokenType {
  return tokenType === TOKEN_TYPE_VOPRF_P384 || tokenType === TOKEN_TYPE_VOPRF_RISTRETTO255;
}

/** One row of RFC 9497 §4; sizes in bytes. */
export interface VoprfCiphersuite {
  readonly tokenType: VoprfTokenType;
  readonly identifier: "P384-SHA384" | "ristretto255-SHA512";
  readonly hash: "sha384" | "sha512";
  /** Output of the hash, hence of the function. */
  readonly Nh: number;
  /** A serialized element. */
  readonly Ne: number;
  /** A serialized scalar. */
  readonly Ns: number;
  /** What is expanded and reduced to a scalar: far above Ns, so that the result has no bias. */
  readonly uniformLength: number;
}

export const P384_SHA384: VoprfCiphersuite = {
  tokenType: TOKEN_TYPE_VOPRF_P384,
  identifier: "P384-SHA384",
  hash: "sha384",
  Nh: 48,
  Ne: 49,
  Ns: 48,
  uniformLength: 72,
};

export const RISTRETTO255_SHA512: VoprfCiphersuite = {
  tokenType: TOKEN_TYPE_VOPRF_RISTRETTO255,
  identifier: "ristretto255-SHA512",
  hash: "sha512",
  Nh: 64,
  Ne: 32,
  Ns: 32,
  uniformLength: 64,
};

export function voprfCiphersuite(tokenType: VoprfTokenType): VoprfCiphersuite {
  return tokenType === TOKEN_TYPE_VOPRF_P384 ? P384_SHA384 : RISTRETTO255_SHA512;
}

/**
 * The group operations. "Secret" parameters are handled in constant time by a native implementation;
 * all others are public or blinded and may take a time that depends on them.
 */
export interface VoprfGroup {
  /** The library and its version, for a metric: public. */
  readonly engine: string;
  /** True for the canonical encoding of an element that is not the identity. `bytes` is hostile. */
  isElement(bytes: Uint8Array): boolean;
  /** True for the canonical encoding of a scalar that is not zero. May be secret: see each engine. */
  isScalar(bytes: Uint8Array): boolean;
  /** `scalar` (secret) times `element`, which has passed {@link isElement}. */
  multiply(scalar: Uint8Array, element: Uint8Array): Uint8Array<ArrayBuffer>;
  /** `scalar` (secret) times the generator. */
  multiplyBase(scalar: Uint8Array): Uint8Array<ArrayBuffer>;
  /** The sum of `scalars[i]` times `elements[i]`, all public. */
  combine(scalars: readonly Uint8Array[], elements: readonly Uint8Array[]): Uint8Array<ArrayBuffer>;
  /** `uniform` (secret, `uniformLength` bytes) modulo the order. */
  reduce(uniform: Uint8Array): Uint8Array<ArrayBuffer>;
  /** `nonce` - `challenge` * `key` modulo the order; nonce and key are secret, the challenge is public. */
  respond(nonce: Uint8Array, challenge: Uint8Array, key: Uint8Array): Uint8Array<ArrayBuffer>;
  /** hash_to_curve of RFC 9380 for the suite; `input` is no secret of the issuer. */
  hashToGroup(input: Uint8Array, dst: Uint8Array): Uint8Array<ArrayBuffer>;
}
