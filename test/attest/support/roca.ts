/** RSA keys by the structure of CVE-2017-15361 (Nemec et al. 2017, §2.1), seeded: weak on purpose. */
import { checkPrimeSync, createHash, createPublicKey } from "node:crypto";

const BITS = 1024;
/** Table 1 of the paper: the first 126 primes for moduli of 1984 to 3936 bits. */
const PRIME_COUNT = 126;

function firstPrimes(count: number): bigint[] {
  const primes: bigint[] = [];
  for (let n = 2n; primes.length < count; n += 1n)
    if (primes.every((prime) => n % prime !== 0n)) primes.push(n);
  return primes;
}

function createSeeded(seed: string): (bits: number) => bigint {
  let counter = 0;
  return (bits) => {
    let digits = "";
    while (digits.length * 4 < bits) {
      counter += 1;
      digits += createHash("sha256").update(`${seed} ${counter}`).digest("hex");
    }
    return BigInt(`0x${digits}`) & ((1n << BigInt(bits)) - 1n);
  };
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  for (let [b, e] = [base % modulus, exponent]; e > 0n; e >>= 1n, b = (b * b) % modulus)
    if ((e & 1n) === 1n) result = (result * b) % modulus;
  return result;
}

/** A modulus of 2048 bits. */
export function rocaModulus(seed: string): Uint8Array {
  const m = firstPrimes(PRIME_COUNT).reduce((product, prime) => product * prime, 1n);
  const random = createSeeded(seed);
  const top = (3n << BigInt(BITS - 2)) / m;
  const prime = (): bigint => {
    for (;;) {
      const candidate = (top + random(40)) * m + power(65_537n, random(256), m);
      if (candidate.toString(2).length === BITS && checkPrimeSync(candidate)) return candidate;
    }
  };
  return Uint8Array.from(Buffer.from((prime() * prime()).toString(16), "hex"));
}

/** SubjectPublicKeyInfo, DER, with the exponent 65537. */
export function rsaSpkiOf(modulus: Uint8Array): Uint8Array {
  const n = Buffer.from(modulus).toString("base64url");
  const key = createPublicKey({ key: { kty: "RSA", n, e: "AQAB" }, format: "jwk" });
  return new Uint8Array(key.export({ type: "spki", format: "der" }));
}
