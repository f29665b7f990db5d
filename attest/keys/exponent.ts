/** The only RSA exponent that keys of a TPM may have here (checklist A8, B2). */
import { DEFAULT_RSA_EXPONENT } from "../structures/spki.ts";

/** TPM 2.0 Part 2 §12.2.3.5: 0 stands for 65537. */
export function hasDefaultExponent(exponent: number): boolean {
  return exponent === 0 || exponent === DEFAULT_RSA_EXPONENT;
}
