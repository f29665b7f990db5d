/**
 * The fingerprint of RSA keys by Infineon's flawed generator, CVE-2017-15361 ("ROCA", Nemec et al., ACM
 * CCS 2017, §2.3; checklist A10). Its primes are k*M + (65537^a mod M) with M a product of small primes,
 * so the modulus is a power of 65537 modulo M. Whether it is one is a discrete logarithm that falls apart
 * into tiny ones. A modulus by any other generator passes for one with a chance below 2^-100.
 */

/** The 39 primes up to 167: they divide M for every key size, from 512 bits on (§2.1, table 1). */
const PRIMES: readonly number[] = [
  2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
  101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];
const GENERATOR = 65_537;

/** The residue class of the exponent a: a = exponent modulo order. */
interface Exponents {
  readonly exponent: bigint;
  readonly order: bigint;
}

/**
 * Whether the private key can be found from the public one.
 * @param modulus big-endian; hostile
 */
export function hasRocaFingerprint(modulus: Uint8Array): boolean {
  let known: Exponents | undefined = { exponent: 0n, order: 1n };
  for (const prime of PRIMES) {
    const logarithm = discreteLogarithm(remainder(modulus, prime), prime);
    if (logarithm === undefined) return false;
    known = intersection(known, logarithm);
    if (known === undefined) return false;
  }
  return true;
}

function remainder(modulus: Uint8Array, prime: number): number {
  let value = 0;
  for (const byte of modulus) value = (value * 256 + byte) % prime;
  return value;
}

/** All a with 65537^a = value modulo the prime; undefined where there is none. At most 166 steps. */
function discreteLogarithm(value: number, prime: number): Exponents | undefined {
  const generator = GENERATOR % prime;
  let exponent: number | undefined;
  let power = 1 % prime;
  let order = 0;
  do {
    if (power === value) exponent = order;
    power = (power * generator) % prime;
    order += 1;
  } while (power !== 1 % prime);
  return exponent === undefined ? undefined : { exponent: BigInt(exponent), order: BigInt(order) };
}

/**
 * Exponents in both classes (the Chinese remainder theorem for orders that share factors); undefined where
 * the classes contradict each other. The smaller order is below 167, so trying is as good as inverting.
 */
function intersection(a: Exponents, b: Exponents): Exponents | undefined {
  for (let step = 0n; step < b.order; step += 1n) {
    const exponent = a.exponent + step * a.order;
    if (exponent % b.order === b.exponent) {
      return { exponent, order: (a.order * b.order) / greatestCommonDivisor(a.order, b.order) };
    }
  }
  return undefined;
}

function greatestCommonDivisor(a: bigint, b: bigint): bigint {
  return b === 0n ? a : greatestCommonDivisor(b, a % b);
}
