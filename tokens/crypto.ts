/**
 * The cryptography that the token layer needs, as one interface, so that it runs on any Web-standard
 * runtime that supplies an engine. `tokens/node/` is the engine of Node. Signing is not part of it:
 * that is `BlindSigner`, and only an issuer has one.
 */

export interface TokenCrypto {
  /** 32 bytes. */
  sha256(data: Uint8Array): Uint8Array;
  /** 32 bytes. */
  hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array;
  /**
   * True when `authenticator` is an RSASSA-PSS signature (SHA-384, MGF1 with SHA-384, salt 48) of
   * `authenticatorInput` under the key (RFC 9578 §6.4). `publicKeySpki` is trusted, the rest hostile.
   * An engine may cache by the identity of `publicKeySpki`: pass the same array for the same key.
   */
  verifyType2(
    publicKeySpki: Uint8Array,
    authenticatorInput: Uint8Array,
    authenticator: Uint8Array,
  ): boolean | Promise<boolean>;
  /**
   * The same for type 0xDA7A: under the key that `publicKeySpki` and the metadata give together
   * (draft-amjad-cfrg-partially-blind-rsa). `metadata` is hostile, too. Takes 0.9 ms.
   */
  verifyTypeDa7a(
    publicKeySpki: Uint8Array,
    metadata: Uint8Array,
    authenticatorInput: Uint8Array,
    authenticator: Uint8Array,
  ): boolean | Promise<boolean>;
}
