/**
 * RSA keys of token types 0x0002 and 0xDA7A (RFC 9578 §6.5) in Node's form. The signing key stays `rsaEncryption`:
 * OpenSSL refuses the raw operation to an rsa-pss key. The public key goes out in RFC 9578's encoding
 * and never in Node's (see `structures/token-key.ts`).
 */
import { createHash, createPublicKey, generateKeyPair, type KeyObject } from "node:crypto";
import { promisify } from "node:util";
import { concatBytes } from "../../wire/index.ts";
import { encodeBlindRsaTokenKey, parseBlindRsaTokenKey } from "../structures/token-key.ts";

const RSA_MODULUS_BITS = 2048;
const RSA_PUBLIC_EXPONENT = 65_537;

/** A fresh issuer key. `privateKey` is secret, unsealed and in this process's memory. */
export interface BlindRsaKeyPair {
  readonly privateKey: KeyObject;
  /** 342 bytes: RFC 9578 §6.5. */
  readonly publicKeySpki: Uint8Array;
  /** 32 bytes: SHA-256 of `publicKeySpki`. */
  readonly tokenKeyId: Uint8Array;
}

/** Generates a key off the event loop, from OpenSSL's random source. Takes 50 to 500 ms. */
export async function generateBlindRsaKey(): Promise<BlindRsaKeyPair> {
  const { privateKey } = await promisify(generateKeyPair)("rsa", {
    modulusLength: RSA_MODULUS_BITS,
    publicExponent: RSA_PUBLIC_EXPONENT,
  });
  return blindRsaKeyPair(privateKey);
}

/** A private key with what names it. @throws RangeError for a key that {@link encodeRsaPublicKey} refuses */
export function blindRsaKeyPair(privateKey: KeyObject): BlindRsaKeyPair {
  const publicKeySpki = encodeRsaPublicKey(privateKey);
  const tokenKeyId = Uint8Array.from(createHash("sha256").update(publicKeySpki).digest());
  return { privateKey, publicKeySpki, tokenKeyId };
}

/**
 * The RFC 9578 SPKI of an RSA-2048 key with the exponent 65537.
 * @param key public or private. @throws RangeError for any other key
 */
export function encodeRsaPublicKey(key: KeyObject): Uint8Array<ArrayBuffer> {
  // A private key as JWK would leave its primes in the heap, as text that nobody can wipe.
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  const { n, e } = publicKey.export({ format: "jwk" });
  if (key.asymmetricKeyType !== "rsa" || n === undefined || e !== "AQAB") {
    throw new RangeError("expected an rsaEncryption key with the exponent 65537");
  }
  return encodeBlindRsaTokenKey(concatBytes([Buffer.from(n, "base64url")]));
}

/** A key that verifies type 0x0002 tokens, of hostile bytes. @throws `WIRE_*` */
export function importBlindRsaTokenKey(publicKeySpki: Uint8Array): KeyObject {
  parseBlindRsaTokenKey(publicKeySpki);
  return createPublicKey({ key: Buffer.from(publicKeySpki), format: "der", type: "spki" });
}
