/**
 * `TokenCrypto` on node:crypto. Verifying type 0x0002 is synchronous: 0.03 ms on a cached KeyObject, less than
 * handing it to another thread costs. Type 0xDA7A, whose exponent has 1022 bits instead of 17, takes 0.9 ms, which
 * anyone can ask for: a thread of the pool does it.
 */
import {
  constants,
  createHmac,
  hash,
  type KeyObject,
  verify,
  type VerifyKeyObjectInput,
} from "node:crypto";
import type { TokenCrypto } from "../crypto.ts";
import { messageWithMetadata } from "../partially-blind-rsa/derivation.ts";
import { derivePublicKey } from "../partially-blind-rsa/public-key.ts";
import { parseBlindRsaTokenKey } from "../structures/token-key.ts";
import { importBlindRsaTokenKey } from "./rsa-keys.ts";

/** RFC 9578 §6.4: saltLength equals the hash length. */
const PSS_SALT_BYTES = 48;

export function createNodeTokenCrypto(): TokenCrypto {
  /** By identity of the caller's array: lives as long as the key record that holds it. */
  const keys = new WeakMap<Uint8Array, KeyObject>();

  function keyOf(publicKeySpki: Uint8Array): KeyObject {
    let key = keys.get(publicKeySpki);
    if (key === undefined) {
      key = importBlindRsaTokenKey(publicKeySpki);
      keys.set(publicKeySpki, key);
    }
    return key;
  }

  return {
    sha256(data) {
      return new Uint8Array(hash("sha256", data, "buffer"));
    },
    hmacSha256(key, data) {
      return new Uint8Array(createHmac("sha256", key).update(data).digest());
    },
    verifyType2(publicKeySpki, authenticatorInput, authenticator) {
      return verify("sha384", authenticatorInput, pss(keyOf(publicKeySpki)), authenticator);
    },
    verifyTypeDa7a(publicKeySpki, metadata, authenticatorInput, authenticator) {
      // 0.05 ms of the 0.9: not worth a memory that hostile metadata could fill
      const key = derivePublicKey(parseBlindRsaTokenKey(publicKeySpki), metadata);
      const message = messageWithMetadata(metadata, authenticatorInput);
      return new Promise((resolve, reject) => {
        verify("sha384", message, pss(key), authenticator, (error, isValid) => {
          if (error instanceof Error) reject(error);
          else resolve(isValid);
        });
      });
    },
  };
}

function pss(key: KeyObject): VerifyKeyObjectInput {
  const padding = constants.RSA_PKCS1_PSS_PADDING;
  return { key, padding, saltLength: PSS_SALT_BYTES };
}
