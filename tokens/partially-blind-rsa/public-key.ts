/**
 * The public half of draft-amjad-cfrg-partially-blind-rsa-02, RSAPBSSA-SHA384-PSS-Deterministic: the public
 * exponent that a metadata string selects (§4.6, DerivePublicKey), and the message that is signed under it.
 * All of it is public.
 */
import { createPublicKey, hkdfSync, type KeyObject } from "node:crypto";
import { concatBytes, encodeBase64Url, encodeUtf8, Writer } from "../../wire/index.ts";

const KEY_LABEL = encodeUtf8("key");
const MESSAGE_LABEL = encodeUtf8("msg");
const HKDF_INFO = encodeUtf8("PBRSA");

/**
 * e' for a metadata string: half as long as the modulus, odd, and below every p' and q' of a modulus of two
 * safe primes 2p' + 1 and 2q' + 1, so that it has an inverse for every metadata.
 */
export function derivePublicExponent(
  modulus: Uint8Array,
  metadata: Uint8Array,
): Uint8Array<ArrayBuffer> {
  // 1. hkdf_input = concat("key", info, 0x00)   2. hkdf_salt = int_to_bytes(n, modulus_len)
  const input = concatBytes([KEY_LABEL, metadata, Uint8Array.of(0)]);
  // 3. lambda_len = modulus_len / 2   4. hkdf_len = lambda_len + 16
  const length = modulus.length / 2;
  // 5. expanded_bytes = HKDF(IKM=hkdf_input, salt=hkdf_salt, info="PBRSA", L=hkdf_len)
  const expanded = new Uint8Array(hkdfSync("sha384", input, modulus, HKDF_INFO, length + 16));
  // 6. expanded_bytes[0] &= 0x3F   7. expanded_bytes[lambda_len-1] |= 0x01
  // 8. e' = bytes_to_int(slice(expanded_bytes, 0, lambda_len))
  const exponent = expanded.slice(0, length);
  exponent[0] = (exponent[0] ?? 0) & 0x3f;
  exponent[length - 1] = (exponent[length - 1] ?? 0) | 1;
  return exponent;
}

/** The key that verifies what was signed with this metadata. */
export function derivePublicKey(modulus: Uint8Array, metadata: Uint8Array): KeyObject {
  const n = encodeBase64Url(modulus);
  const e = encodeBase64Url(derivePublicExponent(modulus, metadata));
  return createPublicKey({ key: { kty: "RSA", n, e }, format: "jwk" });
}

/** What is signed: msg_prime = concat("msg", int_to_bytes(len(info), 4), info, msg). */
export function messageWithMetadata(
  metadata: Uint8Array,
  message: Uint8Array,
): Uint8Array<ArrayBuffer> {
  return new Writer()
    .bytes(MESSAGE_LABEL)
    .u32(metadata.length)
    .bytes(metadata)
    .bytes(message)
    .finish();
}
