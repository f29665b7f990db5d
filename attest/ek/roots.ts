/**
 * The manufacturers' certificates that the operator trusts, from PEM (RFC 7468): self-signed ones are
 * anchors, others help to build paths but are trusted no more than those that a client sends.
 * Reading them judges neither dates nor algorithms; each path does that.
 */
import { constantTimeEqual, decodeBase64Url, isStileError } from "../../wire/index.ts";
import { parseCertificate, type ParsedCertificate } from "./certificate.ts";
import { certificateInvalid } from "./errors.ts";
import { createOddityRows, type EkCertificateOddity } from "./oddities.ts";
import { isSignedBy } from "./path.ts";

/** All manufacturers together publish some hundreds. */
const MAX_ROOT_CERTIFICATES = 4096;
const MAX_PEM_CHARACTERS = 16 * 1024 * 1024;
/** The operator vouches for these bytes, so faults of encoding that issuers have are taken from them. */
export const ISSUER_ODDITIES: readonly EkCertificateOddity[] = [
  "set-of-order",
  "padded-serial-number",
];
const BOUNDARY = /-----(?:BEGIN|END) [A-Z0-9 ]+-----/g;
const BLOCK = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g;

export interface TrustedRoots {
  readonly anchors: readonly ParsedCertificate[];
  readonly intermediates: readonly ParsedCertificate[];
  /** Whether this anchor may vouch for TPMs of this vendor (`id:XXXXXXXX`); any, where it is absent. */
  readonly isFor?: (anchor: ParsedCertificate, vendorId: string) => boolean;
}

/**
 * @param pem one or more certificates; text between them, as `openssl x509 -text` writes it, is skipped
 * @throws `ATTEST_EK_CERTIFICATE_INVALID` where a block is malformed or none is a self-signed certificate
 */
export async function parseTrustedRoots(pem: string): Promise<TrustedRoots> {
  const anchors: ParsedCertificate[] = [];
  const intermediates: ParsedCertificate[] = [];
  for (const der of decodePemBlocks(pem)) {
    const certificate = parseCertificate(der, createOddityRows(ISSUER_ODDITIES));
    const list = (await isSelfSigned(certificate)) ? anchors : intermediates;
    // Manufacturers' collections repeat certificates under several file names.
    if (!list.some((known) => constantTimeEqual(known.der, certificate.der)))
      list.push(certificate);
  }
  if (anchors.length === 0) throw certificateInvalid("trusted roots: no self-signed certificate");
  return { anchors, intermediates };
}

/** A key-rollover certificate is self-issued and not self-signed: it is no anchor. */
export async function isSelfSigned({ issuer, subject, pki }: ParsedCertificate): Promise<boolean> {
  return constantTimeEqual(issuer, subject) && (await isSignedBy(pki, pki));
}

/** DER of each certificate. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function decodePemBlocks(pem: string): Uint8Array[] {
  if (pem.length > MAX_PEM_CHARACTERS) throw certificateInvalid("trusted roots: too large");
  const blocks = [...pem.matchAll(BLOCK)];
  // A damaged block must not vanish without a word: a root would be missing.
  if (blocks.length * 2 !== [...pem.matchAll(BOUNDARY)].length) {
    throw certificateInvalid("trusted roots: a block that is not a certificate");
  }
  if (blocks.length > MAX_ROOT_CERTIFICATES) throw certificateInvalid("trusted roots: too many");
  return blocks.map(([, base64 = ""]) => decodeBase64(base64));
}

/** Base64 with padding and white space as PEM and JOSE have it. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function decodeBase64(text: string): Uint8Array {
  const characters = text.replaceAll(/\s/g, "").replaceAll("+", "-").replaceAll("/", "_");
  try {
    return decodeBase64Url(characters.replace(/={1,2}$/, ""));
  } catch (cause) {
    if (isStileError(cause)) throw certificateInvalid("trusted roots: malformed base64", cause);
    throw cause;
  }
}
