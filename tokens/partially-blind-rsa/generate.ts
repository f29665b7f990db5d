/**
 * Keys of token type 0xDA7A: RSA with 2048 bits of two safe primes and the exponent 65537, by which alone the key is
 * named in the directory. The primes are OpenSSL's, searched off the event loop.
 */
import { generatePrime } from "node:crypto";
import { type BlindRsaKeyPair, blindRsaKeyPair } from "../node/rsa-keys.ts";
import { partiallyBlindRsaEngine, privateKeyOfPrimes } from "./private-key.ts";

const PRIME_BITS = 1024;
const PUBLIC_EXPONENT = Uint8Array.of(1, 0, 1);

/**
 * Generates a key from OpenSSL's random source. Takes some seconds of a thread of the pool that also serves files.
 * @throws `TOKEN_ENGINE_MISSING`
 */
export async function generatePartiallyBlindRsaKey(): Promise<BlindRsaKeyPair> {
  const lib = partiallyBlindRsaEngine();
  const prime1 = await safePrime();
  try {
    // Only now: the pool has four threads, and files wait for them as well.
    const prime2 = await safePrime();
    try {
      return blindRsaKeyPair(privateKeyOfPrimes(lib, { prime1, prime2 }, PUBLIC_EXPONENT));
    } finally {
      prime2.fill(0);
    }
  } finally {
    prime1.fill(0);
  }
}

/** p = 2p' + 1 with its two top bits set, so that a product of two has all of its 2048 bits. */
function safePrime(): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    generatePrime(PRIME_BITS, { safe: true }, (error, prime) => {
      if (error instanceof Error) reject(error);
      else resolve(new Uint8Array(prime));
    });
  });
}
