/**
 * The operator's deny list as JSON: `{"version":1,"certificates":[{"issuer":…,"serialNumber":…}],
 * "spkiSha256":[…]}`; issuer is the DER Name in base64url, the rest hexadecimal in lower case.
 * For keys and chips that became known to be bad before, or without, a CRL of their manufacturer (A9).
 */
import { decodeBase64Url, encodeHex, isStileError } from "../../wire/index.ts";
import { parseCertificate } from "./certificate.ts";
import { parseDer, TAG } from "./der.ts";
import { sha256 } from "./engine.ts";
import { revocationDataInvalid } from "./errors.ts";
import { createOddityRows } from "./oddities.ts";
import type { DeniedCertificate, DenyList } from "./revocation.ts";

const MAX_ROWS = 100_000;
const SERIAL_FORM = /^(?!00)(?:[0-9a-f]{2}){1,20}$/;
const SHA256_FORM = /^[0-9a-f]{64}$/;

/** @throws `ATTEST_REVOCATION_DATA_INVALID`: a row that is not understood would silently deny nothing */
export function parseDenyList(text: string): DenyList {
  const { version, certificates, spkiSha256, ...others } = objectOf(parseJson(text));
  if (version !== 1 || Object.keys(others).length > 0) {
    throw revocationDataInvalid("deny list: expected version 1 and no other member");
  }
  const keys = arrayOf(spkiSha256);
  return {
    certificates: arrayOf(certificates).map(readRow),
    spkiSha256: new Set(keys.map((key) => textOf(key, SHA256_FORM))),
  };
}

/** The two ways in which a certificate can be denied. Nothing of it is verified. */
export interface DenyRows {
  readonly certificate: { readonly issuer: Uint8Array; readonly serialNumber: string };
  readonly spkiSha256: string;
}

/** @param der one certificate, for the operator who wants to deny it @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export async function denyRowsOf(der: Uint8Array): Promise<DenyRows> {
  const rows = createOddityRows(["set-of-order", "padded-serial-number"]);
  const { issuer, serialNumber, spki } = parseCertificate(der, rows);
  return {
    certificate: { issuer, serialNumber: encodeHex(serialNumber) },
    spkiSha256: encodeHex(await sha256(spki)),
  };
}

function readRow(value: unknown): DeniedCertificate {
  const { issuer, serialNumber, ...others } = objectOf(value);
  if (Object.keys(others).length > 0) throw malformed();
  return {
    issuer: readName(textOf(issuer, /^/)),
    serialNumber: textOf(serialNumber, SERIAL_FORM),
  };
}

function readName(text: string): Uint8Array {
  try {
    return parseDer(decodeBase64Url(text), TAG.SEQUENCE).raw;
  } catch (cause) {
    if (isStileError(cause)) throw revocationDataInvalid("deny list: an issuer is no Name", cause);
    throw cause;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw revocationDataInvalid("deny list: expected JSON", cause);
  }
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed();
  return { ...value };
}

function arrayOf(value: unknown): readonly unknown[] {
  if (!Array.isArray(value) || value.length > MAX_ROWS) throw malformed();
  return value;
}

function textOf(value: unknown, form: RegExp): string {
  if (typeof value !== "string" || !form.test(value)) throw malformed();
  return value;
}

function malformed(): Error {
  return revocationDataInvalid("deny list: a malformed member");
}
