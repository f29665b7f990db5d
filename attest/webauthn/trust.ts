/**
 * What attestations must lead to (checklist F5, F7, A9): anchors by format from PEM, the FIDO metadata
 * blob, and Android's revocation list, all of them files of the operator. This folder ships none.
 */
import { isStileError, StileError } from "../../wire/index.ts";
import type { ParsedCertificate } from "../ek/certificate.ts";
import { decodePemBlocks } from "../ek/roots.ts";
import { parseAttestationCertificate } from "./certificate.ts";
import { asAttestationCertificate, certificateInvalid } from "./errors.ts";
import type { MetadataBlob } from "./mds.ts";
import type { AttestationFormat } from "./policy.ts";

/** Certificates that the operator trusts, each on its own: a self-signed root or any certificate below one. */
export interface TrustAnchors {
  readonly certificates: readonly ParsedCertificate[];
}

export interface WebAuthnTrust {
  /** A format without anchors is trusted only through the metadata. */
  readonly anchors: Readonly<Partial<Record<AttestationFormat, TrustAnchors>>>;
  readonly metadata?: MetadataBlob;
  /** Serial numbers of {@link parseAndroidRevocationList}. */
  readonly androidRevocationList?: ReadonlySet<string>;
}

/** @throws `ATTEST_WEBAUTHN_CERTIFICATE_INVALID` where a block is malformed or there is none */
export function parseTrustAnchors(pem: string): TrustAnchors {
  const blocks = asAttestationCertificate(() => decodePemBlocks(pem));
  if (blocks.length === 0) throw certificateInvalid("trust anchors: none");
  return { certificates: blocks.map((der) => parseAttestationCertificate(der)) };
}

const MAX_LIST_CHARACTERS = 16 * 1024 * 1024;
const SERIAL_NUMBER = /^0*([0-9a-f]{1,40})$/;

/**
 * The status list of Android's attestation keys, `{"entries": {"<serial number, hex>": {"status": …}}}`
 * (Android Open Source Project, "Key and ID attestation"). A suspended key counts as a revoked one.
 * @param text JSON, as it is published. @returns lower-case serial numbers without leading zeros
 * @throws `ATTEST_REVOCATION_DATA_INVALID`
 */
export function parseAndroidRevocationList(text: string): ReadonlySet<string> {
  try {
    if (text.length > MAX_LIST_CHARACTERS) throw listInvalid("larger than the limit");
    const { entries } = JSON.parse(text) as { readonly entries: unknown };
    if (typeof entries !== "object" || entries === null || Array.isArray(entries)) {
      throw listInvalid("expected entries");
    }
    return new Set(Object.keys(entries).map(serialNumber));
  } catch (cause) {
    if (isStileError(cause)) throw cause;
    throw listInvalid("expected JSON", cause);
  }
}

function serialNumber(key: string): string {
  const digits = SERIAL_NUMBER.exec(key)?.[1];
  // A key that cannot be read is a revocation that would not be seen.
  if (digits === undefined) throw listInvalid("expected serial numbers in hexadecimal");
  return digits;
}

function listInvalid(what: string, cause?: unknown): StileError {
  const message = `android revocation list: ${what}`;
  return new StileError("ATTEST_REVOCATION_DATA_INVALID", message, { cause });
}
