/**
 * Numbers and points of one computation on OpenSSL: each is flagged so that OpenSSL takes its branchless
 * routes, and is wiped and freed when the computation ends, whether it succeeds or not.
 */
import type { Libcrypto, Pointer } from "./libcrypto.ts";

const BN_FLG_CONSTTIME = 4;

/** The temporaries of one call; all of them are wiped at its end, whether secret or not. */
export interface Scope {
  number(bytes: Uint8Array): Pointer;
  zero(): Pointer;
  point(group: Pointer): Pointer;
}

export function withScope<T>(lib: Libcrypto, work: (scope: Scope) => T): T {
  const numbers: Pointer[] = [];
  const points: Pointer[] = [];
  const number = (pointer: Pointer | null): Pointer => {
    const one = made(pointer);
    numbers.push(one);
    lib.setFlags(one, BN_FLG_CONSTTIME);
    return one;
  };
  try {
    return work({
      number: (bytes) => number(lib.decodeNumber(bytes, bytes.length, null)),
      zero: () => number(lib.newNumber()),
      point(group) {
        const point = made(lib.newPoint(group));
        points.push(point);
        return point;
      },
    });
  } finally {
    numbers.forEach((one) => lib.clearFreeNumber(one));
    points.forEach((one) => lib.clearFreePoint(one));
  }
}

export function made(pointer: Pointer | null): Pointer {
  if (pointer === null) throw new Error("OpenSSL is out of memory");
  return pointer;
}

export function succeeded(result: number): void {
  if (result !== 1) throw new Error("an operation of OpenSSL failed");
}
