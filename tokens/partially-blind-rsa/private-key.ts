/**
 * The private key of draft-amjad-cfrg-partially-blind-rsa-02 for one metadata string (DeriveKeyPair), computed on
 * OpenSSL's numbers and handed back as a key object of OpenSSL: the signature itself is then the operation of
 * type 0x0002, with CRT, base blinding and the check against the public key (`node/raw-rsa.ts`).
 *
 * Timing. Here everything but n and e' is secret. The inverse of e' is not found by Euclid's algorithm, whose
 * steps depend on the secret order even without branches, but by Euler's theorem: the modulus is of safe primes
 * 2p' + 1 and 2q' + 1, so the order of what matters is p'q', and e'^-1 = e'^((p' - 1)(q' - 1) - 1) mod p'q' is one
 * BN_mod_exp_mont_consttime with an exponent of fixed length. Around it there are only additions, shifts and one
 * Montgomery product, which do not branch on values, and the divisions BN_nnmod of fixed length. Lengths in words
 * are those of the key. BN_mul does branch on its factors; it is used where a key is made, and for nothing else.
 * Nothing that a client sends is an input: it chooses metadata among the few that the issuer's policy lets pass.
 */
import { createPrivateKey, type KeyObject } from "node:crypto";
import { StileError } from "../../wire/index.ts";
import { type Libcrypto, loadLibcrypto, type Pointer } from "../openssl/libcrypto.ts";
import { made, type Scope, succeeded, withScope } from "../openssl/scope.ts";
import { derivePublicExponent } from "./public-key.ts";
import { encodeRsaPrivateKey, parseRsaPrivateKey, type RsaPrivateKey } from "./rsa-private-key.ts";

type SafePrimes = Pick<RsaPrivateKey, "modulus" | "prime1" | "prime2" | "coefficient">;

/**
 * The private key for a metadata string. Takes 2 ms.
 * @param lib of {@link partiallyBlindRsaEngine}
 * @param privateKey `rsaEncryption`, of two safe primes; with others the result signs nothing that verifies
 * @throws `TOKEN_KEY_STORE_INVALID` for primes that cannot be safe
 */
export function derivePrivateKey(
  lib: Libcrypto,
  privateKey: KeyObject,
  metadata: Uint8Array,
): KeyObject {
  const der = privateKey.export({ format: "der", type: "pkcs1" });
  try {
    const primes = parseRsaPrivateKey(der);
    return privateKeyOf(lib, primes, derivePublicExponent(primes.modulus, metadata));
  } finally {
    der.fill(0);
  }
}

/** OpenSSL out of the running binary. @throws `TOKEN_ENGINE_MISSING` */
export function partiallyBlindRsaEngine(): Libcrypto {
  const lib = loadLibcrypto();
  if (lib !== undefined) return lib;
  throw new StileError(
    "TOKEN_ENGINE_MISSING",
    "token type 0xDA7A: expected a runtime with OpenSSL",
  );
}

/** A key of two safe primes of the same length, for this public exponent. */
export function privateKeyOfPrimes(
  lib: Libcrypto,
  primes: Pick<RsaPrivateKey, "prime1" | "prime2">,
  publicExponent: Uint8Array,
): KeyObject {
  const completed = withScope(lib, (scope) => complete(lib, scope, primes));
  try {
    return privateKeyOf(lib, completed, publicExponent);
  } finally {
    completed.coefficient.fill(0);
  }
}

function privateKeyOf(lib: Libcrypto, primes: SafePrimes, publicExponent: Uint8Array): KeyObject {
  if (![primes.prime1, primes.prime2].every(isOddHalf)) {
    throw new StileError("TOKEN_KEY_STORE_INVALID", "expected a key of two safe primes");
  }
  const exponents = withScope(lib, (scope) => privateExponents(lib, scope, primes, publicExponent));
  const der = encodeRsaPrivateKey({ ...primes, ...exponents, publicExponent });
  try {
    const key = Buffer.from(der.buffer, der.byteOffset, der.length);
    return createPrivateKey({ key, format: "der", type: "pkcs1" });
  } finally {
    for (const secret of [der, ...Object.values(exponents)]) secret.fill(0);
  }
}

/** Of a safe prime 2p' + 1, p' is odd, and without that there is no Montgomery form. */
function isOddHalf(prime: Uint8Array): boolean {
  return ((prime.at(-1) ?? 0) & 3) === 3;
}

function privateExponents(
  lib: Libcrypto,
  scope: Scope,
  { modulus, prime1, prime2 }: SafePrimes,
  publicExponent: Uint8Array,
): Pick<RsaPrivateKey, "privateExponent" | "exponent1" | "exponent2"> {
  const sum = scope.number(modulus);
  const [p, q] = [scope.number(prime1), scope.number(prime2)];
  // 4p'q' = (p - 1)(q - 1) = n - p - q + 1
  succeeded(lib.subtract(sum, sum, p));
  succeeded(lib.subtract(sum, sum, q));
  succeeded(lib.addWord(sum, 1));
  const order = halved(lib, scope, halved(lib, scope, sum));
  for (const prime of [p, q]) succeeded(lib.subtractWord(prime, 1));
  // (p' - 1)(q' - 1) - 1 = p'q' - p' - q'
  const power = scope.zero();
  succeeded(lib.subtract(power, order, halved(lib, scope, p)));
  succeeded(lib.subtract(power, power, halved(lib, scope, q)));
  const d = oddInverse(lib, scope, { order, power, base: scope.number(publicExponent) });
  return withContext(lib, (context) => {
    const modulo = (divisor: Pointer): Uint8Array => {
      const out = scope.zero();
      succeeded(lib.modulo(out, d, divisor, context));
      return bytesOf(lib, out, prime1.length);
    };
    const privateExponent = bytesOf(lib, d, modulus.length);
    return { privateExponent, exponent1: modulo(p), exponent2: modulo(q) };
  });
}

/**
 * d below 2p'q' with d = base^power mod p'q' and d odd, for the order of the units is even:
 * d = 2y + 1 with y = (base^power - 1) / 2 mod p'q'.
 */
function oddInverse(
  lib: Libcrypto,
  scope: Scope,
  { base, order, power }: Readonly<Record<"base" | "order" | "power", Pointer>>,
): Pointer {
  // 1/2 mod p'q', which is odd
  const half = scope.zero();
  succeeded(lib.halve(half, order));
  succeeded(lib.addWord(half, 1));
  return withMontgomery(lib, order, (montgomery, context) => {
    const d = scope.zero();
    succeeded(lib.exponentiateConstantTime(d, base, power, order, context, montgomery));
    succeeded(lib.subtractWord(d, 1));
    // one factor in Montgomery form, so that the product is not
    succeeded(lib.toMontgomery(d, d, montgomery, context));
    succeeded(lib.multiplyMontgomery(d, d, half, montgomery, context));
    succeeded(lib.double(d, d));
    succeeded(lib.addWord(d, 1));
    return d;
  });
}

/** n = pq, and q^-1 mod p = q^(p - 2) mod p. */
function complete(
  lib: Libcrypto,
  scope: Scope,
  { prime1, prime2 }: Pick<RsaPrivateKey, "prime1" | "prime2">,
): SafePrimes {
  const [p, q] = [scope.number(prime1), scope.number(prime2)];
  const [n, power, inverse] = [scope.zero(), scope.number(prime1), scope.zero()];
  succeeded(lib.subtractWord(power, 2));
  withMontgomery(lib, p, (montgomery, context) => {
    succeeded(lib.multiplyNumbers(n, p, q, context));
    succeeded(lib.exponentiateConstantTime(inverse, q, power, p, context, montgomery));
  });
  return {
    modulus: bytesOf(lib, n, prime1.length + prime2.length),
    prime1,
    prime2,
    coefficient: bytesOf(lib, inverse, prime1.length),
  };
}

function halved(lib: Libcrypto, scope: Scope, value: Pointer): Pointer {
  const out = scope.zero();
  succeeded(lib.halve(out, value));
  return out;
}

/** Both are wiped by OpenSSL as they are freed. */
function withMontgomery<T>(
  lib: Libcrypto,
  modulus: Pointer,
  work: (montgomery: Pointer, context: Pointer) => T,
): T {
  return withContext(lib, (context) => {
    const montgomery = made(lib.newMontgomery());
    try {
      succeeded(lib.setMontgomery(montgomery, modulus, context));
      return work(montgomery, context);
    } finally {
      lib.freeMontgomery(montgomery);
    }
  });
}

function withContext<T>(lib: Libcrypto, work: (context: Pointer) => T): T {
  const context = made(lib.newContext());
  try {
    return work(context);
  } finally {
    lib.freeContext(context);
  }
}

function bytesOf(lib: Libcrypto, value: Pointer, length: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  succeeded(lib.encodeNumber(value, out, length) === length ? 1 : 0);
  return out;
}
