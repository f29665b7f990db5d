/**
 * Modular arithmetic on JavaScript big integers, whose time depends on their values: for what is public, and for
 * blinds, which are used once. No private key comes here.
 */

/** Bits of an exponent that are taken at a time. */
const WINDOW = 4;

export function bytesToInt(bytes: Uint8Array): bigint {
  let hex = "0x0";
  for (const byte of bytes) hex += byte.toString(16).padStart(2, "0");
  return BigInt(hex);
}

/** @param value below 256 to the power of `length` */
export function intToBytes(value: bigint, length: number): Uint8Array<ArrayBuffer> {
  const hex = value.toString(16).padStart(2 * length, "0");
  return Uint8Array.from({ length }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

/** @param base from 0 to below the modulus */
export function powerMod(base: bigint, exponent: bigint, modulus: bigint): bigint {
  const powers = [1n];
  for (let i = 1; i < 2 ** WINDOW; i += 1) powers.push(((powers[i - 1] ?? 1n) * base) % modulus);
  let result = 1n;
  for (const digit of exponent.toString(2 ** WINDOW)) {
    for (let i = 0; i < WINDOW; i += 1) result = (result * result) % modulus;
    const power = powers[Number.parseInt(digit, 2 ** WINDOW)] ?? 1n;
    result = (result * power) % modulus;
  }
  return result;
}

/** Undefined where there is none. */
export function inverseMod(value: bigint, modulus: bigint): bigint | undefined {
  let [r, nextR] = [modulus, value];
  let [t, nextT] = [0n, 1n];
  while (nextR !== 0n) {
    const quotient = r / nextR;
    [r, nextR] = [nextR, r - quotient * nextR];
    [t, nextT] = [nextT, t - quotient * nextT];
  }
  if (r !== 1n) return undefined;
  return t < 0n ? t + modulus : t;
}
