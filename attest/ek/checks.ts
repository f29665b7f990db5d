/**
 * What one certificate of a path must be, whoever signed it (RFC 5280 §6.1.3 and §6.1.4, checklist
 * A2 to A5). pkijs looks at none of pathLenConstraint, critical extensions of the leaf, algorithms
 * and key sizes. Faults of the EK certificate and faults of an issuer have different codes.
 */
import { StileError } from "../../wire/index.ts";
import { checkSignatureAlgorithm, readCertifiedKey } from "./algorithms.ts";
import type { ParsedCertificate } from "./certificate.ts";
import { certificateInvalid, chainUntrusted } from "./errors.ts";
import {
  EXTENSION,
  KEY_USAGE,
  readBasicConstraints,
  readExtKeyUsage,
  readKeyUsage,
} from "./extensions.ts";

/** TCG EK Credential Profile v2.5 §3.2.13: tcg-kp-EKCertificate. */
export const TCG_KP_EK_CERTIFICATE = "2.23.133.8.1";

/**
 * Extensions that are judged here or by pkijs, so that they may be critical. nameConstraints is not:
 * pkijs compares it with the subject alone, which is empty in an EK certificate.
 */
const UNDERSTOOD: ReadonlySet<string> = new Set([
  EXTENSION.keyUsage,
  EXTENSION.subjectAltName,
  EXTENSION.basicConstraints,
  EXTENSION.certificatePolicies,
  EXTENSION.extKeyUsage,
]);

/** @throws `ATTEST_EK_CERTIFICATE_EXPIRED` outside of the validity period, whose ends belong to it */
export function checkValidity(certificate: ParsedCertificate, atMs: number): void {
  if (atMs < certificate.notBeforeMs || atMs > certificate.notAfterMs) {
    throw new StileError(
      "ATTEST_EK_CERTIFICATE_EXPIRED",
      "ek certificate chain: a certificate is not valid at this time",
    );
  }
}

/** @throws `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_EK_CERTIFICATE_EXPIRED`, `ATTEST_EK_CERTIFICATE_INVALID` */
export function checkLeaf(leaf: ParsedCertificate, atMs: number): void {
  checkSignatureAlgorithm(leaf.signatureAlgorithm, leaf.signatureValue);
  readCertifiedKey(leaf.spki);
  checkValidity(leaf, atMs);
  if (hasUnknownCritical(leaf)) throw certificateInvalid("a critical extension is not understood");
  if (readBasicConstraints(leaf).cA)
    throw certificateInvalid("a CA certificate is not an EK certificate");
  if (readKeyUsage(leaf)?.has(KEY_USAGE.keyCertSign) === true) {
    throw certificateInvalid("an EK does not sign certificates");
  }
}

/**
 * @param below how many certificates lie between this issuer and the leaf; self-issued ones count
 *   too, which is stricter than RFC 5280 §4.2.1.9
 * @param anchor its own signature is not judged: the operator vouches for it
 * @throws `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_EK_CERTIFICATE_EXPIRED`, `ATTEST_EK_CHAIN_UNTRUSTED`,
 *   `ATTEST_EK_CERTIFICATE_INVALID`
 */
export function checkIssuer(
  issuer: ParsedCertificate,
  { atMs, below, anchor }: { atMs: number; below: number; anchor: boolean },
): void {
  if (!anchor) checkSignatureAlgorithm(issuer.signatureAlgorithm, issuer.signatureValue);
  readCertifiedKey(issuer.spki);
  checkValidity(issuer, atMs);
  if (hasUnknownCritical(issuer) || issuer.extensions.has(EXTENSION.nameConstraints)) {
    throw chainUntrusted("an extension of an issuer is not understood");
  }
  const { cA, pathLenConstraint } = readBasicConstraints(issuer);
  if (!cA) throw chainUntrusted("an issuer is not a CA");
  if (readKeyUsage(issuer)?.has(KEY_USAGE.keyCertSign) !== true) {
    throw chainUntrusted("an issuer may not sign certificates");
  }
  if (pathLenConstraint !== undefined && below > pathLenConstraint) {
    throw chainUntrusted("the path is longer than a pathLenConstraint allows");
  }
  // A CA that the manufacturer confines to another purpose must not make EKs.
  if (readExtKeyUsage(issuer)?.has(TCG_KP_EK_CERTIFICATE) === false) {
    throw chainUntrusted("an issuer is for another purpose");
  }
}

function hasUnknownCritical({ extensions }: ParsedCertificate): boolean {
  for (const [oid, { critical }] of extensions) if (critical && !UNDERSTOOD.has(oid)) return true;
  return false;
}
