/**
 * Entries of a FIDO metadata blob (FIDO Metadata Service v3.0 §3.1.1, Metadata Statements v3.0 §4):
 * status reports, attestation types and trust anchors by model. UAF entries have neither AAGUID nor
 * key identifier and are left out.
 */
import { encodeHex, isStileError, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { ParsedCertificate } from "../ek/certificate.ts";
import { children, expectTag, parseDer, readBitString, TAG } from "../ek/der.ts";
import { decodeBase64 } from "../ek/roots.ts";
import { parseAttestationCertificate } from "./certificate.ts";

/**
 * FIDO MDS v3.0 §3.1.4, AuthenticatorStatus: what makes a model worthless as evidence. A report counts
 * whenever it was made: that a later version mends the fault does not show in an attestation.
 */
const COMPROMISED: ReadonlySet<string> = new Set([
  "USER_VERIFICATION_BYPASS",
  "ATTESTATION_KEY_COMPROMISE",
  "USER_KEY_REMOTE_COMPROMISE",
  "USER_KEY_PHYSICAL_COMPROMISE",
  "REVOKED",
]);

export interface MetadataEntry {
  /** AuthenticatorStatus of each report, in the blob's order. */
  readonly statuses: readonly string[];
  /** Registry of Predefined Values §3.6.1: `basic_full`, `basic_surrogate`, `attca`, `anonca` and others. */
  readonly attestationTypes: readonly string[];
  /** Base64 DER; not parsed until it is needed. */
  readonly attestationRootCertificates: readonly string[];
}

export function readEntries(list: readonly unknown[]): ReadonlyMap<string, MetadataEntry> {
  const entries = new Map<string, MetadataEntry>();
  for (const item of list) {
    const fields = recordOf(item);
    const statement = recordOf(fields["metadataStatement"]);
    const entry: MetadataEntry = {
      statuses: listOf(fields["statusReports"]).map((report) => text(recordOf(report)["status"])),
      attestationTypes: listOf(statement["attestationTypes"]).map(text),
      attestationRootCertificates: listOf(statement["attestationRootCertificates"]).map(text),
    };
    const { aaguid } = fields;
    const identifiers = listOf(fields["attestationCertificateKeyIdentifiers"]).map(text);
    for (const key of aaguid === undefined ? identifiers : [text(aaguid), ...identifiers]) {
      const known = entries.get(key.toLowerCase());
      // A model twice: whatever is known against either counts.
      entries.set(key.toLowerCase(), known === undefined ? entry : merge(known, entry));
    }
  }
  return entries;
}

function merge(a: MetadataEntry, b: MetadataEntry): MetadataEntry {
  return {
    statuses: [...a.statuses, ...b.statuses],
    attestationTypes: [...a.attestationTypes, ...b.attestationTypes],
    attestationRootCertificates: [
      ...a.attestationRootCertificates,
      ...b.attestationRootCertificates,
    ],
  };
}

/** @throws `ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED` */
export function checkEntry(entry: MetadataEntry, kind: "certified" | "self"): void {
  const isCompromised = entry.statuses.some((status) => COMPROMISED.has(status));
  // A model that has certificates and shows none is another model that took its name.
  const types = kind === "self" ? ["basic_surrogate"] : ["basic_full", "attca", "anonca"];
  const isFit = entry.attestationTypes.some((type) => types.includes(type));
  if (isCompromised || !isFit) {
    const what = isCompromised ? "it is revoked or compromised" : "it attests in another way";
    const message = `authenticator model: ${what}`;
    throw new StileError("ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED", message);
  }
}

/** Anchors that our strict reader takes; another one anchors nothing. */
export function entryAnchors(entry: MetadataEntry): readonly ParsedCertificate[] {
  return entry.attestationRootCertificates.flatMap((base64) => {
    try {
      return [parseAttestationCertificate(decodeBase64(base64))];
    } catch (error) {
      if (isStileError(error)) return [];
      throw error;
    }
  });
}

/** RFC 5280 §4.2.1.2 (1): SHA-1 of the key's bits, as hexadecimal. It names a key and protects nothing. */
export function keyIdentifier(leaf: ParsedCertificate, crypto: AttestCrypto): string {
  const [, key] = children(parseDer(leaf.spki, TAG.SEQUENCE));
  return encodeHex(crypto.hash("sha1", readBitString(expectTag(key, TAG.BIT_STRING)).bytes));
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw entryInvalid();
}

function listOf(value: unknown): readonly unknown[] {
  if (value === undefined) return [];
  if (Array.isArray(value)) return value;
  throw entryInvalid();
}

function text(value: unknown): string {
  if (typeof value === "string") return value;
  throw entryInvalid();
}

function entryInvalid(): StileError {
  return new StileError("ATTEST_WEBAUTHN_METADATA_INVALID", "metadata blob: a malformed entry");
}
