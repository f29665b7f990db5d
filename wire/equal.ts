/**
 * Equality of byte strings whose running time depends on the length alone, so that a secret cannot
 * be found byte by byte. Lengths are public in every use here. The JIT gives no promise of constant
 * time; accumulating with OR leaves no data-dependent branch for it to speculate on.
 */
export function constantTimeEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i += 1) difference |= (a[i] ?? 0) ^ (b[i] ?? 0);
  return difference === 0;
}
