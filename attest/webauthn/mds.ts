/**
 * The FIDO Metadata Service blob, given as a file (FIDO Metadata Service v3.0 §3.1; checklist F7):
 * which authenticator models exist, what their attestation chains to and what is known against them.
 * It is verified once, when it is loaded, and grows stale on its own; nothing is ever fetched (G4).
 *
 * A blob is verified when all of this holds, checked in this order:
 *  1. it is a JWS in compact form with an algorithm of the list and x5c, and no `crit`;
 *  2. its signature verifies under the first certificate of x5c, over the received bytes;
 *  3. that certificate is for the metadata service's name, and chains to a given anchor. Without the
 *     name, any customer of the same public CA could sign metadata;
 *  4. nextUpdate is not over, and its number is not below the one that the caller has seen.
 */
import {
  decodeBase64Url,
  decodeUtf8,
  encodeUtf8,
  isStileError,
  StileError,
} from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { ParsedCertificate } from "../ek/certificate.ts";
import { children, TAG } from "../ek/der.ts";
import { EXTENSION, extensionValue } from "../ek/extensions.ts";
import { decodeBase64 } from "../ek/roots.ts";
import {
  checkAttestationLeaf,
  parseAttestationCertificate,
  readX5c,
  verifyCertificatePath,
} from "./certificate.ts";
import { type CoseAlgorithm, coseAlgorithm } from "./cose-key.ts";
import { type MetadataEntry, readEntries } from "./mds-entries.ts";
import { isSignedWithRaw } from "./signature.ts";
import type { TrustAnchors } from "./trust.ts";

/** The blob of late 2026 is about 10 MB. */
const MAX_BLOB_CHARACTERS = 64 * 1024 * 1024;
const DAY_MS = 24 * 60 * 60 * 1000;
const DNS_NAME = 0x82;
/** JWS algorithms (RFC 7518 §3.1) that FIDO may use, as their COSE algorithm. */
const JWS_ALGORITHMS: ReadonlyMap<unknown, number> = new Map([
  ["ES256", -7],
  ["RS256", -257],
  ["PS256", -37],
]);

export interface MetadataBlobOptions {
  /** The file's text: a compact JWS, optionally with a line end. Hostile. */
  readonly jwt: string;
  readonly anchors: TrustAnchors;
  readonly crypto: AttestCrypto;
  readonly clock: () => number;
  /** DNS name of the signing certificate. Default `mds.fidoalliance.org`. */
  readonly signerName?: string;
  /** The highest `no` seen so far: an older blob would hide a revocation. Default 0. */
  readonly minNumber?: number;
}

/** What FIDO says of authenticator models, as of a date. */
export interface MetadataBlob {
  readonly kind: "verified-metadata";
  /** `no`. */
  readonly number: number;
  /** Unix milliseconds: the end of the day (UTC) of nextUpdate. */
  readonly staleAtMs: number;
  /** By AAGUID, and by attestationCertificateKeyIdentifier for U2F. */
  readonly entries: ReadonlyMap<string, MetadataEntry>;
}

/**
 * @throws `ATTEST_WEBAUTHN_METADATA_INVALID`, `ATTEST_WEBAUTHN_METADATA_STALE`, `ATTEST_WEBAUTHN_CHAIN_UNTRUSTED`,
 * `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`, `ATTEST_WEBAUTHN_CERTIFICATE_EXPIRED`, `ATTEST_ALGORITHM_NOT_ALLOWED`
 */
export async function parseMetadataBlob(options: MetadataBlobOptions): Promise<MetadataBlob> {
  const { crypto, anchors, signerName = "mds.fidoalliance.org" } = options;
  const atMs = options.clock();
  const jws = splitJws(options.jwt);
  const { leaf, issuers, algorithm } = readHeader(jws.header);
  if (!(await isSignedWithRaw(leaf, algorithm, jws.signed, () => jws.signature, crypto))) {
    throw metadataInvalid("the signature does not verify");
  }
  checkAttestationLeaf(leaf);
  if (!dnsNames(leaf).includes(signerName))
    throw metadataInvalid("it is signed under another name");
  await verifyCertificatePath({ leaf, issuers, anchors: anchors.certificates, atMs, crypto });
  const blob = readPayload(parseObject(jws.payload));
  checkFreshness(blob, atMs);
  if (blob.number < (options.minNumber ?? 0)) throw stale("it is older than one seen before");
  return blob;
}

/** @throws `ATTEST_WEBAUTHN_METADATA_STALE` */
export function checkFreshness(blob: MetadataBlob, atMs: number): void {
  if (atMs >= blob.staleAtMs) throw stale("its nextUpdate is over");
}

interface Jws {
  readonly header: Readonly<Record<string, unknown>>;
  /** Base64url; read once the signature has been verified. */
  readonly payload: string;
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
}

function splitJws(jwt: string): Jws {
  if (jwt.length > MAX_BLOB_CHARACTERS) throw metadataInvalid("larger than the limit");
  const [header, payload, signature, ...rest] = jwt.trimEnd().split(".");
  if (header === undefined || payload === undefined || signature === undefined || rest.length > 0) {
    throw metadataInvalid("expected a compact JWS");
  }
  return {
    header: parseObject(header),
    payload,
    signed: encodeUtf8(`${header}.${payload}`),
    signature: decodePart(signature),
  };
}

function decodePart(part: string): Uint8Array {
  try {
    return decodeBase64Url(part);
  } catch (cause) {
    throw metadataInvalid("expected base64url", cause);
  }
}

function parseObject(part: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(decodeUtf8(decodePart(part)));
  } catch (cause) {
    throw isStileError(cause, "ATTEST_WEBAUTHN_METADATA_INVALID")
      ? cause
      : metadataInvalid("expected JSON", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw metadataInvalid("expected a JSON object");
  }
  return { ...value };
}

function readHeader(header: Readonly<Record<string, unknown>>): {
  readonly leaf: ParsedCertificate;
  readonly issuers: readonly Uint8Array[];
  readonly algorithm: CoseAlgorithm;
} {
  // RFC 7515 §4.1.11: what is critical and not understood makes the signature mean something else.
  if (header["crit"] !== undefined) throw metadataInvalid("a critical header is not understood");
  const { x5c } = header;
  if (!Array.isArray(x5c) || !x5c.every((item) => typeof item === "string")) {
    throw metadataInvalid("expected x5c; an address to fetch it from is not followed");
  }
  const [der, ...issuers] = readX5c(x5c.map((text: string) => decodeCertificate(text)));
  const algorithm = coseAlgorithm(JWS_ALGORITHMS.get(header["alg"]), false);
  return { leaf: parseAttestationCertificate(der), issuers, algorithm };
}

function decodeCertificate(text: string): Uint8Array {
  try {
    return decodeBase64(text);
  } catch (cause) {
    throw metadataInvalid("malformed base64 of a certificate", cause);
  }
}

function dnsNames(leaf: ParsedCertificate): string[] {
  const names = extensionValue(leaf, EXTENSION.subjectAltName, TAG.SEQUENCE);
  return (names === undefined ? [] : children(names))
    .filter(({ tag }) => tag === DNS_NAME)
    .map(({ content }) => String.fromCharCode(...content.subarray(0, 255)));
}

function readPayload(payload: Readonly<Record<string, unknown>>): MetadataBlob {
  const { no, nextUpdate, entries } = payload;
  if (typeof no !== "number" || !Number.isSafeInteger(no) || no < 0) {
    throw metadataInvalid("expected no");
  }
  const isDate = typeof nextUpdate === "string" && /^\d{4}-\d{2}-\d{2}$/.test(nextUpdate);
  const day = isDate ? Date.parse(nextUpdate) : Number.NaN;
  if (Number.isNaN(day)) throw metadataInvalid("expected nextUpdate as a date");
  if (!Array.isArray(entries)) throw metadataInvalid("expected entries");
  return {
    kind: "verified-metadata",
    number: no,
    staleAtMs: day + DAY_MS,
    entries: readEntries(entries),
  };
}

function metadataInvalid(what: string, cause?: unknown): StileError {
  const message = `metadata blob: ${what}`;
  return new StileError("ATTEST_WEBAUTHN_METADATA_INVALID", message, { cause });
}

function stale(what: string): StileError {
  return new StileError("ATTEST_WEBAUTHN_METADATA_STALE", `metadata blob: ${what}`);
}
