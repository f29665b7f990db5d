/**
 * The TPM library that a certified TPM implements: tpmSpecification in subjectDirectoryAttributes (TCG EK
 * Credential Profile v2.5 §3.1.3 and §3.2.10). The family tells a TPM 2.0 from a TPM 1.2, whose EK
 * certificates look alike otherwise and whose EKs cannot take part here.
 */
import type { ParsedCertificate } from "./certificate.ts";
import { children, type DerValue, expectTag, readOid, readSmallInteger, TAG } from "./der.ts";
import { certificateInvalid } from "./errors.ts";
import { EXTENSION, extensionValue } from "./extensions.ts";

const TPM_SPECIFICATION = "2.23.133.2.16";
const FAMILY = "2.0";

export interface TpmSpecification {
  readonly family: typeof FAMILY;
  readonly level: number;
  /** Of the library specification, times 100: 138 is 1.38. */
  readonly revision: number;
}

/** Undefined where the certificate does not say. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readTpmSpecification(certificate: ParsedCertificate): TpmSpecification | undefined {
  const oid = EXTENSION.subjectDirectoryAttributes;
  const attributes = extensionValue(certificate, oid, TAG.SEQUENCE);
  let found: TpmSpecification | undefined;
  for (const attribute of attributes === undefined ? [] : children(attributes)) {
    // Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }
    const [type, values, ...rest] = children(expectTag(attribute, TAG.SEQUENCE));
    if (readOid(expectTag(type, TAG.OBJECT_IDENTIFIER)) !== TPM_SPECIFICATION) continue;
    const [value, ...more] = children(expectTag(values, TAG.SET));
    if (found !== undefined || rest.length > 0 || more.length > 0) throw malformed();
    found = readSpecification(expectTag(value, TAG.SEQUENCE));
  }
  return found;
}

/** TPMSpecification ::= SEQUENCE { family UTF8String, level INTEGER, revision INTEGER, ... } */
function readSpecification(value: DerValue): TpmSpecification {
  const [family, level, revision] = children(value);
  const text = String.fromCharCode(...expectTag(family, TAG.UTF8_STRING).content.subarray(0, 8));
  if (text !== FAMILY) throw certificateInvalid("a TPM of another family than 2.0");
  return {
    family: FAMILY,
    level: readSmallInteger(expectTag(level, TAG.INTEGER)),
    revision: readSmallInteger(expectTag(revision, TAG.INTEGER)),
  };
}

function malformed(): Error {
  return certificateInvalid("malformed tpmSpecification");
}
