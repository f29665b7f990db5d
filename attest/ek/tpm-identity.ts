/**
 * The TPM that an EK certificate names: tpmManufacturer, tpmModel and tpmVersion in a directoryName
 * of subjectAltName (TCG EK Credential Profile v2.5 §3.2.9). Several attributes in one RDN and one
 * attribute per RDN are both in the field. It does not say whether the vendor is one that is wanted.
 */
import { decodeUtf8, isStileError } from "../../wire/index.ts";
import type { ParsedCertificate } from "./certificate.ts";
import { children, contextTag, type DerValue, expectTag, readOid, TAG } from "./der.ts";
import { certificateInvalid } from "./errors.ts";
import { EXTENSION, extensionValue } from "./extensions.ts";
import { isRegisteredVendor } from "./vendors.ts";

const TPM_MANUFACTURER = "2.23.133.2.1";
const TPM_MODEL = "2.23.133.2.2";
const TPM_VERSION = "2.23.133.2.3";

/** TCG Vendor ID Registry: four bytes in hexadecimal; some vendors write lower case. */
const MANUFACTURER_FORM = /^id:[0-9A-Fa-f]{8}$/;
/** RFC 5280 appendix A caps every naming attribute; 64 is its usual bound. */
const MAX_ATTRIBUTE_BYTES = 64;

export interface TpmIdentity {
  /** `id:` and eight upper-case hexadecimal digits. */
  readonly manufacturer: string;
  /** The vendor's text, 1 to 64 bytes of UTF-8. */
  readonly model: string;
  readonly version: string;
}

/** @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readTpmIdentity(certificate: ParsedCertificate): TpmIdentity {
  const extension = certificate.extensions.get(EXTENSION.subjectAltName);
  const names = extensionValue(certificate, EXTENSION.subjectAltName, TAG.SEQUENCE);
  if (extension === undefined || names === undefined) throw certificateInvalid("no subjectAltName");
  // RFC 5280 §4.2.1.6: with no subject, who ignores the extension would see an unnamed certificate.
  if (certificate.subjectIsEmpty && !extension.critical) certificate.rows.meet("san-not-critical");
  const attributes = readAttributes(names);
  const manufacturer = required(attributes, TPM_MANUFACTURER);
  if (!MANUFACTURER_FORM.test(manufacturer)) throw certificateInvalid("malformed tpmManufacturer");
  const canonical = `id:${manufacturer.slice(3).toUpperCase()}`;
  if (!isRegisteredVendor(canonical)) certificate.rows.meet("unregistered-manufacturer");
  return {
    manufacturer: canonical,
    model: required(attributes, TPM_MODEL),
    version: required(attributes, TPM_VERSION),
  };
}

function readAttributes(names: DerValue): Map<string, string> {
  const attributes = new Map<string, string>();
  // GeneralName ::= CHOICE { directoryName [4] Name }; other names say nothing about the TPM.
  for (const name of children(names).filter(({ tag }) => tag === contextTag(4))) {
    const [rdnSequence, ...rest] = children(name);
    if (rest.length > 0) throw certificateInvalid("malformed directoryName");
    for (const rdn of children(expectTag(rdnSequence, TAG.SEQUENCE))) {
      for (const attribute of children(expectTag(rdn, TAG.SET)))
        readAttribute(attribute, attributes);
    }
  }
  return attributes;
}

function readAttribute(attribute: DerValue, attributes: Map<string, string>): void {
  const [type, value, ...rest] = children(expectTag(attribute, TAG.SEQUENCE));
  const oid = readOid(expectTag(type, TAG.OBJECT_IDENTIFIER));
  if (value === undefined || rest.length > 0) throw certificateInvalid("malformed directoryName");
  if (oid !== TPM_MANUFACTURER && oid !== TPM_MODEL && oid !== TPM_VERSION) return;
  // Of two manufacturers one reader takes the first and another the last.
  if (attributes.has(oid)) throw certificateInvalid("a TPM attribute twice");
  attributes.set(oid, readText(expectTag(value, TAG.UTF8_STRING)));
}

function readText(value: DerValue): string {
  if (value.content.length === 0 || value.content.length > MAX_ATTRIBUTE_BYTES) {
    throw certificateInvalid("a TPM attribute of a length that is not allowed");
  }
  try {
    return decodeUtf8(value.content);
  } catch (cause) {
    if (isStileError(cause)) throw certificateInvalid("a TPM attribute that is not UTF-8", cause);
    throw cause;
  }
}

function required(attributes: ReadonlyMap<string, string>, oid: string): string {
  const value = attributes.get(oid);
  if (value === undefined) throw certificateInvalid("a TPM attribute is missing");
  return value;
}
