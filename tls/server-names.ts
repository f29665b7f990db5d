/**
 * Which certificates a server name (RFC 6066 §3) is answered with. Names come from the certificates' own
 * subjectAltName; a wildcard stands for exactly one whole left-most label (RFC 9525 §6.3). Certificates of
 * different key types for one name stand side by side; the client's signature algorithms decide.
 */
import type { KeyObject, X509Certificate } from "node:crypto";

/** One certificate with its key, read and found usable. */
export interface ServerCertificate {
  /** PEM: the certificate and its intermediates. */
  readonly cert: string;
  /** PEM. Secret. */
  readonly key: string;
  /** What its key signs with in TLS 1.3, as OpenSSL names it: `ECDSA+SHA256`, or the beginning: `RSA-PSS+`. */
  readonly signsWith: string;
  /** DNS names in lower case; some begin with `*.`. */
  readonly names: readonly string[];
  /** Unix milliseconds. */
  readonly notAfterMs: number;
}

/** Certificates for one name: never two that sign alike. */
export type CertificateGroup = readonly ServerCertificate[];

export interface ServerCertificates {
  /** For a client that names no server; that of the first certificate. Empty where there is none yet. */
  readonly fallback: CertificateGroup;
  /** @param serverName hostile: from the ClientHello. The same name gives the same object. */
  readonly select: (serverName: string) => CertificateGroup | undefined;
}

export const HOST_NAME: RegExp = /^(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*$/;
const QUOTED = /"(?:[^"\\]|\\.)*"/g;

/** DNS names of the subjectAltName; Node quotes those with characters that no host name has. */
export function dnsNamesOf(certificate: X509Certificate): string[] {
  const entries = (certificate.subjectAltName ?? "").replaceAll(QUOTED, "").split(", ");
  return entries
    .filter((entry) => entry.startsWith("DNS:"))
    .map((entry) => entry.slice("DNS:".length).toLowerCase())
    .filter((name) => HOST_NAME.test(name));
}

const ECDSA_OF_CURVE: Readonly<Record<string, string>> = {
  prime256v1: "ECDSA+SHA256",
  secp384r1: "ECDSA+SHA384",
  secp521r1: "ECDSA+SHA512",
};

/** RFC 8446 §4.2.3: TLS 1.3 ties the hash of ECDSA to the curve, and knows RSA only as PSS. */
export function signatureOf({ asymmetricKeyDetails, asymmetricKeyType }: KeyObject): string {
  if (asymmetricKeyType === "rsa") return "RSA-PSS+";
  if (asymmetricKeyType !== "ec") return `${asymmetricKeyType ?? ""}+`;
  return ECDSA_OF_CURVE[asymmetricKeyDetails?.namedCurve ?? ""] ?? "ECDSA+";
}

/** @param sharedSigalgs as `TLSSocket.getSharedSigalgs()` gives them. The first where the client knows none. */
export function certificateFor(
  group: CertificateGroup,
  sharedSigalgs: readonly string[],
): ServerCertificate | undefined {
  const shared = sharedSigalgs.map((name) => name.toLowerCase());
  const isKnown = ({ signsWith }: ServerCertificate): boolean =>
    shared.some((name) => name.replace(/^id-/, "").startsWith(signsWith.toLowerCase()));
  return group.find(isKnown) ?? group[0];
}

/** @param certificates where two fit as well, the earlier one is used */
export function certificatesByName(certificates: readonly ServerCertificate[]): ServerCertificates {
  const groups = new Map<string, CertificateGroup>();
  for (const name of certificates.flatMap((certificate) => certificate.names)) {
    groups.set(name, groupFor(name, certificates));
  }
  const [first] = certificates;
  const firstName = first?.names[0];
  const alike = firstName === undefined ? [] : (groups.get(firstName) ?? []);
  return {
    fallback: first === undefined || alike.includes(first) ? alike : [first],
    select: (serverName) => findByName(groups, serverName),
  };
}

/** What stands for a name, or for the wildcard that covers it. @param serverName hostile: from the ClientHello */
export function findByName<T>(byName: ReadonlyMap<string, T>, serverName: string): T | undefined {
  // Absolute names (RFC 6066 §3 forbids the dot, some clients send it) and upper case are the same name.
  const name = serverName.toLowerCase().replace(/\.$/, "");
  if (name.startsWith("*") || !HOST_NAME.test(name)) return undefined;
  return byName.get(name) ?? byName.get(wildcardOf(name));
}

function groupFor(name: string, certificates: readonly ServerCertificate[]): CertificateGroup {
  const wildcard = wildcardOf(name);
  const exact = certificates.filter((certificate) => certificate.names.includes(name));
  const covering = certificates.filter((certificate) => certificate.names.includes(wildcard));
  const byType = new Map<string, ServerCertificate>();
  for (const certificate of [...exact, ...covering]) {
    if (!byType.has(certificate.signsWith)) byType.set(certificate.signsWith, certificate);
  }
  return [...byType.values()];
}

/** `a.b.example` is covered by `*.b.example`, never by `*.example`. */
export function wildcardOf(name: string): string {
  return `*${name.slice(Math.max(0, name.indexOf(".")))}`;
}
