/** Settings of the issuer: keys, signing, and who may ask. */
import { Type } from "typebox";
import type { IssuerConfig } from "./types.ts";
import { publicMetadataSchema } from "./public-metadata.ts";
import { choice, closed, DAY, section, text, whole } from "./kinds.ts";

/** Of a certificate, as `openssl x509 -fingerprint -sha256` shows it, without colons and in lower case. */
const fingerprint = Type.String({ pattern: "^[0-9a-f]{64}$" });

const trustedAttester = Type.Object(
  {
    name: Type.String({
      description: "names the attester in metrics and to the operator",
      pattern: "^[a-z0-9][a-z0-9-]{0,31}$",
    }),
    certificateSha256: Type.Array(fingerprint, {
      description: "SHA-256 of its certificates: the present one, and the next while it changes",
      minItems: 1,
      maxItems: 8,
    }),
    tokensPerMinute: whole("tokens that it may ask for in a minute", 1, 100_000_000, 60_000),
  },
  closed,
);

const tenant = Type.Object(
  {
    name: Type.String({
      description: "its issuer name, host[:port] in lower case",
      pattern: "^[a-z0-9](?:[a-z0-9.-]{0,252})(?::[0-9]{1,5})?$",
    }),
    attesters: Type.Optional(
      Type.Array(text("name of an attester"), {
        description: "those of issuer.attesters that may ask it; without it, all",
        maxItems: 256,
      }),
    ),
  },
  closed,
);

export const issuerSchema: Type.TUnsafe<IssuerConfig> = Type.Unsafe<IssuerConfig>(
  Type.Object(
    {
      activeSeconds: whole("how long a key signs", 3_600, 365 * DAY, 7 * DAY),
      directoryMaxAgeSeconds: whole("max-age of the key directory (RFC 9578 §4)", 60, 7 * DAY, DAY),
      redeemableSeconds: whole(
        "how long tokens of a retired key are redeemed",
        3_600,
        365 * DAY,
        8 * DAY,
      ),
      maxBatch: whole("token requests in one batch", 1, 1_000, 100),
      workers: whole("signing threads; 0 means one per core", 0, 256, 0),
      maxQueue: whole("blind signatures that may wait before 503", 1, 1_000_000, 4_096),
      tokenTypes: Type.Array(Type.Unsafe<number>({ type: "integer", enum: [1, 2, 5, 0xda7a] }), {
        description:
          "token types that are issued and redeemed, preferred first: 2 is blind RSA, 1 and 5 are VOPRF (P-384, ristretto255), 55930 (0xDA7A) is partially blind RSA; an edge of its own redeems 2 and 55930",
        minItems: 1,
        maxItems: 4,
        uniqueItems: true,
        default: [2],
      }),
      publicMetadata: Type.Optional(publicMetadataSchema),
      voprfEngine: choice(
        "what computes types 1 and 5: native code (OpenSSL, libsodium) or no start; any falls back to JavaScript, whose timing can tell a key",
        ["native", "any"],
      ),
      attesters: Type.Array(trustedAttester, {
        description: "attesters that may ask for signatures, of the role issuer",
        maxItems: 256,
        default: [],
      }),
      tenants: Type.Array(tenant, {
        description:
          "further issuers in this process, of the role issuer, each with keys of its own; the Host tells them apart",
        maxItems: 64,
        default: [],
      }),
    },
    section,
  ),
);
