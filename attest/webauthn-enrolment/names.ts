/**
 * The names that an attester keeps of a credential: keyed hashes, of no use elsewhere (checklist G1).
 *
 * The subject is a hash of the credential's public key, and not of its id: each assertion proves the key,
 * while an id is only what the authenticator calls it. Neither is the device. WebAuthn lets no relying party
 * tell one device from another: an attestation key is shared by a batch of devices (§14.4.1), and an
 * authenticator makes as many credentials as it is asked for. So what one person may have is limited by
 * network and by touch, and not by this name (docs/webauthn.md, "What one person can gain").
 */
import { encodeBase64Url, encodeUtf8, Writer } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";

const PSEUDONYM_LABEL = encodeUtf8("stile/1 webauthn pseudonym");
const HANDLE_LABEL = encodeUtf8("stile/1 webauthn credential");

export interface NamingKey {
  readonly crypto: AttestCrypto;
  /** 32 bytes of the attester. */
  readonly pseudonymSecret: Uint8Array;
}

/** The subject of a credential's results. @param spki DER SubjectPublicKeyInfo of the credential key */
export function credentialPseudonym(key: NamingKey, spki: Uint8Array): string {
  return encodeBase64Url(keyedHash(key, PSEUDONYM_LABEL, spki));
}

/** What the store knows a credential by, in place of its id. */
export function credentialHandle(key: NamingKey, credentialId: Uint8Array): Uint8Array {
  return keyedHash(key, HANDLE_LABEL, credentialId);
}

function keyedHash(
  { crypto, pseudonymSecret }: NamingKey,
  label: Uint8Array,
  value: Uint8Array,
): Uint8Array {
  const bytes = new Writer().vec16(label).vec16(value).finish();
  return crypto.hmac("sha256", pseudonymSecret, bytes);
}
