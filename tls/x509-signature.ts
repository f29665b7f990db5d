/** Signatures over parts of X.509's structures: certificates' lists and OCSP responses. */
import { type KeyObject, verify } from "node:crypto";
import type { BitString } from "asn1js";

/** RFC 8017 appendix A.2.4, RFC 5758 §3.2, RFC 8410 §3. Not SHA-1: OpenSSL's clients refuse it by default. */
const SIGNATURES: ReadonlyMap<string, readonly [type: string, hash: string | null]> = new Map([
  ["1.2.840.113549.1.1.11", ["rsa", "sha256"]],
  ["1.2.840.113549.1.1.12", ["rsa", "sha384"]],
  ["1.2.840.113549.1.1.13", ["rsa", "sha512"]],
  ["1.2.840.10045.4.3.2", ["ec", "sha256"]],
  ["1.2.840.10045.4.3.3", ["ec", "sha384"]],
  ["1.2.840.10045.4.3.4", ["ec", "sha512"]],
  ["1.3.101.112", ["ed25519", null]],
]);

export interface SignedBytes {
  readonly algorithmId: string;
  /** As they came. */
  readonly bytes: Uint8Array;
  readonly signature: BitString;
}

export function isSignatureOf(
  { algorithmId, bytes, signature }: SignedBytes,
  key: KeyObject,
): boolean {
  const { unusedBits, valueHexView } = signature.valueBlock;
  // Whole bytes: with a bit left out the same signature would have a second form.
  if (unusedBits !== 0) return false;
  const [type, hash] = SIGNATURES.get(algorithmId) ?? [];
  if (hash === undefined || key.asymmetricKeyType !== type) return false;
  return verify(hash, bytes, key, valueHexView);
}
