/** Attestation statements of each format, by authenticators of our own with certificates of `x509.ts`. */
import { createHash } from "node:crypto";
import { concatBytes, decodeHex, Writer } from "../../../../wire/index.ts";
import { der, seq, set, utf8 } from "../../support/der-certificate.ts";
import { AAGUID, coseKeyOf, type Plan, sha256, signDer } from "./authenticator.ts";
import {
  basicConstraints,
  type CertificateFields,
  createSigner,
  createTestCa,
  explicit,
  extKeyUsage,
  type Extension,
  integer,
  keyUsage,
  name,
  octets,
  oid,
  type Signer,
  type TestCa,
} from "./x509.ts";

export type LeafFields = Partial<CertificateFields>;

export const AAGUID_EXTENSION: Extension = {
  oid: "1.3.6.1.4.1.45724.1.1.4",
  value: octets(decodeHex(AAGUID.replaceAll("-", ""))),
};
export const PACKED_SUBJECT = {
  C: "SE",
  O: "Example",
  OU: "Authenticator Attestation",
  CN: "Example Attestation",
} as const;

/** A CA and an attestation key for each format; keys are made once. */
export interface Makers {
  readonly ca: TestCa;
  readonly attestationKey: Signer;
  readonly aik: Signer;
}

export function createMakers(): Makers {
  return { ca: createTestCa(), attestationKey: createSigner(), aik: createSigner("rsa") };
}

export interface Tweaks {
  readonly leaf?: LeafFields;
  /** In place of the intermediate. */
  readonly issuers?: readonly Uint8Array[];
  readonly signature?: (message: Uint8Array) => Uint8Array;
  readonly alg?: number;
  /** Changes the finished statement. */
  readonly statement?: (statement: Map<string, unknown>) => void;
}

function finish(statement: Map<string, unknown>, tweaks: Tweaks): Map<string, unknown> {
  tweaks.statement?.(statement);
  return statement;
}

export function packedPlan({ ca, attestationKey }: Makers, tweaks: Tweaks = {}): Plan {
  const leaf = ca.leaf({
    spki: attestationKey.spki,
    subject: name(PACKED_SUBJECT),
    extensions: [basicConstraints(false), AAGUID_EXTENSION],
    ...tweaks.leaf,
  });
  return {
    format: "packed",
    anchors: [ca.root],
    statement: ({ message }) =>
      finish(
        new Map<string, unknown>([
          ["alg", tweaks.alg ?? -7],
          ["sig", (tweaks.signature ?? ((bytes) => signDer(attestationKey.key, bytes)))(message)],
          ["x5c", [leaf, ...(tweaks.issuers ?? [ca.intermediate])]],
        ]),
        tweaks,
      ),
  };
}

export function selfPlan(credential: Signer, tweaks: Tweaks = {}): Plan {
  return {
    format: "packed",
    credential,
    policy: { acceptSelfAttestation: true },
    statement: ({ message }) =>
      finish(
        new Map<string, unknown>([
          ["alg", tweaks.alg ?? coseKeyOf(credential).get(3)],
          ["sig", signDer(credential.key, message)],
        ]),
        tweaks,
      ),
  };
}

export function u2fPlan({ ca, attestationKey }: Makers, tweaks: Tweaks = {}): Plan {
  const leaf = ca.leaf({
    spki: attestationKey.spki,
    subject: name({ CN: "U2F" }),
    extensions: [basicConstraints(false)],
    ...tweaks.leaf,
  });
  return {
    format: "fido-u2f",
    anchors: [ca.intermediate],
    authData: { aaguid: "00000000-0000-0000-0000-000000000000" },
    policy: { userVerification: "optional" },
    statement: ({ authData, clientDataHash, credential }) => {
      const cose = coseKeyOf(credential);
      const [x, y] = [cose.get(-2) as Uint8Array, cose.get(-3) as Uint8Array];
      const idLength = (authData[53]! << 8) + authData[54]!;
      const message = concatBytes([
        Uint8Array.of(0),
        authData.subarray(0, 32),
        clientDataHash,
        authData.subarray(55, 55 + idLength),
        Uint8Array.of(4),
        x,
        y ?? x,
      ]);
      return finish(
        new Map<string, unknown>([
          ["sig", (tweaks.signature ?? ((bytes) => signDer(attestationKey.key, bytes)))(message)],
          ["x5c", [leaf, ...(tweaks.issuers ?? [])]],
        ]),
        tweaks,
      );
    },
  };
}

export interface AppleTweaks extends Tweaks {
  readonly nonce?: Uint8Array;
  readonly nonceExtension?: Extension | undefined;
  /** Another value behind the nonce, within its tag or after it. */
  readonly nonceTail?: "inside" | "after";
  readonly leafSpki?: Uint8Array;
}

export function applePlan({ ca }: Makers, tweaks: AppleTweaks = {}): Plan {
  return {
    format: "apple",
    anchors: [ca.root],
    statement: ({ message, credential }) => {
      const value = octets(tweaks.nonce ?? sha256(message));
      const [inside, after] = ["inside", "after"].map((place) =>
        tweaks.nonceTail === place ? integer(1) : new Uint8Array(),
      );
      const nonce = seq(explicit(1, concatBytes([value, inside!])), after!);
      const extension = { oid: "1.2.840.113635.100.8.2", value: nonce };
      const leaf = ca.leaf({
        spki: tweaks.leafSpki ?? credential.spki,
        subject: name({ CN: "Apple" }),
        extensions: [
          basicConstraints(false),
          ...("nonceExtension" in tweaks
            ? tweaks.nonceExtension === undefined
              ? []
              : [tweaks.nonceExtension]
            : [extension]),
        ],
        ...tweaks.leaf,
      });
      return finish(new Map<string, unknown>([["x5c", [leaf, ca.intermediate]]]), tweaks);
    },
  };
}

/** [n] EXPLICIT with a number above 30. */
export function highTag(number: number, value: Uint8Array): Uint8Array {
  const body = der(0x30, value).subarray(1);
  return concatBytes([Uint8Array.of(0xbf, 0x80 | (number >> 7), number & 0x7f), body]);
}

const NULL = Uint8Array.of(5, 0);
export const AUTHORIZATION: {
  readonly purpose: (...values: number[]) => Uint8Array;
  readonly origin: (value: number) => Uint8Array;
  readonly allApplications: Uint8Array;
  readonly noAuthRequired: Uint8Array;
} = {
  purpose: (...values) => explicit(1, set(...values.map((it) => integer(it)))),
  origin: (value) => highTag(702, integer(value)),
  allApplications: highTag(600, NULL),
  noAuthRequired: highTag(503, NULL),
};

export interface AndroidTweaks extends Tweaks {
  readonly challenge?: Uint8Array;
  readonly levels?: readonly [number, number];
  readonly software?: readonly Uint8Array[];
  readonly tee?: readonly Uint8Array[];
  readonly leafSpki?: Uint8Array;
  /** In place of the whole extension. */
  readonly description?: Uint8Array;
  readonly withoutDescription?: boolean;
  /** A field behind those that the description has. */
  readonly ninthField?: boolean;
}

export function androidPlan({ ca }: Makers, tweaks: AndroidTweaks = {}): Plan {
  return {
    format: "android-key",
    anchors: [ca.root],
    statement: ({ message, credential, clientDataHash }) => {
      const level = (value: number): Uint8Array => der(0x0a, Uint8Array.of(value));
      const [attestation, keymaster] = tweaks.levels ?? [1, 1];
      const { purpose, origin, noAuthRequired } = AUTHORIZATION;
      const description =
        tweaks.description ??
        seq(
          integer(0x01, 0x2c),
          level(attestation),
          integer(4),
          level(keymaster),
          octets(tweaks.challenge ?? clientDataHash),
          octets(new Uint8Array()),
          seq(...(tweaks.software ?? [highTag(701, integer(1))])),
          seq(...(tweaks.tee ?? [purpose(2, 3), noAuthRequired, origin(0)])),
          ...(tweaks.ninthField === true ? [integer(1)] : []),
        );
      const leaf = ca.leaf({
        spki: tweaks.leafSpki ?? credential.spki,
        subject: name({ CN: "Android Keystore Key" }),
        extensions: [
          keyUsage(0x80),
          ...(tweaks.withoutDescription
            ? []
            : [{ oid: "1.3.6.1.4.1.11129.2.1.17", value: description }]),
        ],
        ...tweaks.leaf,
      });
      return finish(
        new Map<string, unknown>([
          ["alg", tweaks.alg ?? -7],
          ["sig", (tweaks.signature ?? ((bytes) => signDer(credential.key, bytes)))(message)],
          ["x5c", [leaf, ca.intermediate, ca.root]],
        ]),
        tweaks,
      );
    },
  };
}

export const AIK_PURPOSE = "2.23.133.8.3";

/** subjectAltName of an AIK certificate: attributes by the last arc of 2.23.133.2. */
export function tpmName(
  attributes: Readonly<Record<number, string>> = {
    1: "id:53544D20",
    2: "ST33",
    3: "id:00490004",
  },
): Uint8Array {
  const rdns = Object.entries(attributes).map(([arc, text]) =>
    set(seq(oid(`2.23.133.2.${arc}`), utf8(text))),
  );
  return seq(explicit(4, seq(...rdns)));
}

export const AIK_EXTENSIONS: readonly Extension[] = [
  basicConstraints(false),
  keyUsage(0x80),
  extKeyUsage(AIK_PURPOSE),
  { oid: "2.5.29.17", critical: true, value: tpmName() },
];

export interface CertInfoFields {
  readonly magic?: number;
  readonly type?: number;
  readonly extraData?: Uint8Array;
  readonly safe?: number;
  readonly name?: Uint8Array;
  readonly tail?: Uint8Array;
}

export interface TpmTweaks extends Tweaks {
  readonly pubArea?: Partial<{
    attributes: number;
    nameAlg: number;
    key: Signer;
    tail: Uint8Array;
    scheme: Uint8Array;
  }>;
  readonly certInfo?: CertInfoFields;
  readonly hash?: "sha1" | "sha256";
  readonly aik?: Signer;
  readonly ver?: string;
}

/** fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign. */
export const CREDENTIAL_ATTRIBUTES = 0x0004_0472;

export function tpmPlan(makers: Makers, tweaks: TpmTweaks = {}): Plan {
  const { ca } = makers;
  const aik = tweaks.aik ?? makers.aik;
  const hash = tweaks.hash ?? "sha256";
  const leaf = ca.leaf({
    spki: aik.spki,
    subject: seq(),
    extensions: AIK_EXTENSIONS,
    ...tweaks.leaf,
  });
  return {
    format: "tpm",
    anchors: [ca.root],
    statement: ({ message, credential }) => {
      const pubArea = publicAreaOf(tweaks.pubArea?.key ?? credential, tweaks);
      const certInfo = certInfoOf(message, pubArea, tweaks);
      return finish(
        new Map<string, unknown>([
          ["alg", tweaks.alg ?? (hash === "sha1" ? -65535 : -257)],
          ["sig", (tweaks.signature ?? ((bytes) => signDer(aik.key, bytes, hash)))(certInfo)],
          ["ver", tweaks.ver ?? "2.0"],
          ["x5c", [leaf, ...(tweaks.issuers ?? [ca.intermediate])]],
          ["pubArea", pubArea],
          ["certInfo", certInfo],
        ]),
        tweaks,
      );
    },
  };
}

function publicAreaOf(key: Signer, { pubArea = {} }: TpmTweaks): Uint8Array {
  const cose = coseKeyOf(key);
  const writer = new Writer()
    .u16(0x0023)
    .u16(pubArea.nameAlg ?? 0x000b)
    .u32(pubArea.attributes ?? CREDENTIAL_ATTRIBUTES)
    .vec16(new Uint8Array())
    .u16(0x0010)
    // No scheme, as Windows makes it: some relying parties cannot read one with a hash.
    .bytes(pubArea.scheme ?? Uint8Array.of(0x00, 0x10))
    .u16(0x0003)
    .u16(0x0010)
    .vec16(cose.get(-2) as Uint8Array)
    .vec16(cose.get(-3) as Uint8Array);
  return writer.bytes(pubArea.tail ?? new Uint8Array()).finish();
}

function certInfoOf(message: Uint8Array, pubArea: Uint8Array, tweaks: TpmTweaks): Uint8Array {
  const { certInfo = {}, hash = "sha256" } = tweaks;
  const digest = (name_: string, bytes: Uint8Array): Uint8Array =>
    Uint8Array.from(createHash(name_).update(bytes).digest());
  const nameAlg = (pubArea[2]! << 8) + pubArea[3]!;
  const objectName = concatBytes([
    pubArea.subarray(2, 4),
    digest(nameAlg === 4 ? "sha1" : "sha256", pubArea),
  ]);
  return new Writer()
    .u32(certInfo.magic ?? 0xff544347)
    .u16(certInfo.type ?? 0x8017)
    .vec16(new Uint8Array(34))
    .vec16(certInfo.extraData ?? digest(hash, message))
    .u64(1n)
    .u32(2)
    .u32(3)
    .u8(certInfo.safe ?? 1)
    .u64(4n)
    .vec16(certInfo.name ?? objectName)
    .vec16(objectName)
    .bytes(certInfo.tail ?? new Uint8Array())
    .finish();
}
