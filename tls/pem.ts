/** Certificates in PEM files (RFC 7468 §5): all of them, in order. What they are worth is the caller's to say. */
import { X509Certificate } from "node:crypto";

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** @throws Error of `node:crypto` where one of them cannot be read */
export function certificatesIn(pem: string): X509Certificate[] {
  return (pem.match(CERTIFICATE) ?? []).map((block) => new X509Certificate(block));
}

/** The one of `candidates` that issued `certificate`: by its name and by its signature. Not its validity. */
export function issuerAmong(
  certificate: X509Certificate,
  candidates: readonly X509Certificate[],
): X509Certificate | undefined {
  return candidates.find(
    (candidate) => certificate.checkIssued(candidate) && certificate.verify(candidate.publicKey),
  );
}
