/**
 * Certification path of an EK certificate (RFC 5280 §6): a bounded search for issuers, then the whole
 * path through pkijs' CertificateChainValidationEngine.
 * The search is ours because pkijs' has no bound: two intermediates that sign each other keep it busy
 * for ever. pkijs sees one straight path. No network: AIA and CRL addresses are never followed.
 */
import * as pkijs from "pkijs";
import { constantTimeEqual, isStileError, type StileError } from "../../wire/index.ts";
import { isSignatureOfSize, readCertifiedKey } from "./algorithms.ts";
import type { ParsedCertificate } from "./certificate.ts";
import { checkIssuer } from "./checks.ts";
import { engine } from "./engine.ts";
import { chainUntrusted } from "./errors.ts";
import type { TrustedRoots } from "./roots.ts";

/** Leaf to root. Manufacturers use 3; GlobalSign's cross-signed paths have 4. */
export const MAX_PATH_LENGTH = 6;
/** Signature checks for one EK certificate; each costs up to a millisecond. */
const MAX_SIGNATURE_CHECKS = 24;

interface Search {
  readonly anchors: readonly ParsedCertificate[];
  readonly others: readonly ParsedCertificate[];
  readonly atMs: number;
  signatureChecks: number;
  /** Why the first issuer that signed was not good enough: more telling than "untrusted". */
  refusal: StileError | undefined;
}

/**
 * The path from the leaf to a root, both included. The leaf itself has been checked by the caller.
 * @throws `ATTEST_EK_CHAIN_UNTRUSTED`, `ATTEST_EK_CERTIFICATE_EXPIRED`, `ATTEST_ALGORITHM_NOT_ALLOWED`,
 *   `ATTEST_EK_CERTIFICATE_INVALID`
 */
export async function findPath(
  leaf: ParsedCertificate,
  intermediates: readonly ParsedCertificate[],
  roots: TrustedRoots,
  atMs: number,
): Promise<readonly ParsedCertificate[]> {
  const others = [...intermediates, ...roots.intermediates];
  const search: Search = {
    anchors: roots.anchors,
    others,
    atMs,
    signatureChecks: 0,
    refusal: undefined,
  };
  const path = await extendPath([leaf], leaf, search);
  if (path === undefined) throw search.refusal ?? chainUntrusted("no path to a configured root");
  return path;
}

async function extendPath(
  path: readonly ParsedCertificate[],
  last: ParsedCertificate,
  search: Search,
): Promise<readonly ParsedCertificate[] | undefined> {
  for (const issuer of search.anchors) {
    if (!(await mayIssue(issuer, last, path, true, search))) continue;
    const complete = [...path, issuer];
    const refusal = await validatePath(complete, search.atMs);
    if (refusal === undefined) return complete;
    search.refusal ??= refusal;
  }
  if (path.length + 2 > MAX_PATH_LENGTH) return undefined;
  for (const issuer of search.others) {
    if (path.some(({ der }) => constantTimeEqual(der, issuer.der))) continue;
    if (!(await mayIssue(issuer, last, path, false, search))) continue;
    const found = await extendPath([...path, issuer], issuer, search);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Whether `issuer` signed `subject` and may have: name, key, signature, then what it says of itself. */
async function mayIssue(
  issuer: ParsedCertificate,
  subject: ParsedCertificate,
  path: readonly ParsedCertificate[],
  anchor: boolean,
  search: Search,
): Promise<boolean> {
  if (!subject.pki.issuer.isEqual(issuer.pki.subject)) return false;
  try {
    // Before the signature: a huge key would make its verification slow.
    const key = readCertifiedKey(issuer.spki);
    if (!isSignatureOfSize(subject.signatureValue, key)) return false;
    search.signatureChecks += 1;
    if (search.signatureChecks > MAX_SIGNATURE_CHECKS) return false;
    if (!(await isSignedBy(subject.pki, issuer.pki))) return false;
    checkIssuer(issuer, { atMs: search.atMs, below: path.length - 1, anchor });
    return true;
  } catch (error) {
    if (!isStileError(error)) throw error;
    search.refusal ??= error;
    return false;
  }
}

/** Fails closed: what pkijs or its engine cannot handle is not signed. */
export async function isSignedBy(
  subject: pkijs.Certificate,
  issuer: pkijs.Certificate,
): Promise<boolean> {
  try {
    return await subject.verify(issuer, engine);
  } catch {
    return false;
  }
}

/** The refusal of pkijs, which also judges certificate policies; undefined where it accepts. */
async function validatePath(
  path: readonly ParsedCertificate[],
  atMs: number,
): Promise<StileError | undefined> {
  const certificates = path.map(({ pki }) => pki);
  const chain = new pkijs.CertificateChainValidationEngine({
    trustedCerts: certificates.slice(-1),
    // pkijs takes the last one as the leaf.
    certs: certificates.slice(0, -1).reverse(),
    checkDate: new Date(atMs),
    findIssuer: async (certificate) => {
      const issuer = certificates[certificates.indexOf(certificate) + 1];
      return issuer !== undefined && (await isSignedBy(certificate, issuer)) ? [issuer] : [];
    },
  });
  try {
    const { result } = await chain.verify({}, engine);
    return result ? undefined : chainUntrusted("the path does not validate");
  } catch (cause) {
    return chainUntrusted("the path cannot be validated", cause);
  }
}
