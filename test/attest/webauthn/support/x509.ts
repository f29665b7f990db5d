/**
 * Certificates put together byte by byte and signed by node:crypto, so that any one field can be wrong
 * while the signature is right. `x509.test.ts` shows that other software reads and verifies them.
 */
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { concatBytes, encodeUtf8 } from "../../../../wire/index.ts";
import { der, seq, set, utf8 } from "../../support/der-certificate.ts";

type Der = Uint8Array;

export function oid(dotted: string): Der {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const out = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) {
      out.unshift(0x80 | (left & 0x7f));
    }
    return out;
  });
  return der(0x06, Uint8Array.from(bytes));
}

export const integer = (...bytes: number[]): Der => der(0x02, Uint8Array.from(bytes));
export const octets = (bytes: Der): Der => der(0x04, bytes);
export const explicit = (number: number, value: Der): Der => der(0xa0 + number, value);
const TRUE = Uint8Array.of(0x01, 0x01, 0xff);

export interface Extension {
  readonly oid: string;
  readonly value: Der;
  readonly critical?: boolean;
}

/** X.520 attributes, one RDN each, in the order given. */
export function name(attributes: Readonly<Record<string, string>>): Der {
  const types: Readonly<Record<string, string>> = {
    CN: "2.5.4.3",
    C: "2.5.4.6",
    O: "2.5.4.10",
    OU: "2.5.4.11",
  };
  const rdns = Object.entries(attributes).map(([type, text]) =>
    set(seq(oid(types[type] ?? type), utf8(text))),
  );
  return seq(...rdns);
}

export const basicConstraints = (cA: boolean, pathLen?: number): Extension => ({
  oid: "2.5.29.19",
  critical: true,
  value: seq(...(cA ? [TRUE] : []), ...(pathLen === undefined ? [] : [integer(pathLen)])),
});
/** @param bits 0x80 digitalSignature, 0x04 keyCertSign */
export const keyUsage = (bits: number): Extension => ({
  oid: "2.5.29.15",
  critical: true,
  value: der(0x03, Uint8Array.of(bits === 0x80 ? 7 : 2, bits)),
});
export const extKeyUsage = (...purposes: string[]): Extension => ({
  oid: "2.5.29.37",
  value: seq(...purposes.map(oid)),
});

export interface Signer {
  readonly key: KeyObject;
  readonly spki: Der;
}

export function createSigner(kind: "P-256" | "P-384" | "rsa" | "ed25519" = "P-256"): Signer {
  const pair =
    kind === "rsa"
      ? generateKeyPairSync("rsa", { modulusLength: 2048 })
      : kind === "ed25519"
        ? generateKeyPairSync("ed25519")
        : generateKeyPairSync("ec", { namedCurve: kind });
  const spki = Uint8Array.from(pair.publicKey.export({ type: "spki", format: "der" }));
  return { key: pair.privateKey, spki };
}

export interface CertificateFields {
  readonly subject: Der;
  readonly issuer: Der;
  readonly spki: Der;
  readonly extensions: readonly Extension[];
  /** YYMMDD. */
  readonly notBefore?: string;
  readonly notAfter?: string;
  readonly serialNumber?: number;
  /** 2 is version 3. */
  readonly version?: number;
  readonly hash?: "sha1" | "sha256";
}

const SIGNATURE_OIDS = {
  ec: { sha1: "1.2.840.10045.4.1", sha256: "1.2.840.10045.4.3.2" },
  rsa: { sha1: "1.2.840.113549.1.1.5", sha256: "1.2.840.113549.1.1.11" },
} as const;

export function makeCertificate(fields: CertificateFields, issuerKey: KeyObject): Der {
  const hash = fields.hash ?? "sha256";
  const isEc = issuerKey.asymmetricKeyType === "ec";
  const algorithm = isEc
    ? seq(oid(SIGNATURE_OIDS.ec[hash]))
    : seq(oid(SIGNATURE_OIDS.rsa[hash]), Uint8Array.of(5, 0));
  const extensions = fields.extensions.map((extension) =>
    seq(oid(extension.oid), ...(extension.critical ? [TRUE] : []), octets(extension.value)),
  );
  const time = (day: string): Der => der(0x17, encodeUtf8(`${day}000000Z`));
  const tbs = seq(
    explicit(0, integer(fields.version ?? 2)),
    integer(0x01, fields.serialNumber ?? 0x42),
    algorithm,
    fields.issuer,
    seq(time(fields.notBefore ?? "200101"), time(fields.notAfter ?? "490101")),
    fields.subject,
    fields.spki,
    ...(extensions.length === 0 ? [] : [explicit(3, seq(...extensions))]),
  );
  const signature = Uint8Array.from(sign(hash, tbs, issuerKey));
  return seq(tbs, algorithm, der(0x03, concatBytes([Uint8Array.of(0), signature])));
}

/** A root and an intermediate of its own, and leaves by the intermediate. */
export interface TestCa {
  readonly root: Der;
  readonly rootSigner: Signer;
  readonly rootName: Der;
  readonly intermediate: Der;
  readonly intermediateSigner: Signer;
  readonly intermediateName: Der;
  readonly leaf: (
    fields: Pick<CertificateFields, "spki" | "subject" | "extensions"> & Partial<CertificateFields>,
  ) => Der;
}

export function createTestCa(
  kind: "P-256" | "rsa" = "P-256",
  overrides: {
    readonly root?: Partial<CertificateFields>;
    readonly intermediate?: Partial<CertificateFields>;
  } = {},
): TestCa {
  const [rootSigner, intermediateSigner] = [createSigner(kind), createSigner(kind)];
  const [rootName, intermediateName] = [name({ CN: "Root" }), name({ CN: "Intermediate" })];
  const caExtensions = [basicConstraints(true), keyUsage(0x04)];
  const root = makeCertificate(
    {
      subject: rootName,
      issuer: rootName,
      spki: rootSigner.spki,
      extensions: caExtensions,
      ...overrides.root,
    },
    rootSigner.key,
  );
  const intermediate = makeCertificate(
    {
      subject: intermediateName,
      issuer: rootName,
      spki: intermediateSigner.spki,
      extensions: caExtensions,
      serialNumber: 0x43,
      ...overrides.intermediate,
    },
    rootSigner.key,
  );
  return {
    root,
    rootSigner,
    rootName,
    intermediate,
    intermediateSigner,
    intermediateName,
    leaf: (fields) =>
      makeCertificate({ issuer: intermediateName, ...fields }, intermediateSigner.key),
  };
}
