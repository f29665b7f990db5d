/**
 * What draft-amjad-cfrg-partially-blind-rsa-02, RSAPBSSA-SHA384-PSS-Deterministic, makes of a metadata string, but
 * for the hashes: those are the engine's, of Node (`public-key.ts`) or of WebCrypto (`blind-client.ts`). All of it
 * is public.
 */
import { concatBytes, encodeUtf8, Writer } from "../../wire/index.ts";

const KEY_LABEL = encodeUtf8("key");
const MESSAGE_LABEL = encodeUtf8("msg");

/** Of DerivePublicKey (§4.6), with SHA-384. */
export interface ExponentDerivation {
  readonly input: Uint8Array<ArrayBuffer>;
  readonly salt: Uint8Array<ArrayBuffer>;
  readonly info: Uint8Array<ArrayBuffer>;
  /** Bytes that HKDF is to give. */
  readonly length: number;
}

/** Steps 1 to 4. */
export function exponentDerivation(modulus: Uint8Array, metadata: Uint8Array): ExponentDerivation {
  return {
    // 1. hkdf_input = concat("key", info, 0x00)   2. hkdf_salt = int_to_bytes(n, modulus_len)
    input: concatBytes([KEY_LABEL, metadata, Uint8Array.of(0)]),
    salt: Uint8Array.from(modulus),
    info: encodeUtf8("PBRSA"),
    // 3. lambda_len = modulus_len / 2   4. hkdf_len = lambda_len + 16
    length: modulus.length / 2 + 16,
  };
}

/**
 * Steps 6 to 8: e' is half as long as the modulus, odd, and below every p' and q' of a modulus of two safe primes
 * 2p' + 1 and 2q' + 1, so that it has an inverse for every metadata.
 * @param expanded what HKDF gave
 */
export function exponentOf(expanded: Uint8Array): Uint8Array<ArrayBuffer> {
  const length = expanded.length - 16;
  // 6. expanded_bytes[0] &= 0x3F   7. expanded_bytes[lambda_len-1] |= 0x01
  // 8. e' = bytes_to_int(slice(expanded_bytes, 0, lambda_len))
  const exponent = Uint8Array.from(expanded.subarray(0, length));
  exponent[0] = (exponent[0] ?? 0) & 0x3f;
  exponent[length - 1] = (exponent[length - 1] ?? 0) | 1;
  return exponent;
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
