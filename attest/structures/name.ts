/** Names and qualified Names: TPM 2.0 Library Part 1 §16 "Names" and §26.5, Part 2 §10.5.3 (TPM2B_NAME). */
import { concatBytes } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { TpmtPublic } from "./public.ts";

/** nameAlg || H(TPMT_PUBLIC), over the bytes as received (B3). */
export function computeName(area: TpmtPublic, crypto: AttestCrypto): Uint8Array {
  const { alg, name } = area.nameAlg;
  return concatBytes([Uint8Array.of(alg >> 8, alg & 0xff), crypto.hash(name, area.raw)]);
}

/**
 * nameAlg || H(qualified Name of the parent || Name): where in which hierarchy an object is.
 * @param parentQualifiedName of a primary, the 4-byte handle of its hierarchy
 */
export function computeQualifiedName(
  area: TpmtPublic,
  parentQualifiedName: Uint8Array,
  crypto: AttestCrypto,
): Uint8Array {
  const { alg, name } = area.nameAlg;
  const path = concatBytes([parentQualifiedName, computeName(area, crypto)]);
  return concatBytes([Uint8Array.of(alg >> 8, alg & 0xff), crypto.hash(name, path)]);
}
