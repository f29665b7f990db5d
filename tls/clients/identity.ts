/**
 * Who a client certificate names, where OpenSSL has verified its path: the one of its subject alternative names that
 * a rule lets in. SPIFFE IDs are read as the X.509-SVID standard has them (§2 to §5): one URI and no other, and no
 * certificate of a CA. The subject's distinguished name counts for nothing.
 */
import type { X509Certificate } from "node:crypto";
import * as pkijs from "pkijs";
import { HOST_NAME, wildcardOf } from "../server-names.ts";

/** What must be in a certificate; one of all that is listed is enough. */
export interface AllowedClients {
  /** SPIFFE IDs, or all below one: `spiffe://example.org/ns/prod/*`. */
  readonly spiffe?: readonly string[];
  /** URIs, exactly. */
  readonly uris?: readonly string[];
  /** DNS names, or `*.` for one label. */
  readonly dnsNames?: readonly string[];
}

const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const SUBJECT_ALT_NAME = "2.5.29.17";
const KEY_USAGE = "2.5.29.15";
const [DNS_NAME, URI] = [2, 6];
/** First byte of KeyUsage (RFC 5280 §4.2.1.3). */
const [DIGITAL_SIGNATURE, KEY_CERT_SIGN, CRL_SIGN] = [0x80, 0x04, 0x02];
/** SPIFFE-ID §2: trust domain, then segments of a path; none of them `.`, `..` or empty. */
const SPIFFE_ID = /^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)*$/;
const MAX_SPIFFE_CHARS = 2_048;
const MAX_NAMES = 64;

interface ClientNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** First byte of KeyUsage; undefined without the extension. */
  readonly keyUsage: number | undefined;
}

/**
 * @param allowed without it, every certificate of the CAs, by its fingerprint
 * @returns undefined where the certificate is not for clients, or names none of those
 */
export function identityOf(
  certificate: X509Certificate,
  allowed: AllowedClients | undefined,
): string | undefined {
  // Node calls the extended key usages `keyUsage`, and gives none where there are none.
  const usages = certificate.keyUsage as readonly string[] | undefined;
  if (certificate.ca || usages?.includes(CLIENT_AUTH) !== true) return undefined;
  if (allowed === undefined) {
    return `sha256:${certificate.fingerprint256.replaceAll(":", "").toLowerCase()}`;
  }
  const names = readNames(certificate);
  if (names === undefined) return undefined;
  return (
    spiffeIdOf(names, allowed.spiffe ?? []) ??
    allowed.uris?.find((uri) => names.uris.includes(uri)) ??
    names.dnsNames.find((name) => isDnsAllowed(name, allowed.dnsNames ?? []))
  );
}

/** True for what may stand in {@link AllowedClients.spiffe}. */
export function isSpiffePattern(pattern: string): boolean {
  const id = pattern.endsWith("/*") ? pattern.slice(0, -2) : pattern;
  return id.length <= MAX_SPIFFE_CHARS && SPIFFE_ID.test(id);
}

function spiffeIdOf(
  { keyUsage = 0, uris }: ClientNames,
  patterns: readonly string[],
): string | undefined {
  const [id, ...others] = uris;
  if (id === undefined || others.length > 0 || id.length > MAX_SPIFFE_CHARS) return undefined;
  if (!SPIFFE_ID.test(id)) return undefined;
  const isLeaf = (keyUsage & (KEY_CERT_SIGN | CRL_SIGN)) === 0;
  if (!isLeaf || (keyUsage & DIGITAL_SIGNATURE) === 0) return undefined;
  const isMatch = patterns.some((pattern) =>
    // Whole segments: /ns/prod/* is not /ns/production.
    pattern.endsWith("/*") ? id.startsWith(pattern.slice(0, -1)) : id === pattern,
  );
  return isMatch ? id : undefined;
}

function isDnsAllowed(name: string, patterns: readonly string[]): boolean {
  if (name.startsWith("*") || !HOST_NAME.test(name)) return false;
  return patterns.some((pattern) => pattern === name || pattern === wildcardOf(name));
}

/** What a CA signs need not be well-formed. */
function readNames(certificate: X509Certificate): ClientNames | undefined {
  try {
    return namesOf(certificate);
  } catch {
    return undefined;
  }
}

/** From the DER, since Node's text of the names is made for people. */
function namesOf(certificate: X509Certificate): ClientNames | undefined {
  const { extensions = [] } = pkijs.Certificate.fromBER(Uint8Array.from(certificate.raw));
  const altName: unknown = extensions.find(
    ({ extnID }) => extnID === SUBJECT_ALT_NAME,
  )?.parsedValue;
  if (!(altName instanceof pkijs.AltName) || altName.altNames.length > MAX_NAMES) return undefined;
  const usage: unknown = extensions.find(({ extnID }) => extnID === KEY_USAGE)?.parsedValue;
  const named = (type: number): string[] =>
    altName.altNames.filter((name) => name.type === type).map(({ value }) => String(value));
  return {
    uris: named(URI),
    dnsNames: named(DNS_NAME).map((name) => name.toLowerCase()),
    keyUsage: firstByteOf(usage),
  };
}

function firstByteOf(bits: unknown): number | undefined {
  const { valueBlock } = (bits ?? {}) as { valueBlock?: { valueHexView?: Uint8Array } };
  return valueBlock?.valueHexView?.[0];
}
