/**
 * What a WebAuthn authenticator signs over, so that a ceremony is good for one session and one device key
 * (docs/architecture.md, "Attestation, on the wire"). The challenge reaches the signature through
 * clientDataJSON, which the authenticator signs the hash of (WebAuthn Level 3 §5.8.1, §6.3).
 */
import { encodeUtf8, Writer } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { Es256PublicJwk } from "../result/index.ts";

const LABEL = encodeUtf8("stile/1 webauthn");

/** 32 bytes for `challenge`. Every part has a length in front, so that no two inputs collide. */
export function webauthnBinding(
  crypto: AttestCrypto,
  input: { readonly nonce: Uint8Array; readonly deviceKey: Es256PublicJwk },
): Uint8Array {
  const bytes = new Writer()
    .vec16(LABEL)
    .vec16(input.nonce)
    .vec16(jwkThumbprint(crypto, input.deviceKey))
    .finish();
  return crypto.hash("sha256", bytes);
}

/** RFC 7638 §3: SHA-256 over the required members in lexicographic order, without white space. */
function jwkThumbprint(crypto: AttestCrypto, { crv, kty, x, y }: Es256PublicJwk): Uint8Array {
  return crypto.hash("sha256", encodeUtf8(JSON.stringify({ crv, kty, x, y })));
}
