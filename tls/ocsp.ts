/**
 * OCSP responses (RFC 6960 §4.2) that are to be stapled (RFC 8446 §4.4.2.1): a response is checked as a client
 * would check it, since a client that gets a wrong one ends the handshake, and without one it goes on. Only
 * `good` passes: what says less helps no client. It fetches nothing and asks no responder.
 */
import { createHash, X509Certificate } from "node:crypto";
import { fromBER } from "asn1js";
import * as pkijs from "pkijs";
import { StileError } from "../wire/index.ts";
import { isDer } from "./der.ts";
import { isSignatureOf } from "./x509-signature.ts";

/** Real ones have 300 to 3,000 bytes; the whole of it goes into every full handshake. */
const MAX_RESPONSE_BYTES = 16_384;
/** A responder sends its own certificate, some with that of the CA. */
const MAX_CERTIFICATES = 4;
const BASIC_RESPONSE = "1.3.6.1.5.5.7.48.1.1";
/** RFC 6960 §4.2.2.2: whom a CA lets sign for it. */
const OCSP_SIGNING = "1.3.6.1.5.5.7.3.9";
/** OCSPResponseStatus: successful. */
const SUCCESSFUL = 0;
/** CertStatus: good is [0] IMPLICIT NULL. */
const GOOD = 0;

/** Of CertID: an identifier, not a promise, so SHA-1 will do (RFC 5019 §2.1.1 asks for it). */
const ID_HASHES: ReadonlyMap<string, string> = new Map([
  ["1.3.14.3.2.26", "sha1"],
  ["2.16.840.1.101.3.4.2.1", "sha256"],
  ["2.16.840.1.101.3.4.2.2", "sha384"],
  ["2.16.840.1.101.3.4.2.3", "sha512"],
]);

/** A response that was verified; whether it is still current is judged at each use. */
export interface OcspStaple {
  readonly der: Uint8Array;
  /** Unix milliseconds. */
  readonly thisUpdateMs: number;
  /** Unix milliseconds: from then on it must not be stapled. */
  readonly nextUpdateMs: number;
}

/** Whose status is asked for. The issuer has issued the leaf: its caller has verified that. */
export interface OcspSubject {
  readonly leaf: X509Certificate;
  readonly issuer: X509Certificate;
}

/**
 * In this order: size and form, signer, the certificate it is about, window, status.
 * @param response DER OCSPResponse, from a file or a responder: not trusted
 * @throws `TLS_OCSP_INVALID`, whose message says what is wrong with it
 */
export function verifyOcspResponse(
  response: Uint8Array,
  subject: OcspSubject,
  nowMs: number,
): OcspStaple {
  const der = Uint8Array.from(response);
  const basic = readBasicResponse(der);
  const { nextUpdateMs, thisUpdateMs } = judge(basic, subject, nowMs);
  return { der, thisUpdateMs, nextUpdateMs };
}

function judge(
  basic: pkijs.BasicOCSPResponse,
  subject: OcspSubject,
  nowMs: number,
): Omit<OcspStaple, "der"> {
  if (!isSignedFor(basic, subject.issuer, nowMs)) {
    throw invalid("signed by neither the issuer nor whom it lets sign");
  }
  const single = basic.tbsResponseData.responses.find(({ certID }) => isAbout(certID, subject));
  if (single === undefined) throw invalid("about another certificate");
  const thisUpdateMs = single.thisUpdate.getTime();
  // RFC 6960 §4.2.2.1: without it newer information is there at all times, so this one is out of date.
  if (single.nextUpdate === undefined) throw invalid("without nextUpdate");
  const nextUpdateMs = single.nextUpdate.getTime();
  if (!(thisUpdateMs <= nowMs)) throw invalid("not valid yet");
  if (!(nowMs < nextUpdateMs)) throw invalid("out of date");
  if (!isGood(single.certStatus)) throw invalid("about a certificate that is not good");
  return { thisUpdateMs, nextUpdateMs };
}

function readBasicResponse(der: Uint8Array<ArrayBuffer>): pkijs.BasicOCSPResponse {
  if (der.length > MAX_RESPONSE_BYTES) throw invalid("larger than the limit");
  try {
    if (!isDer(der)) throw invalid("not one value of DER");
    const whole = fromBER(der);
    const { responseBytes, responseStatus } = new pkijs.OCSPResponse({ schema: whole.result });
    if (responseStatus.valueBlock.valueDec !== SUCCESSFUL) throw invalid("an error of a responder");
    if (responseBytes?.responseType !== BASIC_RESPONSE) throw invalid("not of the basic type");
    const inner = responseBytes.response.valueBlock.valueHexView;
    if (!isDer(inner)) throw invalid("not one value of DER");
    const basic = fromBER(inner);
    return new pkijs.BasicOCSPResponse({ schema: basic.result });
  } catch (cause) {
    if (cause instanceof StileError) throw cause;
    throw invalid("not an OCSPResponse", cause);
  }
}

function isSignedFor(
  basic: pkijs.BasicOCSPResponse,
  issuer: X509Certificate,
  nowMs: number,
): boolean {
  if (isSignedBy(basic, issuer)) return true;
  const certificates = (basic.certs ?? []).slice(0, MAX_CERTIFICATES).flatMap((certificate) => {
    try {
      return [new X509Certificate(Buffer.from(certificate.toSchema().toBER()))];
    } catch {
      return [];
    }
  });
  return certificates.some(
    (delegate) => isDelegate(delegate, issuer, nowMs) && isSignedBy(basic, delegate),
  );
}

/** RFC 6960 §4.2.2.2: issued by the very CA, and for this use. Its own revocation is not looked at (id-pkix-ocsp-nocheck). */
function isDelegate(delegate: X509Certificate, issuer: X509Certificate, nowMs: number): boolean {
  const isCurrent =
    delegate.validFromDate.getTime() <= nowMs && nowMs < delegate.validToDate.getTime();
  // Node calls the extended key usages `keyUsage`, and gives none where there are none.
  const usages = delegate.keyUsage as readonly string[] | undefined;
  const maySign = usages?.includes(OCSP_SIGNING) ?? false;
  return isCurrent && maySign && delegate.checkIssued(issuer) && delegate.verify(issuer.publicKey);
}

function isSignedBy(basic: pkijs.BasicOCSPResponse, signer: X509Certificate): boolean {
  const { responderID, tbsView } = basic.tbsResponseData;
  // Clients look for the signer by this name: one that names another would not be found by them.
  if (!isNamed(responderID, signer)) return false;
  const { signature, signatureAlgorithm } = basic;
  const { algorithmId } = signatureAlgorithm;
  return isSignatureOf({ algorithmId, bytes: tbsView, signature }, signer.publicKey);
}

/** ResponderID: the subject of its certificate, or the SHA-1 of its key. */
function isNamed(responderID: unknown, signer: X509Certificate): boolean {
  const { keyBytes, pki } = partsOf(signer);
  if (responderID instanceof pkijs.RelativeDistinguishedNames) {
    return responderID.isEqual(pki.subject);
  }
  const valueBlock = (responderID as { valueBlock?: { valueHexView?: unknown } }).valueBlock;
  const keyHash = valueBlock?.valueHexView;
  return keyHash instanceof Uint8Array && digest("sha1", keyBytes).equals(keyHash);
}

function isAbout(certID: pkijs.CertID, { issuer, leaf }: OcspSubject): boolean {
  const hash = ID_HASHES.get(certID.hashAlgorithm.algorithmId);
  if (hash === undefined) return false;
  const { keyBytes, nameBytes } = partsOf(issuer);
  const { serialNumber } = partsOf(leaf).pki;
  return (
    digest(hash, nameBytes).equals(certID.issuerNameHash.valueBlock.valueHexView) &&
    digest(hash, keyBytes).equals(certID.issuerKeyHash.valueBlock.valueHexView) &&
    certID.serialNumber.isEqual(serialNumber)
  );
}

interface CertificateParts {
  readonly pki: pkijs.Certificate;
  /** DER of the subject. */
  readonly nameBytes: Uint8Array;
  /** The BIT STRING of the key, without its count of unused bits. */
  readonly keyBytes: Uint8Array;
}

function partsOf(certificate: X509Certificate): CertificateParts {
  const pki = pkijs.Certificate.fromBER(Uint8Array.from(certificate.raw));
  const nameBytes = new Uint8Array(pki.subject.toSchema().toBER());
  const keyBytes = pki.subjectPublicKeyInfo.subjectPublicKey.valueBlock.valueHexView;
  return { pki, nameBytes, keyBytes };
}

function isGood(certStatus: unknown): boolean {
  const { idBlock } = certStatus as { idBlock?: { tagClass?: unknown; tagNumber?: unknown } };
  return idBlock?.tagClass === 3 && idBlock.tagNumber === GOOD;
}

function digest(hash: string, bytes: Uint8Array): Buffer {
  return createHash(hash).update(bytes).digest();
}

function invalid(what: string, cause?: unknown): StileError {
  return new StileError("TLS_OCSP_INVALID", `OCSP response: ${what}`, { cause });
}
