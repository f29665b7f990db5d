/**
 * Certificates of attestation statements (checklist A2 to A5, F3 to F5): the strict X.509 reader of
 * `attest/ek`, and the path to an anchor. x5c is ordered, so the path is walked and not searched.
 * No revocation data is fetched and no address in a certificate is followed (A12, G4).
 *
 * A path is verified when, for each certificate in turn, up to the first one an anchor issued:
 *  1. it is signed by the next one with an algorithm and key of the list;
 *  2. it is within its validity at the given time, and not on the revocation list;
 *  3. it has no critical extension that is not understood here, and no nameConstraints;
 *  4. issuers are CAs that may sign certificates, as deep as their pathLenConstraint allows, and for
 *     the purpose that is asked for where they are confined to purposes.
 */
import { constantTimeEqual, encodeHex, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { checkSignatureAlgorithm } from "../ek/algorithms.ts";
import { parseCertificate, type ParsedCertificate } from "../ek/certificate.ts";
import {
  EXTENSION,
  KEY_USAGE,
  readBasicConstraints,
  readExtKeyUsage,
  readKeyUsage,
} from "../ek/extensions.ts";
import { createOddityRows, type EkCertificateOddity } from "../ek/oddities.ts";
import { asAttestationCertificate, certificateInvalid, chainUntrusted } from "./errors.ts";
import { certifiedKey, isIssuedBy } from "./signature.ts";

/** Leaf to anchor. Android with remote provisioning has 5. */
const MAX_PATH_LENGTH = 7;
/** RFC 5280 §4.2.1.3. */
const DIGITAL_SIGNATURE = 0;

const UNDERSTOOD: ReadonlySet<string> = new Set([
  EXTENSION.keyUsage,
  EXTENSION.subjectAltName,
  EXTENSION.basicConstraints,
  // Policies are what the issuer promises; none is asked for here.
  EXTENSION.certificatePolicies,
  EXTENSION.extKeyUsage,
]);

/** @param rows deviations of EK certificates that AIK certificates share. @throws `ATTEST_WEBAUTHN_CERTIFICATE_INVALID` */
export function parseAttestationCertificate(
  der: Uint8Array,
  rows: readonly EkCertificateOddity[] = [],
): ParsedCertificate {
  return asAttestationCertificate(() => parseCertificate(der, createOddityRows(rows)));
}

/** x5c of a statement: DER certificates, the attestation certificate first. @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID` */
export function readX5c(value: unknown): readonly [Uint8Array, ...Uint8Array[]] {
  const isList = Array.isArray(value) && value.every((item) => item instanceof Uint8Array);
  const [leaf, ...others]: Uint8Array[] = isList ? value : [];
  if (leaf === undefined || others.length >= MAX_PATH_LENGTH) {
    const message = `attestation statement: expected x5c of 1 to ${MAX_PATH_LENGTH} certificates`;
    throw new StileError("ATTEST_WEBAUTHN_STATEMENT_INVALID", message);
  }
  return [leaf, ...others];
}

/** What every attestation certificate must be. @throws `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED` */
export function checkAttestationLeaf(leaf: ParsedCertificate): void {
  asAttestationCertificate(() => {
    checkSignatureAlgorithm(leaf.signatureAlgorithm, leaf.signatureValue);
    certifiedKey(leaf);
    if (hasUnknownCritical(leaf)) throw certificateInvalid("a critical extension is unknown");
    if (readBasicConstraints(leaf).cA) throw certificateInvalid("it is that of a CA");
    // RFC 5280 §4.2.1.3: a key that signs statements has the bit where it has any.
    if (readKeyUsage(leaf)?.has(DIGITAL_SIGNATURE) === false) {
      throw certificateInvalid("its key may not sign");
    }
  });
}

export interface PathCheck {
  /** The leaf passed {@link checkAttestationLeaf}. */
  readonly leaf: ParsedCertificate;
  /** DER, each the issuer of the one before. */
  readonly issuers: readonly Uint8Array[];
  readonly anchors: readonly ParsedCertificate[];
  readonly atMs: number;
  readonly crypto: AttestCrypto;
  /** Key purpose that issuers with an extKeyUsage must have. */
  readonly purpose?: string;
  /** Lower-case hexadecimal serial numbers without leading zeros. */
  readonly revokedSerialNumbers?: ReadonlySet<string>;
}

/**
 * @throws `ATTEST_WEBAUTHN_CHAIN_UNTRUSTED`, `ATTEST_WEBAUTHN_CERTIFICATE_EXPIRED`,
 * `ATTEST_WEBAUTHN_CERTIFICATE_REVOKED`, `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`
 */
export async function verifyCertificatePath(check: PathCheck): Promise<void> {
  const rest = check.issuers.map((der) => parseAttestationCertificate(der));
  checkOne(check.leaf, check);
  let current = check.leaf;
  for (let below = 0; ; below += 1) {
    if (await reachesAnchor(current, below, check)) {
      checkUnused(rest.slice(below), check.anchors);
      return;
    }
    const issuer = rest[below];
    if (issuer === undefined) throw chainUntrusted("no path to a configured anchor");
    asAttestationCertificate(() =>
      checkSignatureAlgorithm(issuer.signatureAlgorithm, issuer.signatureValue),
    );
    if (!(await issues(issuer, current, check.crypto))) {
      throw chainUntrusted("a certificate is not signed by the next one");
    }
    checkIssuer(issuer, below, check);
    current = issuer;
  }
}

/** An anchor may be the certificate itself: FIDO metadata lists attestation certificates too. */
async function reachesAnchor(
  certificate: ParsedCertificate,
  below: number,
  check: PathCheck,
): Promise<boolean> {
  if (check.anchors.some(({ der }) => constantTimeEqual(der, certificate.der))) return true;
  for (const anchor of check.anchors) {
    if (!(await issues(anchor, certificate, check.crypto))) continue;
    checkIssuer(anchor, below, check);
    return true;
  }
  return false;
}

async function issues(
  issuer: ParsedCertificate,
  subject: ParsedCertificate,
  crypto: AttestCrypto,
): Promise<boolean> {
  return (
    constantTimeEqual(subject.issuer, issuer.subject) && (await isIssuedBy(subject, issuer, crypto))
  );
}

/** Of an x5c that goes on after the anchor's child, only a copy of the anchor may be left: same name and key. */
function checkUnused(
  rest: readonly ParsedCertificate[],
  anchors: readonly ParsedCertificate[],
): void {
  const isCopy = ({ subject, spki }: ParsedCertificate): boolean =>
    anchors.some(
      (anchor) =>
        constantTimeEqual(anchor.subject, subject) && constantTimeEqual(anchor.spki, spki),
    );
  if (rest.length > 1 || !rest.every(isCopy)) {
    throw chainUntrusted("certificates that are no part of the path");
  }
}

function checkIssuer(issuer: ParsedCertificate, below: number, check: PathCheck): void {
  certifiedKey(issuer);
  checkOne(issuer, check);
  asAttestationCertificate(() => {
    const { cA, pathLenConstraint } = readBasicConstraints(issuer);
    if (!cA) throw chainUntrusted("an issuer is not a CA");
    if (readKeyUsage(issuer)?.has(KEY_USAGE.keyCertSign) !== true) {
      throw chainUntrusted("an issuer may not sign certificates");
    }
    if (pathLenConstraint !== undefined && below > pathLenConstraint) {
      throw chainUntrusted("the path is longer than a pathLenConstraint allows");
    }
    if (hasUnknownCritical(issuer) || issuer.extensions.has(EXTENSION.nameConstraints)) {
      throw chainUntrusted("an extension of an issuer is not understood");
    }
    const { purpose } = check;
    if (purpose !== undefined && readExtKeyUsage(issuer)?.has(purpose) === false) {
      throw chainUntrusted("an issuer is for another purpose");
    }
  });
}

function checkOne(certificate: ParsedCertificate, check: PathCheck): void {
  const { notBeforeMs, notAfterMs, serialNumber } = certificate;
  if (check.atMs < notBeforeMs || check.atMs > notAfterMs) {
    const message = "attestation chain: a certificate is not valid at this time";
    throw new StileError("ATTEST_WEBAUTHN_CERTIFICATE_EXPIRED", message);
  }
  if (check.revokedSerialNumbers?.has(serialNumberOf(serialNumber)) === true) {
    const message = "attestation chain: a certificate is on the revocation list";
    throw new StileError("ATTEST_WEBAUTHN_CERTIFICATE_REVOKED", message);
  }
}

/** Lower-case hexadecimal without leading zeros: the form of revocation lists. */
function serialNumberOf(bytes: Uint8Array): string {
  return encodeHex(bytes).replace(/^0+/, "");
}

function hasUnknownCritical({ extensions }: ParsedCertificate): boolean {
  for (const [oid, { critical }] of extensions) if (critical && !UNDERSTOOD.has(oid)) return true;
  return false;
}
