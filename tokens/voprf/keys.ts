/**
 * Issuer keys of the private token types, RFC 9578 §5.5: a scalar in a secret KeyObject, that is in
 * OpenSSL's memory, which worker threads share without a copy in a JavaScript heap. The public key is
 * the serialized element and the token_key_id its SHA-256.
 */
import { createHash, createSecretKey, type KeyObject } from "node:crypto";
import { encodeUtf8 } from "../../wire/index.ts";
import type { Voprf } from "./protocol.ts";

/** RFC 9578 §5.5 */
const INFO = encodeUtf8("PrivacyPass");
const SEED_BYTES = 32;

export interface VoprfKeyPair {
  /** The serialized scalar, unsealed and in this process's memory. */
  readonly privateKey: KeyObject;
  /** The serialized element: what the directory lists. */
  readonly tokenKey: Uint8Array;
  /** 32 bytes: SHA-256 of `tokenKey`. */
  readonly tokenKeyId: Uint8Array;
}

/** DeriveKeyPair of a fresh seed, as RFC 9578 §5.5 recommends. Takes 1 ms. */
export function generateVoprfKey(
  voprf: Voprf,
  random: (length: number) => Uint8Array,
): VoprfKeyPair {
  const seed = random(SEED_BYTES);
  const scalar = voprf.deriveKey(seed, INFO);
  seed.fill(0);
  return importVoprfKey(voprf, scalar);
}

/**
 * @param scalar secret, and wiped here
 * @throws RangeError for anything but a canonical scalar above zero
 */
export function importVoprfKey(voprf: Voprf, scalar: Uint8Array): VoprfKeyPair {
  if (!voprf.isKey(scalar)) throw new RangeError("expected a private key of the suite");
  const tokenKey = voprf.publicKeyOf(scalar);
  const privateKey = createSecretKey(scalar);
  scalar.fill(0);
  const tokenKeyId = Uint8Array.from(createHash("sha256").update(tokenKey).digest());
  return { privateKey, tokenKey, tokenKeyId };
}
