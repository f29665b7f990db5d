/**
 * The extensions of RFC 5280 §4.2.1 that this folder judges: basicConstraints, keyUsage and
 * extKeyUsage. Each reads exactly one DER value and leaves nothing over.
 */
import type { ParsedCertificate } from "./certificate.ts";
import {
  children,
  checkDer,
  type DerValue,
  parseDer,
  readBitString,
  readBoolean,
  readOid,
  readSmallInteger,
  TAG,
} from "./der.ts";
import { certificateInvalid } from "./errors.ts";

export const EXTENSION = {
  subjectDirectoryAttributes: "2.5.29.9",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  nameConstraints: "2.5.29.30",
  certificatePolicies: "2.5.29.32",
  extKeyUsage: "2.5.29.37",
} as const;

/** RFC 5280 §4.2.1.3: the bits of KeyUsage, by number. */
export const KEY_USAGE = {
  keyEncipherment: 2,
  keyAgreement: 4,
  keyCertSign: 5,
  cRLSign: 6,
} as const;

/** The value of an extension, every nested value checked; undefined where it is absent. */
export function extensionValue(
  certificate: ParsedCertificate,
  oid: string,
  tag: number,
): DerValue | undefined {
  const extension = certificate.extensions.get(oid);
  if (extension === undefined) return undefined;
  const value = parseDer(extension.value, tag);
  checkDer(value, certificate.rows);
  return value;
}

export interface BasicConstraints {
  readonly cA: boolean;
  readonly pathLenConstraint: number | undefined;
}

/** Not a CA where the extension is absent. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readBasicConstraints(certificate: ParsedCertificate): BasicConstraints {
  const value = extensionValue(certificate, EXTENSION.basicConstraints, TAG.SEQUENCE);
  const parts = value === undefined ? [] : children(value);
  const cA = parts[0]?.tag === TAG.BOOLEAN && readBoolean(parts[0]);
  const [pathLen, ...rest] = parts[0]?.tag === TAG.BOOLEAN ? parts.slice(1) : parts;
  if (rest.length > 0 || (pathLen !== undefined && !cA)) {
    throw certificateInvalid("malformed basicConstraints");
  }
  return { cA, pathLenConstraint: pathLen === undefined ? undefined : readSmallInteger(pathLen) };
}

/** The numbers of the set bits; undefined where the extension is absent. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readKeyUsage(certificate: ParsedCertificate): ReadonlySet<number> | undefined {
  const value = extensionValue(certificate, EXTENSION.keyUsage, TAG.BIT_STRING);
  if (value === undefined) return undefined;
  const bits = new Set<number>();
  for (const [index, byte] of readBitString(value).bytes.entries()) {
    for (let bit = 0; bit < 8; bit += 1)
      if ((byte & (0x80 >> bit)) !== 0) bits.add(index * 8 + bit);
  }
  return bits;
}

/** The key purposes; undefined where the extension is absent. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readExtKeyUsage(certificate: ParsedCertificate): ReadonlySet<string> | undefined {
  const value = extensionValue(certificate, EXTENSION.extKeyUsage, TAG.SEQUENCE);
  return value === undefined ? undefined : new Set(children(value).map(readOid));
}
