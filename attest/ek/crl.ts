/**
 * Certificate revocation lists as files that the operator supplies: RFC 5280 §5, checklist A9, A12.
 * A list is read and its signature verified once, when it is loaded, by a certificate of the configured
 * bundle. Lists that cover only a part are refused (every critical extension: delta lists, indirect lists,
 * issuing distribution points), since a part that is taken for the whole would hide revocations.
 */
import * as pkijs from "pkijs";
import { encodeHex, isStileError } from "../../wire/index.ts";
import { checkSignatureAlgorithm, isSignatureOfSize, readCertifiedKey } from "./algorithms.ts";
import type { ParsedCertificate } from "./certificate.ts";
import {
  checkDer,
  children,
  contextTag,
  type DerValue,
  expectTag,
  parseDer,
  readBitString,
  readBoolean,
  readOid,
  readPositiveInteger,
  readSmallInteger,
  TAG,
} from "./der.ts";
import { engine } from "./engine.ts";
import { revocationDataInvalid } from "./errors.ts";
import { KEY_USAGE, readKeyUsage } from "./extensions.ts";
import { createOddityRows } from "./oddities.ts";
import type { TrustedRoots } from "./roots.ts";
import { readTime } from "./time.ts";

/** The DER reader's lengths have three bytes at most; the largest lists of TPM vendors are below 1 MiB. */
const MAX_CRL_BYTES = 8 * 1024 * 1024;
/** RFC 5280 §5.1.2.1: version 2 is encoded as 1. */
const VERSION_2 = 1;

/** The signature has been verified; whether it is current is judged at each use. */
export interface RevocationList {
  /** The certificate of the bundle that signed it. */
  readonly signer: ParsedCertificate;
  /** Unix milliseconds. */
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  /** Serial numbers in hexadecimal without leading zeros. */
  readonly revoked: ReadonlySet<string>;
}

/**
 * @param lists DER CertificateList each; from the operator, so one that cannot be used is an error
 * @param roots anchors and intermediates, one of which must have signed each list
 * @throws `ATTEST_REVOCATION_DATA_INVALID`
 */
export async function parseRevocationLists(
  lists: readonly Uint8Array[],
  roots: TrustedRoots,
): Promise<readonly RevocationList[]> {
  return Promise.all(lists.map((der) => parseRevocationList(der, roots)));
}

async function parseRevocationList(
  bytes: Uint8Array,
  roots: TrustedRoots,
): Promise<RevocationList> {
  try {
    if (bytes.length > MAX_CRL_BYTES) throw revocationDataInvalid("a CRL larger than the limit");
    const der = Uint8Array.from(bytes);
    const { signatureValue, ...fields } = readCertificateList(der);
    const signer = await findSigner(der, signatureValue, roots);
    return { ...fields, signer };
  } catch (cause) {
    const isOurs = isStileError(cause) && cause.code === "ATTEST_REVOCATION_DATA_INVALID";
    if (isOurs) throw cause;
    throw revocationDataInvalid("a CRL that cannot be read", cause);
  }
}

type ListFields = Omit<RevocationList, "signer">;

function readCertificateList(
  der: Uint8Array,
): ListFields & { readonly signatureValue: Uint8Array } {
  const list = parseDer(der, TAG.SEQUENCE);
  checkDer(list, createOddityRows(["set-of-order"]));
  const [tbsCertList, signatureAlgorithm, signatureValue, ...rest] = children(list);
  if (rest.length > 0) throw revocationDataInvalid("fields after the signature");
  const outer = expectTag(signatureAlgorithm, TAG.SEQUENCE);
  const signature = readBitString(expectTag(signatureValue, TAG.BIT_STRING));
  if (signature.unusedBits !== 0) throw revocationDataInvalid("a malformed signature");
  checkSignatureAlgorithm(outer, signature.bytes);
  const fields = readTbsCertList(expectTag(tbsCertList, TAG.SEQUENCE), outer);
  return { ...fields, signatureValue: signature.bytes };
}

function readTbsCertList(tbs: DerValue, outer: DerValue): ListFields {
  const [version, signature, issuer, thisUpdate, nextUpdate, ...optional] = children(tbs);
  if (readSmallInteger(expectTag(version, TAG.INTEGER)) !== VERSION_2) {
    throw revocationDataInvalid("a version other than 2");
  }
  if (encodeHex(expectTag(signature, TAG.SEQUENCE).raw) !== encodeHex(outer.raw)) {
    throw revocationDataInvalid("two different signature algorithms");
  }
  expectTag(issuer, TAG.SEQUENCE);
  const entries = optional[0]?.tag === TAG.SEQUENCE ? optional.shift() : undefined;
  const extensions = optional.shift();
  if (optional.length > 0) throw revocationDataInvalid("fields after its extensions");
  // RFC 5280 §5.1.2.5: nextUpdate is required, and without it no list would ever be out of date.
  const fields = { thisUpdateMs: readTime(thisUpdate), nextUpdateMs: readTime(nextUpdate) };
  if (extensions !== undefined) {
    const [all, ...more] = children(expectTag(extensions, contextTag(0)));
    if (more.length > 0) throw revocationDataInvalid("malformed extensions");
    checkNothingCritical(expectTag(all, TAG.SEQUENCE));
  }
  return { ...fields, revoked: readRevoked(entries) };
}

function readRevoked(entries: DerValue | undefined): Set<string> {
  const revoked = new Set<string>();
  for (const entry of entries === undefined ? [] : children(entries)) {
    const [userCertificate, revocationDate, extensions, ...rest] = children(
      expectTag(entry, TAG.SEQUENCE),
    );
    if (rest.length > 0) throw revocationDataInvalid("a malformed entry");
    readTime(revocationDate);
    if (extensions !== undefined) checkNothingCritical(expectTag(extensions, TAG.SEQUENCE));
    revoked.add(encodeHex(readPositiveInteger(expectTag(userCertificate, TAG.INTEGER))));
  }
  return revoked;
}

/** RFC 5280 §5.2: a list with a critical extension that is not understood must not be used. */
function checkNothingCritical(extensions: DerValue): void {
  for (const extension of children(extensions)) {
    const [oid, flag] = children(expectTag(extension, TAG.SEQUENCE));
    readOid(expectTag(oid, TAG.OBJECT_IDENTIFIER));
    if (flag?.tag === TAG.BOOLEAN && readBoolean(flag)) {
      throw revocationDataInvalid("a critical extension, so that the CRL may not be complete");
    }
  }
}

async function findSigner(
  der: Uint8Array,
  signatureValue: Uint8Array,
  roots: TrustedRoots,
): Promise<ParsedCertificate> {
  const crl = pkijs.CertificateRevocationList.fromBER(der);
  for (const candidate of [...roots.anchors, ...roots.intermediates]) {
    if (!crl.issuer.isEqual(candidate.pki.subject)) continue;
    // RFC 5280 §6.3.3 (f): the key must be one for CRLs.
    if (readKeyUsage(candidate)?.has(KEY_USAGE.cRLSign) !== true) continue;
    if (await isSignedBy(crl, signatureValue, candidate)) return candidate;
  }
  throw revocationDataInvalid("a CRL that no certificate of the bundle signed");
}

async function isSignedBy(
  crl: pkijs.CertificateRevocationList,
  signatureValue: Uint8Array,
  { pki, spki }: ParsedCertificate,
): Promise<boolean> {
  try {
    if (!isSignatureOfSize(signatureValue, readCertifiedKey(spki))) return false;
    return await crl.verify({ issuerCertificate: pki }, engine);
  } catch {
    return false;
  }
}
