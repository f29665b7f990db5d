/**
 * Verification of an EK certificate: TCG EK Credential Profile v2.5 §3.2 and RFC 5280 §6, checklist
 * A1 to A10 and A12. The EK's template (A11) and the firmware of its TPM (A10, `checkFirmware`) are not
 * here: a verified certificate says that a manufacturer vouched for this key.
 */
import { constantTimeEqual, isStileError, StileError } from "../../wire/index.ts";
import { hasRocaFingerprint } from "../keys/roca.ts";
import { readCertifiedKey } from "./algorithms.ts";
import { MAX_CERTIFICATE_BYTES, parseCertificate, type ParsedCertificate } from "./certificate.ts";
import { checkLeaf, TCG_KP_EK_CERTIFICATE } from "./checks.ts";
import { readFirstDer } from "./der.ts";
import { certificateInvalid, chainUntrusted } from "./errors.ts";
import { KEY_USAGE, readExtKeyUsage, readKeyUsage } from "./extensions.ts";
import {
  createOddityRows,
  EK_CERTIFICATE_ODDITIES,
  type EkCertificateOddity,
  type OddityRows,
} from "./oddities.ts";
import { findPath, MAX_PATH_LENGTH } from "./path.ts";
import { checkRevocation, type RevocationPolicy, type RevocationStatus } from "./revocation.ts";
import type { TrustedRoots } from "./roots.ts";
import { readTpmIdentity, type TpmIdentity } from "./tpm-identity.ts";
import { readTpmSpecification, type TpmSpecification } from "./tpm-specification.ts";

export interface VerifyEkCertificateOptions {
  /** DER: the EK certificate, then intermediates in any order, 5 at most. Hostile. */
  readonly certificates: readonly Uint8Array[];
  /** DER SubjectPublicKeyInfo that the caller made from the EK's public area. */
  readonly ekPublicKeySpki: Uint8Array;
  readonly ekKeyType: "rsa" | "ecc";
  readonly roots: TrustedRoots;
  /** Unix milliseconds at which every certificate of the path must be valid. */
  readonly atMs: number;
  /** Rows that may be tried where strict verification fails. Default: none. */
  readonly acceptOddities?: readonly EkCertificateOddity[];
  /** Default: no revocation data is looked at, and the result says so. */
  readonly revocation?: RevocationPolicy;
}

export interface VerifiedEkCertificate extends TpmIdentity {
  /** DER SubjectPublicKeyInfo; equal to the EK's public area. */
  readonly spki: Uint8Array;
  readonly subjectKeyType: "rsa" | "ecc";
  /** The rows that the certificates of the path needed, in the table's order. */
  readonly oddities: readonly EkCertificateOddity[];
  readonly revocation: RevocationStatus;
  /** Undefined where the certificate does not say. */
  readonly specification: TpmSpecification | undefined;
}

/**
 * Verifies that a configured manufacturer certified this EK.
 * @throws `ATTEST_EK_CERTIFICATE_INVALID` the certificate is malformed or breaks the profile
 * @throws `ATTEST_ALGORITHM_NOT_ALLOWED` an algorithm or key size of the path is not on the list
 * @throws `ATTEST_EK_CERTIFICATE_EXPIRED` a certificate of the path is not valid at `atMs`
 * @throws `ATTEST_EK_CHAIN_UNTRUSTED` no path to a root, or an issuer that may not issue it
 * @throws `ATTEST_EK_KEY_MISMATCH` the certificate is for another key
 * @throws `ATTEST_KEY_WEAK` an RSA key of the path has the fingerprint of CVE-2017-15361
 * @throws `ATTEST_EK_REVOKED` a certificate or key of the path is revoked or denied
 * @throws `ATTEST_REVOCATION_UNKNOWN` the policy requires a CRL that is not there or not current
 */
export async function verifyEkCertificate(
  options: VerifyEkCertificateOptions,
): Promise<VerifiedEkCertificate> {
  if (!Number.isFinite(options.atMs)) throw new RangeError("atMs is not a time");
  try {
    return await verifyUnder(options, []);
  } catch (error) {
    const rows = options.acceptOddities ?? [];
    const isMalformed = isStileError(error) && error.code === "ATTEST_EK_CERTIFICATE_INVALID";
    if (!isMalformed || rows.length === 0) throw error;
    return verifyUnder(options, rows);
  }
}

async function verifyUnder(
  options: VerifyEkCertificateOptions,
  accepted: readonly EkCertificateOddity[],
): Promise<VerifiedEkCertificate> {
  const { roots, atMs, ekKeyType } = options;
  const { leaf, intermediates } = parseChain(options.certificates, accepted);
  checkLeaf(leaf, atMs);
  const path = await findPath(leaf, intermediates, roots, atMs);
  checkPurpose(leaf, ekKeyType);
  const identity = readTpmIdentity(leaf);
  const specification = readTpmSpecification(leaf);
  checkAnchor(path, roots, identity);
  const spki = checkKey(leaf, options);
  for (const certificate of path) checkStrength(certificate);
  const revocation = await checkRevocation(path, options.revocation, atMs);
  return {
    ...identity,
    spki,
    subjectKeyType: ekKeyType,
    oddities: odditiesOf(path),
    revocation,
    specification,
  };
}

function odditiesOf(path: readonly ParsedCertificate[]): EkCertificateOddity[] {
  const rows = Object.keys(EK_CERTIFICATE_ODDITIES) as EkCertificateOddity[];
  return rows.filter((row) => path.some((certificate) => certificate.rows.met.has(row)));
}

function parseChain(
  certificates: readonly Uint8Array[],
  accepted: readonly EkCertificateOddity[],
): { leaf: ParsedCertificate; intermediates: ParsedCertificate[] } {
  const [first, ...others] = certificates;
  if (first === undefined) throw certificateInvalid("none was sent");
  if (others.length > MAX_PATH_LENGTH - 1) throw certificateInvalid("too many certificates");
  const rows = createOddityRows(accepted);
  const leaf = parseCertificate(withoutPadding(withoutHeader(first, rows), rows), rows);
  return {
    leaf,
    intermediates: others.map((der) => parseCertificate(der, createOddityRows(accepted))),
  };
}

/** TCG_PCCLIENT_STORED_CERT: tag 0x1001, type 0 (a full certificate), length. */
function withoutHeader(bytes: Uint8Array, rows: OddityRows): Uint8Array {
  if (bytes[0] !== 0x10 || bytes[1] !== 0x01 || bytes[2] !== 0x00) return bytes;
  rows.meet("nv-index-header");
  const length = (bytes[3] ?? 0) * 256 + (bytes[4] ?? 0);
  if (length > bytes.length - 5) throw certificateInvalid("a header whose length passes the end");
  // What follows the stated length is the rest of the index, judged as padding.
  const padding = bytes.subarray(5 + length);
  if (padding.length > 0) {
    if (!isPadding(padding)) throw certificateInvalid("left-over bytes");
    rows.meet("nv-index-padding");
  }
  return bytes.subarray(5, 5 + length);
}

/** Other left-over bytes stay, and make the parser refuse. */
function withoutPadding(der: Uint8Array, rows: OddityRows): Uint8Array {
  if (der.length > MAX_CERTIFICATE_BYTES) throw certificateInvalid("larger than the limit");
  const { raw } = readFirstDer(der);
  if (!isPadding(der.subarray(raw.length))) return der;
  rows.meet("nv-index-padding");
  return raw;
}

function isPadding(bytes: Uint8Array): boolean {
  const [first] = bytes;
  return (first === 0x00 || first === 0xff) && bytes.every((byte) => byte === first);
}

/** One vendor's CA, or its thief, must not make TPMs of another vendor. */
function checkAnchor(
  path: readonly ParsedCertificate[],
  roots: TrustedRoots,
  { manufacturer }: TpmIdentity,
): void {
  const anchor = path.at(-1);
  if (anchor !== undefined && roots.isFor?.(anchor, manufacturer) === false) {
    throw chainUntrusted("the root is not for this manufacturer");
  }
}

/** A weak key of an issuer lets anybody make EK certificates (A10). */
function checkStrength({ spki }: ParsedCertificate): void {
  const { modulus } = readCertifiedKey(spki);
  if (modulus !== undefined && hasRocaFingerprint(modulus)) {
    const message = "ek certificate chain: an RSA key of a generator that is known to be weak";
    throw new StileError("ATTEST_KEY_WEAK", message);
  }
}

/** Profile §3.2.12 and §3.2.13: an RSA EK decrypts seeds, an ECC EK agrees on them. */
function checkPurpose(leaf: ParsedCertificate, ekKeyType: "rsa" | "ecc"): void {
  const purposes = readExtKeyUsage(leaf);
  if (purposes === undefined) leaf.rows.meet("no-ext-key-usage");
  else if (!purposes.has(TCG_KP_EK_CERTIFICATE)) {
    throw certificateInvalid("extKeyUsage is not that of an EK certificate");
  }
  const usage = ekKeyType === "rsa" ? KEY_USAGE.keyEncipherment : KEY_USAGE.keyAgreement;
  if (readKeyUsage(leaf)?.has(usage) !== true) {
    throw certificateInvalid("keyUsage does not fit the key");
  }
}

function checkKey(leaf: ParsedCertificate, options: VerifyEkCertificateOptions): Uint8Array {
  const key = readCertifiedKey(leaf.spki);
  const equal = constantTimeEqual(key.spki, options.ekPublicKeySpki);
  if (key.type !== options.ekKeyType || !equal) {
    throw new StileError("ATTEST_EK_KEY_MISMATCH", "ek certificate: it certifies another key");
  }
  if (key.namesOaep) leaf.rows.meet("rsaes-oaep-key");
  return key.spki;
}
