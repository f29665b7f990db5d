/**
 * Partially blind RSA of token type 0xDA7A on OpenSSL: keys, and blind signatures with public metadata. What
 * only verifies is part of the engine of Node (`tokens/node/`).
 */
export { generatePartiallyBlindRsaKey } from "./generate.ts";
export { partiallyBlindRsaEngine } from "./private-key.ts";
export { createPartiallyBlindSigner, type PartiallyBlindSigner } from "./signer.ts";
