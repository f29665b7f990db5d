/**
 * The public half of draft-amjad-cfrg-partially-blind-rsa-02 on Node: the public exponent that a metadata string
 * selects (§4.6, DerivePublicKey), and the key. All of it is public.
 */
import { createPublicKey, hkdfSync, type KeyObject } from "node:crypto";
import { encodeBase64Url } from "../../wire/index.ts";
import { exponentDerivation, exponentOf } from "./derivation.ts";

/** e' for a metadata string. */
export function derivePublicExponent(
  modulus: Uint8Array,
  metadata: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const { info, input, length, salt } = exponentDerivation(modulus, metadata);
  // 5. expanded_bytes = HKDF(IKM=hkdf_input, salt=hkdf_salt, info="PBRSA", L=hkdf_len)
  return exponentOf(new Uint8Array(hkdfSync("sha384", input, salt, info, length)));
}

/** The key that verifies what was signed with this metadata. */
export function derivePublicKey(modulus: Uint8Array, metadata: Uint8Array): KeyObject {
  const n = encodeBase64Url(modulus);
  const e = encodeBase64Url(derivePublicExponent(modulus, metadata));
  return createPublicKey({ key: { kty: "RSA", n, e }, format: "jwk" });
}
