/**
 * EK certificates put together byte by byte and signed by node:crypto: well signed, and odd in one
 * place where no tool can be told to be.
 */
import { generateKeyPairSync, sign } from "node:crypto";
import { concatBytes, decodeHex, encodeUtf8 } from "../../../wire/index.ts";

type Der = Uint8Array;

export function der(tag: number, ...content: readonly Der[]): Der {
  const body = concatBytes(content);
  const { length } = body;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return concatBytes([Uint8Array.of(tag, ...size), body]);
}
export const seq = (...content: readonly Der[]): Der => der(0x30, ...content);
export const set = (...content: readonly Der[]): Der => der(0x31, ...content);
export const utf8 = (text: string): Der => der(0x0c, encodeUtf8(text));
const hex = (text: string): Der => decodeHex(text);

const ECDSA_WITH_SHA256 = seq(hex("06082a8648ce3d040302"));
const TRUE = hex("0101ff");
const VALIDITY = seq(
  der(0x17, encodeUtf8("250101000000Z")),
  der(0x18, encodeUtf8("99991231235959Z")),
);
/** tcg-kp-EKCertificate and tcg-kp-AIKCertificate. */
const PURPOSES = { ek: "06056781050801", other: "06056781050803" } as const;
const ROOT_NAME = seq(set(seq(hex("0603550403"), utf8("Root"))));

/** A TPM attribute: branch 2 of the TCG arc. */
export const tpmAttribute = (arc: number, text: string): Der =>
  seq(Uint8Array.of(6, 5, 0x67, 0x81, 5, 2, arc), utf8(text));

const extension = (oid: string, value: Der, ...critical: readonly Der[]): Der =>
  seq(hex(oid), ...critical, der(0x04, value));

export interface OddLeaf {
  /** INTEGER. */
  readonly serialNumber?: Der;
  /** Name. */
  readonly subject?: Der;
  /** Name of the issuer, which is then not that of the root's certificate. */
  readonly issuer?: Der;
  /** Relative distinguished names of the directoryName. */
  readonly rdns?: readonly Der[];
  readonly sanCritical?: boolean;
  readonly extKeyUsage?: "ek" | "absent" | "other";
  readonly manufacturer?: string;
  readonly model?: string;
  readonly version?: string;
  /** Value of subjectDirectoryAttributes. */
  readonly directoryAttributes?: Der;
  readonly keyUsage?: "keyAgreement" | "keyEncipherment";
}

export interface DerCa {
  readonly rootPem: string;
  readonly issue: (spki: Der, odd?: OddLeaf) => Der;
}

/** A root with this name (by default a plain one) that issues what it is told. */
export function createDerCa(rootName: Der = ROOT_NAME): DerCa {
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const rootSpki = new Uint8Array(keys.publicKey.export({ type: "spki", format: "der" }));
  const certificate = (...fields: readonly Der[]): Der => {
    const tbs = seq(der(0xa0, hex("020102")), ...fields);
    const signature = new Uint8Array(sign("sha256", tbs, keys.privateKey));
    return seq(tbs, ECDSA_WITH_SHA256, der(0x03, Uint8Array.of(0), signature));
  };
  const root = certificate(
    hex("020101"),
    ECDSA_WITH_SHA256,
    rootName,
    VALIDITY,
    rootName,
    rootSpki,
    der(
      0xa3,
      seq(extension("0603551d13", seq(TRUE), TRUE), extension("0603551d0f", hex("03020204"), TRUE)),
    ),
  );
  return {
    rootPem: pemOf(root),
    issue: (spki, odd = {}) => certificate(...leafFields(spki, rootName, odd)),
  };
}

function leafFields(spki: Der, rootName: Der, odd: OddLeaf): Der[] {
  const rdns = odd.rdns ?? [
    set(tpmAttribute(1, odd.manufacturer ?? "id:53544D20")),
    set(tpmAttribute(2, odd.model ?? "ST33")),
    set(tpmAttribute(3, odd.version ?? "id:00490004")),
  ];
  const names = seq(der(0xa4, seq(...rdns)));
  const purpose = odd.extKeyUsage ?? "ek";
  const usage = odd.keyUsage === "keyEncipherment" ? "03020520" : "03020308";
  return [
    odd.serialNumber ?? hex("020102"),
    ECDSA_WITH_SHA256,
    odd.issuer ?? rootName,
    VALIDITY,
    odd.subject ?? seq(),
    spki,
    der(
      0xa3,
      seq(
        extension("0603551d13", seq(), TRUE),
        extension("0603551d0f", hex(usage), TRUE),
        ...(purpose === "absent" ? [] : [extension("0603551d25", seq(hex(PURPOSES[purpose])))]),
        ...(odd.directoryAttributes === undefined
          ? []
          : [extension("0603551d09", odd.directoryAttributes)]),
        extension("0603551d11", names, ...(odd.sanCritical === false ? [] : [TRUE])),
      ),
    ),
  ];
}

export function pemOf(bytes: Uint8Array): string {
  const base64 = Buffer.from(bytes).toString("base64");
  return `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`;
}
