/**
 * Whether a certificate of a verified path has been revoked (checklist A9): by CRLs that were verified
 * when they were loaded, and by the operator's own deny list. Nothing is fetched (A12).
 * Where no current list covers a certificate the policy decides, and the result says what was known.
 */
import { constantTimeEqual, encodeHex, StileError } from "../../wire/index.ts";
import { readCertifiedKey } from "./algorithms.ts";
import type { ParsedCertificate } from "./certificate.ts";
import type { RevocationList } from "./crl.ts";
import { sha256 } from "./engine.ts";

export interface RevocationPolicy {
  /**
   * - `required`: every certificate below the root needs a current CRL of its issuer;
   * - `when-available`: what no current CRL covers is accepted, and the result says `unknown`;
   * - `off`: CRLs are not looked at, and the result says `not-checked`.
   */
  readonly mode: "required" | "when-available" | "off";
  readonly lists: readonly RevocationList[];
  /** Holds in every mode. */
  readonly denied?: DenyList;
}

/** What the operator refuses on his own account, leaf, intermediate or root. */
export interface DenyList {
  readonly certificates: readonly DeniedCertificate[];
  /** SHA-256 of SubjectPublicKeyInfo, DER, in lower-case hexadecimal: the key under any certificate. */
  readonly spkiSha256: ReadonlySet<string>;
}

export interface DeniedCertificate {
  /** Name, DER. */
  readonly issuer: Uint8Array;
  /** Hexadecimal without leading zeros. */
  readonly serialNumber: string;
}

/** `good`: a current list covers each certificate below the root, and names none. */
export type RevocationStatus = "good" | "unknown" | "not-checked";

/**
 * @param path leaf to root, verified
 * @param atMs Unix milliseconds
 * @throws `ATTEST_EK_REVOKED`, `ATTEST_REVOCATION_UNKNOWN`
 */
export async function checkRevocation(
  path: readonly ParsedCertificate[],
  policy: RevocationPolicy | undefined,
  atMs: number,
): Promise<RevocationStatus> {
  if (policy?.denied !== undefined) await checkDenied(path, policy.denied);
  if (policy === undefined || policy.mode === "off") return "not-checked";
  let status: RevocationStatus = "good";
  for (const [index, certificate] of path.slice(0, -1).entries()) {
    const issuer = path[index + 1];
    const lists = policy.lists.filter(
      ({ signer }) => issuer !== undefined && isSame(signer, issuer),
    );
    // A list that is out of date still tells of a revocation: those are not taken back.
    if (lists.some(({ revoked }) => revoked.has(encodeHex(certificate.serialNumber))))
      throw revoked();
    if (lists.some((list) => isCurrent(list, atMs))) continue;
    if (policy.mode === "required") {
      const message = "ek certificate chain: no current CRL for one of its certificates";
      throw new StileError("ATTEST_REVOCATION_UNKNOWN", message);
    }
    status = "unknown";
  }
  return status;
}

/** The CA that signed the list: a renewed certificate of the same name and key is still that CA. */
function isSame(signer: ParsedCertificate, issuer: ParsedCertificate): boolean {
  return (
    constantTimeEqual(signer.spki, issuer.spki) && signer.pki.subject.isEqual(issuer.pki.subject)
  );
}

function isCurrent({ thisUpdateMs, nextUpdateMs }: RevocationList, atMs: number): boolean {
  return thisUpdateMs <= atMs && atMs <= nextUpdateMs;
}

async function checkDenied(path: readonly ParsedCertificate[], denied: DenyList): Promise<void> {
  for (const certificate of path) {
    const serialNumber = encodeHex(certificate.serialNumber);
    const isListed = denied.certificates.some(
      (row) =>
        row.serialNumber === serialNumber && constantTimeEqual(row.issuer, certificate.issuer),
    );
    if (isListed || (await isKeyDenied(certificate.spki, denied))) throw revoked();
  }
}

/** The same key under another name of its algorithm is the same key: RSAES-OAEP is looked up as both. */
async function isKeyDenied(spki: Uint8Array, { spkiSha256 }: DenyList): Promise<boolean> {
  for (const form of [spki, readCertifiedKey(spki).spki])
    if (spkiSha256.has(encodeHex(await sha256(form)))) return true;
  return false;
}

function revoked(): StileError {
  const message = "ek certificate chain: a certificate or key of it is revoked";
  return new StileError("ATTEST_EK_REVOKED", message);
}
