/**
 * The cryptography that the verifier needs, as one interface, so that it runs on any Web-standard
 * runtime that supplies an engine. `attest/node/` is the engine of Node. Digests are synchronous since
 * every runtime has them so; what Web Crypto only offers as a promise may be one.
 */
import type { CurveName, HashName } from "./structures/constants.ts";

type Awaitable<T> = T | Promise<T>;

/** How a signature is to be verified: said by the caller, never by the signature itself (D1). */
export type SignatureScheme = "RSASSA-PKCS1-v1_5" | "RSASSA-PSS" | "ECDSA" | "Ed25519";

export interface SignatureCheck {
  /** DER SubjectPublicKeyInfo; hostile, so a point off the curve is a failed check. */
  readonly spki: Uint8Array;
  readonly scheme: SignatureScheme;
  /** Ed25519 has its own. */
  readonly hash: HashName;
  readonly message: Uint8Array;
  /** RSA: as long as the modulus. ECDSA: R and S, each as long as a coordinate. Ed25519: 64 bytes. */
  readonly signature: Uint8Array;
}

export interface AttestCrypto {
  hash(name: HashName, data: Uint8Array): Uint8Array;
  hmac(name: HashName, key: Uint8Array, data: Uint8Array): Uint8Array;
  /** AES in CFB mode with 128-bit feedback and an all-zero IV (TPM 2.0 Part 1, "Symmetric Encryption"). */
  aesCfbEncrypt(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** RSAES-OAEP, MGF1 with the same hash. @throws any error where the key cannot be used */
  rsaOaepEncrypt(
    spki: Uint8Array,
    hash: HashName,
    label: Uint8Array,
    message: Uint8Array,
  ): Awaitable<Uint8Array>;
  /**
   * One-pass ECDH with a fresh ephemeral key. All values have the curve's coordinate length.
   * @throws any error where the peer's point is not on the curve
   */
  ecdhWithEphemeral(
    curve: CurveName,
    peer: { readonly x: Uint8Array; readonly y: Uint8Array },
  ): Awaitable<EcdhResult>;
  /** False for anything that does not verify, also for keys and signatures that cannot be read. */
  verifySignature(check: SignatureCheck): Awaitable<boolean>;
}

export interface EcdhResult {
  readonly ephemeral: { readonly x: Uint8Array; readonly y: Uint8Array };
  /** x coordinate of the shared point; secret. */
  readonly sharedX: Uint8Array;
}
