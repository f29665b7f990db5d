/**
 * Certificate extensions of the manufacturer CA: RFC 5280 §4.2 and TCG EK Credential Profile v2.5
 * §3.2.9-§3.2.16. Object identifiers are those of the profile.
 */
import { createHash } from "node:crypto";
import * as asn1js from "asn1js";
import * as pkijs from "pkijs";

const OID = {
  commonName: "2.5.4.3",
  subjectDirectoryAttributes: "2.5.29.9",
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extKeyUsage: "2.5.29.37",
  tcgKpEkCertificate: "2.23.133.8.1",
  tpmManufacturer: "2.23.133.2.1",
  tpmModel: "2.23.133.2.2",
  tpmVersion: "2.23.133.2.3",
  tpmSpecification: "2.23.133.2.16",
} as const;

/** Bits of KeyUsage as they lie in its first byte. */
export const KEY_USAGE = {
  keyEncipherment: 0x20,
  keyAgreement: 0x08,
  keyCertSign: 0x04,
  cRLSign: 0x02,
} as const;

/** The TCG vendor id that libtpms reports as TPM_PT_MANUFACTURER: "IBM" and a zero byte. */
const TPM_MANUFACTURER = "id:49424D00";
const TPM_MODEL = "swtpm";
const TPM_VERSION = "id:20191023";

export function commonName(name: string): pkijs.RelativeDistinguishedNames {
  return new pkijs.RelativeDistinguishedNames({
    typesAndValues: [attribute(OID.commonName, name)],
  });
}

export function basicConstraints(cA: boolean, pathLenConstraint?: number): pkijs.Extension {
  const value = new pkijs.BasicConstraints(
    pathLenConstraint === undefined ? { cA } : { cA, pathLenConstraint },
  );
  return extension(OID.basicConstraints, true, value.toSchema());
}

export function keyUsage(bits: number): pkijs.Extension {
  const unusedBits = 31 - Math.clz32(bits & -bits);
  const value = new asn1js.BitString({ valueHex: Uint8Array.of(bits).buffer, unusedBits });
  return extension(OID.keyUsage, true, value);
}

export function ekExtendedKeyUsage(): pkijs.Extension {
  const value = new pkijs.ExtKeyUsage({ keyPurposes: [OID.tcgKpEkCertificate] });
  return extension(OID.extKeyUsage, false, value.toSchema());
}

/** §3.2.9: a directoryName with manufacturer, model and version; critical, as the subject is empty. */
export function ekSubjectAltName(): pkijs.Extension {
  const attributes = [
    attribute(OID.tpmManufacturer, TPM_MANUFACTURER),
    attribute(OID.tpmModel, TPM_MODEL),
    attribute(OID.tpmVersion, TPM_VERSION),
  ];
  // One attribute per RDN: pkijs would put all into one SET, and leave it unsorted against DER.
  const rdns = attributes.map((value) => new asn1js.Set({ value: [value.toSchema()] }));
  const directoryName = new asn1js.Constructed({
    idBlock: { tagClass: 3, tagNumber: 4 },
    value: [new asn1js.Sequence({ value: rdns })],
  });
  return extension(OID.subjectAltName, true, new asn1js.Sequence({ value: [directoryName] }));
}

/** §3.2.10: family, level and revision of the TPM library that the TPM implements. */
export function tpmSpecification(): pkijs.Extension {
  const specification = new asn1js.Sequence({
    value: [
      new asn1js.Utf8String({ value: "2.0" }),
      new asn1js.Integer({ value: 0 }),
      new asn1js.Integer({ value: 164 }),
    ],
  });
  const attributes = new asn1js.Sequence({
    value: [
      new asn1js.Sequence({
        value: [
          new asn1js.ObjectIdentifier({ value: OID.tpmSpecification }),
          new asn1js.Set({ value: [specification] }),
        ],
      }),
    ],
  });
  return extension(OID.subjectDirectoryAttributes, false, attributes);
}

export function subjectKeyIdentifier(spki: Uint8Array): pkijs.Extension {
  const value = new asn1js.OctetString({ valueHex: keyIdentifier(spki) });
  return extension(OID.subjectKeyIdentifier, false, value);
}

export function authorityKeyIdentifier(issuerSpki: Uint8Array): pkijs.Extension {
  const value = new pkijs.AuthorityKeyIdentifier({
    keyIdentifier: new asn1js.OctetString({ valueHex: keyIdentifier(issuerSpki) }),
  });
  return extension(OID.authorityKeyIdentifier, false, value.toSchema());
}

/** RFC 7093 §2, method 1: the leftmost 160 bits of SHA-256 of the subjectPublicKey bits. */
function keyIdentifier(spki: Uint8Array): ArrayBuffer {
  const info = pkijs.PublicKeyInfo.fromBER(new Uint8Array(spki));
  const key = info.subjectPublicKey.valueBlock.valueHexView;
  return new Uint8Array(createHash("sha256").update(key).digest().subarray(0, 20)).buffer;
}

function attribute(type: string, value: string): pkijs.AttributeTypeAndValue {
  return new pkijs.AttributeTypeAndValue({ type, value: new asn1js.Utf8String({ value }) });
}

function extension(extnID: string, critical: boolean, value: asn1js.BaseBlock): pkijs.Extension {
  return new pkijs.Extension({ extnID, critical, extnValue: value.toBER() });
}
