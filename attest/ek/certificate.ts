/**
 * An X.509 v3 certificate (RFC 5280 §4.1) as this folder's checks see it: the fields by our own DER
 * reader, next to the object of pkijs that its path validation needs.
 * Reading a certificate verifies nothing: no signature, no date, no trust.
 */
import * as pkijs from "pkijs";
import { constantTimeEqual, isStileError } from "../../wire/index.ts";
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
import { certificateInvalid } from "./errors.ts";
import type { OddityRows } from "./oddities.ts";
import { readTime } from "./time.ts";

/** The largest EK certificates in the field are below 2 KiB; TPMs hold them in an NV index. */
export const MAX_CERTIFICATE_BYTES: number = 8 * 1024;
/** EK certificates carry about 10 extensions. */
const MAX_EXTENSIONS = 32;
/** RFC 5280 §4.1.2.2. */
const MAX_SERIAL_BYTES = 20;
/** RFC 5280 §4.1.2.1: version 3 is encoded as 2. */
const VERSION_3 = 2;

export interface CertificateExtension {
  readonly critical: boolean;
  /** The contents of extnValue. */
  readonly value: Uint8Array;
}

/** Nothing in it is verified. */
export interface ParsedCertificate {
  readonly der: Uint8Array;
  /** 1 to 20 bytes of magnitude, without leading zeros. */
  readonly serialNumber: Uint8Array;
  /** Name, DER. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  readonly subjectIsEmpty: boolean;
  /** Unix milliseconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array;
  /** AlgorithmIdentifier, DER; equal inside and outside of the signed part. */
  readonly signatureAlgorithm: DerValue;
  readonly signatureValue: Uint8Array;
  readonly extensions: ReadonlyMap<string, CertificateExtension>;
  readonly pki: pkijs.Certificate;
  /** Under which it was read, and under which its extensions will be. */
  readonly rows: OddityRows;
}

/**
 * @param der exactly one certificate
 * @param rows this certificate's own
 * @throws `ATTEST_EK_CERTIFICATE_INVALID`
 */
export function parseCertificate(der: Uint8Array, rows: OddityRows): ParsedCertificate {
  if (der.length > MAX_CERTIFICATE_BYTES) throw certificateInvalid("larger than the limit");
  // The bytes are the caller's and checks await: a copy cannot change in between.
  const certificate = parseDer(Uint8Array.from(der), TAG.SEQUENCE);
  const [tbsCertificate, signatureAlgorithm, signatureValue, ...rest] = children(certificate);
  if (rest.length > 0) throw certificateInvalid("fields after the signature");
  const signature = readBitString(expectTag(signatureValue, TAG.BIT_STRING));
  if (signature.unusedBits !== 0) throw certificateInvalid("a signature that is not whole bytes");
  const outer = expectTag(signatureAlgorithm, TAG.SEQUENCE);
  checkDer(outer, rows);
  const fields = readTbsCertificate(expectTag(tbsCertificate, TAG.SEQUENCE), rows);
  // RFC 5280 §4.1.1.2: the outer identifier is not signed, so it must repeat the signed one.
  if (!constantTimeEqual(fields.signatureAlgorithm.raw, outer.raw))
    throw certificateInvalid("two different signature algorithms");
  return {
    ...fields,
    der: certificate.raw,
    signatureValue: signature.bytes,
    pki: parsePki(certificate.raw),
    rows,
  };
}

type TbsCertificate = Omit<ParsedCertificate, "der" | "signatureValue" | "pki" | "rows">;

function readTbsCertificate(tbs: DerValue, rows: OddityRows): TbsCertificate {
  const fields = children(tbs);
  const [version, serialNumber, signature, issuer, validity, subject, spki, ...optional] = fields;
  // The serial number alone has a row for integers.
  for (const field of fields) if (field !== serialNumber) checkDer(field, rows);
  const [number, ...more] = children(expectTag(version, contextTag(0)));
  if (readSmallInteger(expectTag(number, TAG.INTEGER)) !== VERSION_3 || more.length > 0) {
    throw certificateInvalid("a version other than 3");
  }
  const [notBefore, notAfter, ...others] = children(expectTag(validity, TAG.SEQUENCE));
  if (others.length > 0) throw certificateInvalid("a validity of more than two times");
  const subjectName = expectTag(subject, TAG.SEQUENCE);
  return {
    serialNumber: readSerialNumber(expectTag(serialNumber, TAG.INTEGER), rows),
    signatureAlgorithm: expectTag(signature, TAG.SEQUENCE),
    issuer: expectTag(issuer, TAG.SEQUENCE).raw,
    subject: subjectName.raw,
    subjectIsEmpty: subjectName.content.length === 0,
    notBeforeMs: readTime(notBefore),
    notAfterMs: readTime(notAfter),
    spki: expectTag(spki, TAG.SEQUENCE).raw,
    extensions: readExtensions(optional),
  };
}

/** RFC 5280 §4.1.2.2: positive, 20 octets at most. */
function readSerialNumber(value: DerValue, rows: OddityRows): Uint8Array {
  const { content } = value;
  if (content.length > MAX_SERIAL_BYTES) throw certificateInvalid("an overlong serial number");
  const first = content.findIndex((byte) => byte !== 0);
  const isPadded = first > 1 || (first === 1 && (content[1] ?? 0) < 0x80);
  if (!isPadded) return readPositiveInteger(value);
  rows.meet("padded-serial-number");
  return content.subarray(first);
}

/** Unique identifiers (RFC 5280 §4.1.2.8) are obsolete and no manufacturer uses them: refused. */
function readExtensions(optional: readonly DerValue[]): Map<string, CertificateExtension> {
  const extensions = new Map<string, CertificateExtension>();
  if (optional.length === 0) return extensions;
  const [field, ...rest] = optional;
  const [list, ...more] = children(expectTag(field, contextTag(3)));
  if (rest.length > 0 || more.length > 0) throw certificateInvalid("fields after its extensions");
  const entries = children(expectTag(list, TAG.SEQUENCE));
  if (entries.length > MAX_EXTENSIONS) throw certificateInvalid("too many extensions");
  for (const entry of entries) {
    const [oid, extension] = readExtension(expectTag(entry, TAG.SEQUENCE));
    // RFC 5280 §4.2: of two, one parser takes the first and another the last.
    if (extensions.has(oid)) throw certificateInvalid("an extension twice");
    extensions.set(oid, extension);
  }
  return extensions;
}

function readExtension(entry: DerValue): [string, CertificateExtension] {
  const parts = children(entry);
  const oid = readOid(expectTag(parts[0], TAG.OBJECT_IDENTIFIER));
  const flag = parts.length === 3 ? expectTag(parts[1], TAG.BOOLEAN) : undefined;
  if (parts.length > 3) throw certificateInvalid("an extension of more than three fields");
  const value = expectTag(parts.at(flag === undefined ? 1 : 2), TAG.OCTET_STRING);
  return [oid, { critical: flag !== undefined && readBoolean(flag), value: value.content }];
}

function parsePki(der: Uint8Array): pkijs.Certificate {
  try {
    const certificate = pkijs.Certificate.fromBER(Uint8Array.from(der));
    // pkijs skips an extension that it fails to read, even a critical one.
    for (const extension of certificate.extensions ?? []) {
      const value: unknown = extension.parsedValue;
      if (value instanceof Object && "parsingError" in value && value.parsingError !== undefined) {
        throw certificateInvalid("a malformed extension");
      }
    }
    return certificate;
  } catch (cause) {
    if (isStileError(cause)) throw cause;
    throw certificateInvalid("fields that pkijs cannot read", cause);
  }
}
