/** The settings of WebAuthn attestation (`attester.webauthn`), with their schema; see docs/webauthn.md. */
import { Type } from "typebox";

/** `none` is not among them: it attests nothing, so no result could be made of it. */
const FORMATS = ["tpm", "packed", "android-key", "apple", "fido-u2f"] as const;
type Format = (typeof FORMATS)[number];

export interface WebAuthnConfig {
  readonly enabled: boolean;
  readonly rpId?: string;
  readonly allowedOrigins?: readonly string[];
  readonly formats: readonly Format[];
  readonly rootFiles: Readonly<Partial<Record<Format, string>>>;
  readonly metadataBlobFile?: string;
  readonly metadataRootsFile?: string;
  readonly androidRevocationFile?: string;
  readonly userVerification: "required" | "optional";
  readonly allowedAaguids?: readonly string[];
  readonly deniedAaguids: readonly string[];
  readonly acceptSha1: readonly ("tpm-attestation" | "tpm-name")[];
  readonly tokens: number;
  readonly attestationsPerNetwork: number;
  readonly unsafeAcceptUnanchored: readonly Format[];
}

const file = (description: string): Type.TString =>
  Type.String({ description, minLength: 1, maxLength: 4_096 });

const formats = (
  description: string,
  value: readonly Format[],
): Type.TArray<Type.TUnsafe<Format>> =>
  Type.Array(Type.Unsafe<Format>({ type: "string", enum: FORMATS }), {
    description,
    uniqueItems: true,
    maxItems: FORMATS.length,
    default: value,
  });

const aaguids = { pattern: "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" };
const MAX_AAGUIDS = 10_000;

const rootFiles = Type.Object(
  {
    tpm: Type.Optional(file("PEM file of the CAs that certify AIKs")),
    packed: Type.Optional(file("PEM file of the roots of security keys' makers")),
    "android-key": Type.Optional(file("PEM file of Android's hardware attestation roots")),
    apple: Type.Optional(file("PEM file of Apple's WebAuthn root")),
    "fido-u2f": Type.Optional(file("PEM file of the roots of U2F devices' makers")),
  },
  { additionalProperties: false, default: {} },
);

const section = Type.Object(
  {
    enabled: Type.Boolean({
      description: "whether browsers may attest by WebAuthn (docs/webauthn.md)",
      default: false,
    }),
    rpId: Type.Optional(
      Type.String({
        description:
          "relying party id: a domain that all origins are under; default: publicUrl's host",
        pattern: "^[a-z0-9-]+(\\.[a-z0-9-]+)*$",
        maxLength: 253,
      }),
    ),
    allowedOrigins: Type.Optional(
      Type.Array(Type.String({ pattern: "^https://[^/]+$", maxLength: 512 }), {
        description: "origins of the pages that may attest; default: that of publicUrl",
        minItems: 1,
        maxItems: 256,
      }),
    ),
    formats: formats("attestation formats that are accepted at all", FORMATS),
    rootFiles,
    metadataBlobFile: Type.Optional(
      file("FIDO metadata blob (MDS3); past its nextUpdate nothing is accepted"),
    ),
    metadataRootsFile: Type.Optional(
      file("PEM file of the root that the metadata blob is signed under"),
    ),
    androidRevocationFile: Type.Optional(
      file("Android's attestation status list (JSON); without it android-key is refused"),
    ),
    userVerification: Type.Unsafe<"required" | "optional">({
      description:
        "required: the authenticator knows its person (PIN, biometrics); optional: a touch is enough",
      type: "string",
      enum: ["required", "optional"],
      default: "required",
    }),
    allowedAaguids: Type.Optional(
      Type.Array(Type.String(aaguids), {
        description: "the only models that are accepted; default: all that their maker vouches for",
        maxItems: MAX_AAGUIDS,
      }),
    ),
    deniedAaguids: Type.Array(Type.String(aaguids), {
      description: "models that are refused, registered ones too",
      maxItems: MAX_AAGUIDS,
      default: [],
    }),
    acceptSha1: Type.Array(
      Type.Unsafe<"tpm-attestation" | "tpm-name">({
        type: "string",
        enum: ["tpm-attestation", "tpm-name"],
      }),
      {
        description:
          "where SHA-1 is believed; Windows Hello signs tpm-attestation with it to this day",
        uniqueItems: true,
        default: [],
      },
    ),
    tokens: Type.Integer({
      description: "tokens that one credential may have in one window of the allowance",
      minimum: 1,
      maximum: 1_000_000,
      default: 50,
    }),
    attestationsPerNetwork: Type.Integer({
      description:
        "WebAuthn attestations of one network (/24, /48) in one window of the allowance; where a proxy is in front, all clients are one network",
      minimum: 1,
      maximum: 10_000_000,
      default: 200,
    }),
    unsafeAcceptUnanchored: formats(
      "formats without roots whose attestations are believed all the same: anyone can make them in software. For development and tests",
      [],
    ),
  },
  { additionalProperties: false, default: {} },
);

/** The compiler holds the schema and {@link WebAuthnConfig} together. */
export const webauthnSchema: Type.TUnsafe<WebAuthnConfig> =
  Type.Unsafe<Type.Static<typeof section>>(section);
