/**
 * Verification of an EK certificate: TCG EK Credential Profile v2.5 §3.2 and RFC 5280 §6, checklist
 * A1 to A8 and A12. Revocation (A9), known-weak keys (A10) and the EK's template (A11) are not here:
 * a verified certificate says that a manufacturer once vouched for this key.
 */
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import { readCertifiedKey } from "./algorithms.ts";
import { MAX_CERTIFICATE_BYTES, parseCertificate, type ParsedCertificate } from "./certificate.ts";
import { checkLeaf, TCG_KP_EK_CERTIFICATE } from "./checks.ts";
import { readFirstDer } from "./der.ts";
import { certificateInvalid } from "./errors.ts";
import { KEY_USAGE, readExtKeyUsage, readKeyUsage } from "./extensions.ts";
import { findPath, MAX_PATH_LENGTH } from "./path.ts";
import type { TrustedRoots } from "./roots.ts";
import { readTpmIdentity, type TpmIdentity } from "./tpm-identity.ts";

/**
 * Deviations that real EK certificates have. Each is refused unless its row is named in the options,
 * and reported where it was met.
 * - `nv-index-padding`: 0x00 or 0xff bytes follow the certificate, as read from a larger NV index.
 * - `rsaes-oaep-key`: the key's algorithm is id-RSAES-OAEP in place of rsaEncryption.
 */
export type EkCertificateOddity = "nv-index-padding" | "rsaes-oaep-key";

export interface VerifyEkCertificateOptions {
  /** DER: the EK certificate, then intermediates in any order, 5 at most. Hostile. */
  readonly certificates: readonly Uint8Array[];
  /** DER SubjectPublicKeyInfo that the caller made from the EK's public area. */
  readonly ekPublicKeySpki: Uint8Array;
  readonly ekKeyType: "rsa" | "ecc";
  readonly roots: TrustedRoots;
  /** Unix milliseconds at which every certificate of the path must be valid. */
  readonly atMs: number;
  /** Default: none. */
  readonly acceptOddities?: readonly EkCertificateOddity[];
}

export interface VerifiedEkCertificate extends TpmIdentity {
  /** DER SubjectPublicKeyInfo; equal to the EK's public area. */
  readonly spki: Uint8Array;
  readonly subjectKeyType: "rsa" | "ecc";
  readonly oddities: readonly EkCertificateOddity[];
}

/**
 * Verifies that a configured manufacturer certified this EK.
 * @throws `ATTEST_EK_CERTIFICATE_INVALID` the certificate is malformed or breaks the profile
 * @throws `ATTEST_ALGORITHM_NOT_ALLOWED` an algorithm or key size of the path is not on the list
 * @throws `ATTEST_EK_CERTIFICATE_EXPIRED` a certificate of the path is not valid at `atMs`
 * @throws `ATTEST_EK_CHAIN_UNTRUSTED` no path to a root, or an issuer that may not issue it
 * @throws `ATTEST_EK_KEY_MISMATCH` the certificate is for another key
 */
export async function verifyEkCertificate(
  options: VerifyEkCertificateOptions,
): Promise<VerifiedEkCertificate> {
  const { roots, atMs, ekKeyType } = options;
  if (!Number.isFinite(atMs)) throw new RangeError("atMs is not a time");
  const oddities = new Set<EkCertificateOddity>();
  const { leaf, intermediates } = parseChain(options.certificates, oddities);
  checkLeaf(leaf, atMs);
  await findPath(leaf, intermediates, roots, atMs);
  checkPurpose(leaf, ekKeyType);
  const identity = readTpmIdentity(leaf);
  const spki = checkKey(leaf, options, oddities);
  for (const oddity of oddities) {
    if (options.acceptOddities?.includes(oddity) !== true)
      throw certificateInvalid(`oddity ${oddity}`);
  }
  return { ...identity, spki, subjectKeyType: ekKeyType, oddities: [...oddities] };
}

function parseChain(
  certificates: readonly Uint8Array[],
  oddities: Set<EkCertificateOddity>,
): { leaf: ParsedCertificate; intermediates: ParsedCertificate[] } {
  const [first, ...others] = certificates;
  if (first === undefined) throw certificateInvalid("none was sent");
  if (others.length > MAX_PATH_LENGTH - 1) throw certificateInvalid("too many certificates");
  const leaf = parseCertificate(withoutPadding(first, oddities));
  return { leaf, intermediates: others.map(parseCertificate) };
}

/** Other left-over bytes stay, and make the parser refuse. */
function withoutPadding(der: Uint8Array, oddities: Set<EkCertificateOddity>): Uint8Array {
  if (der.length > MAX_CERTIFICATE_BYTES) throw certificateInvalid("larger than the limit");
  const { raw } = readFirstDer(der);
  const padding = der.subarray(raw.length);
  const isPadding = padding.length > 0 && (padding[0] === 0x00 || padding[0] === 0xff);
  if (!isPadding || padding.some((byte) => byte !== padding[0])) return der;
  oddities.add("nv-index-padding");
  return raw;
}

/** Profile §3.2.12 and §3.2.13: an RSA EK decrypts seeds, an ECC EK agrees on them. */
function checkPurpose(leaf: ParsedCertificate, ekKeyType: "rsa" | "ecc"): void {
  if (readExtKeyUsage(leaf)?.has(TCG_KP_EK_CERTIFICATE) !== true) {
    throw certificateInvalid("extKeyUsage is not that of an EK certificate");
  }
  const usage = ekKeyType === "rsa" ? KEY_USAGE.keyEncipherment : KEY_USAGE.keyAgreement;
  if (readKeyUsage(leaf)?.has(usage) !== true) {
    throw certificateInvalid("keyUsage does not fit the key");
  }
}

function checkKey(
  leaf: ParsedCertificate,
  options: VerifyEkCertificateOptions,
  oddities: Set<EkCertificateOddity>,
): Uint8Array {
  const key = readCertifiedKey(leaf.spki);
  const equal = constantTimeEqual(key.spki, options.ekPublicKeySpki);
  if (key.type !== options.ekKeyType || !equal) {
    throw new StileError("ATTEST_EK_KEY_MISMATCH", "ek certificate: it certifies another key");
  }
  if (key.namesOaep) oddities.add("rsaes-oaep-key");
  return key.spki;
}
