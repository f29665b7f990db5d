/** FIDO metadata blobs of our own, signed by a CA of our own: right, but for what a plan says. */
import { sign } from "node:crypto";
import { parseTrustAnchors, type TrustAnchors } from "../../../../attest/webauthn/index.ts";
import { encodeBase64Url, encodeUtf8 } from "../../../../wire/index.ts";
import { der, seq } from "../../support/der-certificate.ts";
import { AAGUID } from "./authenticator.ts";
import { pemOf } from "./registration.ts";
import { createMakers, type Makers } from "./statements.ts";
import {
  basicConstraints,
  createSigner,
  createTestCa,
  type Extension,
  extKeyUsage,
  keyUsage,
  name,
  type Signer,
  type TestCa,
} from "./x509.ts";

export const fido: TestCa = createTestCa("rsa");
export const makers: Makers = createMakers();
export const anchors: TrustAnchors = parseTrustAnchors(pemOf(fido.root));
const rsaKey = createSigner("rsa");
export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");

const dnsName = (host: string): Extension => ({
  oid: "2.5.29.17",
  value: seq(der(0x82, encodeUtf8(host))),
});
export const leafOf = (
  host: string,
  signer: Signer = rsaKey,
  more: readonly Extension[] = [],
): Uint8Array =>
  fido.leaf({
    spki: signer.spki,
    subject: name({ CN: host }),
    extensions: [
      basicConstraints(false),
      keyUsage(0x80),
      extKeyUsage("1.3.6.1.5.5.7.3.1"),
      dnsName(host),
      ...more,
    ],
  });
const LEAF = leafOf("mds.fidoalliance.org");

export interface BlobPlan {
  readonly header?: Readonly<Record<string, unknown>>;
  readonly payload?: Readonly<Record<string, unknown>>;
  readonly signer?: Signer;
  readonly text?: (jwt: string) => string;
}

export const entryOf = (more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> => ({
  aaguid: AAGUID,
  metadataStatement: {
    attestationTypes: ["basic_full"],
    attestationRootCertificates: [base64(makers.ca.root)],
  },
  statusReports: [{ status: "FIDO_CERTIFIED_L1", effectiveDate: "2024-01-01" }],
  timeOfLastStatusChange: "2024-01-01",
  ...more,
});

export function blobOf(plan: BlobPlan = {}): string {
  const header = {
    alg: "RS256",
    typ: "JWT",
    x5c: [LEAF, fido.intermediate].map(base64),
    ...plan.header,
  };
  const payload = {
    no: 42,
    nextUpdate: "2026-12-01",
    entries: [entryOf()],
    legalHeader: "…",
    ...plan.payload,
  };
  const signed = [header, payload]
    .map((part) => encodeBase64Url(encodeUtf8(JSON.stringify(part))))
    .join(".");
  const { key } = plan.signer ?? rsaKey;
  const options = { key, dsaEncoding: "ieee-p1363" } as const;
  const signature = Uint8Array.from(sign("sha256", encodeUtf8(signed), options));
  const jwt = `${signed}.${encodeBase64Url(signature)}`;
  return plan.text?.(jwt) ?? jwt;
}
