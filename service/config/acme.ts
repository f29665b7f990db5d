/** Settings of certificates from an ACME server (docs/acme.md). */
import { Type } from "typebox";
import { choice, closed, text } from "./kinds.ts";

export type AcmeChallengeType = "tls-alpn-01" | "http-01";
export type AcmeKeyType = "ecdsa" | "rsa";

export interface AcmeConfig {
  readonly directoryUrl: string;
  readonly caFile?: string;
  readonly termsAgreed: true;
  readonly contact: readonly string[];
  readonly certificates: readonly AcmeCertificateConfig[];
  readonly challenge: AcmeChallengeType;
  readonly renewBeforeDays?: number;
  readonly externalAccount?: { readonly keyId: string; readonly hmacKeyFile: string };
}

export interface AcmeCertificateConfig {
  readonly names: readonly string[];
  readonly keyType: AcmeKeyType;
}

/** A DNS name in lower case; no wildcard, which neither challenge can prove, and no address. */
const NAME = "^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?[.])*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$";

const certificate = Type.Object(
  {
    names: Type.Array(Type.String({ pattern: NAME, maxLength: 253 }), {
      description: "DNS names of one certificate, in lower case",
      minItems: 1,
      maxItems: 100,
      uniqueItems: true,
    }),
    keyType: choice("its key: ecdsa (P-256) or rsa (2048)", ["ecdsa", "rsa"]),
  },
  closed,
);

/** The section `acme`. */
export const acmeSettings: Type.TUnsafe<AcmeConfig> = Type.Unsafe<AcmeConfig>(
  Type.Object(
    {
      directoryUrl: Type.String({
        description: "directory of the ACME server (RFC 8555 §7.1.1), https://…",
        pattern: "^https://[!-~]+$",
        maxLength: 2_048,
      }),
      caFile: Type.Optional(
        text("PEM file of the CAs that the ACME server is verified with; without it, the system's"),
      ),
      termsAgreed: Type.Literal(true, {
        description: "true: the operator agrees to the terms of service of the ACME server",
      }),
      contact: Type.Array(Type.String({ pattern: "^mailto:[!-~]+$", maxLength: 320 }), {
        description: "where the ACME server may write to, mailto:…",
        maxItems: 8,
        default: [],
      }),
      certificates: Type.Array(certificate, {
        description: "certificates to get: names, and keyType ecdsa or rsa",
        minItems: 1,
        maxItems: 64,
        uniqueItems: true,
      }),
      challenge: choice(
        "how names are proved: tls-alpn-01 on the public listener (port 443), or http-01 on listen.http (port 80)",
        ["tls-alpn-01", "http-01"],
      ),
      renewBeforeDays: Type.Optional(
        Type.Integer({
          description:
            "days before its end that a certificate is renewed, at most half its life; without it, a third of its life",
          minimum: 1,
          maximum: 365,
        }),
      ),
      externalAccount: Type.Optional(
        Type.Object(
          {
            keyId: text("identifier of the account elsewhere that is bound (RFC 8555 §7.3.4)"),
            hmacKeyFile: text("file with its MAC key, base64url"),
          },
          closed,
        ),
      ),
    },
    closed,
  ),
);
