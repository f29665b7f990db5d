/** The name that an attester keeps of a device: a keyed hash of its EK, of no use elsewhere (checklist G1). */
import { concatBytes, encodeBase64Url, encodeUtf8 } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";

const LABEL = encodeUtf8("stile/1 device pseudonym");

/**
 * @param secret 32 bytes of the attester
 * @param ekSpki SubjectPublicKeyInfo of the EK, as the public area encodes
 */
export function devicePseudonym(
  crypto: AttestCrypto,
  secret: Uint8Array,
  ekSpki: Uint8Array,
): string {
  return encodeBase64Url(crypto.hmac("sha256", secret, concatBytes([LABEL, ekSpki])));
}
