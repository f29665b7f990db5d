/**
 * CRLs of client CAs (RFC 5280 §5), judged when they are read. At each handshake OpenSSL looks them up itself, and
 * refuses where one is missing or out of date; here a file that would make it refuse everybody, or that is
 * not from these CAs, is kept from replacing one that is good. It fetches nothing.
 */
import type { X509Certificate } from "node:crypto";
import { fromBER } from "asn1js";
import * as pkijs from "pkijs";
import { StileError } from "../../wire/index.ts";
import { isDer } from "../der.ts";
import { isSignatureOf } from "../x509-signature.ts";

/** The largest public ones have 10 MB; a client CA of one's own has kilobytes. */
export const MAX_CRL_BYTES = 16_777_216;
const MAX_CRLS = 64;
const CRL = /-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]+)-----END X509 CRL-----/g;

export interface CheckedCrls {
  /** PEM, each its own: of a text with several, some releases of Node take the first only. */
  readonly crl: string[];
  /** Until when all of them are good, Unix milliseconds. */
  readonly endsMs: number;
}

/**
 * @param pem one or more CRLs: one of each CA at least, as OpenSSL wants it
 * @throws `TLS_CLIENT_CA_INVALID`, whose message says what is wrong
 */
export function checkCrls(
  pem: string,
  cas: readonly X509Certificate[],
  nowMs: number,
): CheckedCrls {
  const blocks = [...pem.matchAll(CRL)];
  if (blocks.length === 0 || blocks.length > MAX_CRLS) throw invalid("no CRL, or too many");
  const crls = blocks.map(([, base64 = ""]) =>
    readCrl(Uint8Array.from(Buffer.from(base64, "base64"))),
  );
  const issuers = crls.map((crl) => issuerOf(crl, cas));
  if (cas.some((ca) => !issuers.includes(ca))) throw invalid("no CRL of one of the CAs");
  const endsMs = Math.min(...crls.map((crl) => endOf(crl, nowMs)));
  return { crl: blocks.map(([block]) => block), endsMs };
}

function readCrl(der: Uint8Array<ArrayBuffer>): pkijs.CertificateRevocationList {
  try {
    if (!isDer(der)) throw invalid("a CRL that is not DER");
    return new pkijs.CertificateRevocationList({ schema: fromBER(der).result });
  } catch (cause) {
    if (cause instanceof StileError) throw cause;
    throw invalid("a CRL that cannot be read", cause);
  }
}

function issuerOf(
  crl: pkijs.CertificateRevocationList,
  cas: readonly X509Certificate[],
): X509Certificate {
  const algorithmId = crl.signatureAlgorithm.algorithmId;
  const signature = crl.signatureValue;
  const issuer = cas.find((ca) => {
    const { subject } = pkijs.Certificate.fromBER(Uint8Array.from(ca.raw));
    const signed = { algorithmId, bytes: crl.tbsView, signature };
    return subject.isEqual(crl.issuer) && isSignatureOf(signed, ca.publicKey);
  });
  if (issuer === undefined) throw invalid("a CRL that none of the CAs has signed");
  // Delta lists, and lists for some certificates only, say so in critical extensions (RFC 5280 §5.2.4, §5.2.5).
  if (crl.crlExtensions?.extensions.some(({ critical }) => critical) === true) {
    throw invalid("a CRL with a critical extension");
  }
  return issuer;
}

function endOf({ nextUpdate, thisUpdate }: pkijs.CertificateRevocationList, nowMs: number): number {
  if (nextUpdate === undefined) throw invalid("a CRL without nextUpdate");
  if (!(thisUpdate.value.getTime() <= nowMs)) throw invalid("a CRL that is not valid yet");
  const endMs = nextUpdate.value.getTime();
  if (!(nowMs < endMs)) throw invalid("a CRL that is out of date");
  return endMs;
}

export function invalid(what: string, cause?: unknown): StileError {
  return new StileError("TLS_CLIENT_CA_INVALID", `client certificates: ${what}`, { cause });
}
