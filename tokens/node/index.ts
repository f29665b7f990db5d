/** The engine of Node: `TokenCrypto` on node:crypto, the raw RSA operation and key generation. */
export { createNodeTokenCrypto } from "./node-crypto.ts";
export { rawRsaSign, rawRsaSignAll } from "./raw-rsa.ts";
export {
  type BlindRsaKeyPair,
  encodeRsaPublicKey,
  generateBlindRsaKey,
  importBlindRsaTokenKey,
} from "./rsa-keys.ts";
