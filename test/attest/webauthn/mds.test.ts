/** FIDO metadata blobs of our own: each fault of a blob, and what an entry does to a registration (F7). */
import { describe, expect, it } from "vitest";
import { SettingsService } from "@simplewebauthn/server";
import { verifyMDSBlob } from "@simplewebauthn/server/helpers";
import {
  type MetadataBlob,
  parseMetadataBlob,
  parseTrustAnchors,
  verifyRegistration,
  type WebAuthnTrust,
} from "../../../attest/webauthn/index.ts";
import { encodeHex } from "../../../wire/index.ts";
import { codeOfAsync } from "../../support/reject.ts";
import { AAGUID, crypto, NOW, type Plan, registrationOf } from "./support/authenticator.ts";
import { pemOf } from "./support/registration.ts";
import {
  anchors,
  base64,
  type BlobPlan,
  blobOf,
  entryOf,
  fido,
  leafOf,
  makers,
} from "./support/metadata.ts";
import { packedPlan, selfPlan, u2fPlan } from "./support/statements.ts";
import { createSigner, createTestCa } from "./support/x509.ts";

const INVALID = "ATTEST_WEBAUTHN_METADATA_INVALID";
const STALE = "ATTEST_WEBAUTHN_METADATA_STALE";
const REFUSED = "ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED";
const UNTRUSTED = "ATTEST_WEBAUTHN_CHAIN_UNTRUSTED";
const FINE = "nothing was thrown";

const ecKey = createSigner();

const parse = (plan: BlobPlan = {}, more: object = {}): Promise<MetadataBlob> =>
  parseMetadataBlob({ jwt: blobOf(plan), anchors, crypto, clock: () => NOW, ...more });

describe("a metadata blob", () => {
  it("is accepted, also by @simplewebauthn/server", async () => {
    const blob = await parse();
    expect(blob).toMatchObject({ kind: "verified-metadata", number: 42 });
    expect(blob.staleAtMs).toBe(Date.UTC(2026, 11, 2));
    expect(blob.entries.get(AAGUID)?.statuses).toStrictEqual(["FIDO_CERTIFIED_L1"]);
    SettingsService.setRootCertificates({
      identifier: "mds",
      certificates: [pemOf(fido.root)],
    });
    expect((await verifyMDSBlob(blobOf())).payload.no).toBe(42);
    // The library does not ask who the signer is: any customer of the CA would do.
    const x5c = [leafOf("mds.example.org"), fido.intermediate].map(base64);
    expect((await verifyMDSBlob(blobOf({ header: { x5c } }))).payload.no).toBe(42);
  });

  it("is accepted with a line end, and signed with ECDSA", async () => {
    expect((await parse({ text: (jwt) => `${jwt}\n` })).number).toBe(42);
    const x5c = [leafOf("mds.fidoalliance.org", ecKey), fido.intermediate].map(base64);
    expect((await parse({ header: { alg: "ES256", x5c }, signer: ecKey })).number).toBe(42);
  });

  const rows: readonly [string, BlobPlan, string][] = [
    ["a changed payload", { text: (jwt) => jwt.replace(/\.e/, ".f") }, INVALID],
    ["a signature by another key", { signer: createSigner("rsa") }, INVALID],
    ["no signature", { text: (jwt) => jwt.slice(0, jwt.lastIndexOf(".") + 1) }, INVALID],
    ["two parts", { text: (jwt) => jwt.slice(0, jwt.lastIndexOf(".")) }, INVALID],
    ["four parts", { text: (jwt) => `${jwt}.AA` }, INVALID],
    ["text that is no JWS", { text: () => "hello" }, INVALID],
    ["a header that is no object", { text: (jwt) => `W10${jwt.slice(jwt.indexOf("."))}` }, INVALID],
    ["alg none", { header: { alg: "none" } }, "ATTEST_ALGORITHM_NOT_ALLOWED"],
    ["alg HS256", { header: { alg: "HS256" } }, "ATTEST_ALGORITHM_NOT_ALLOWED"],
    [
      "an alg that does not go with the key",
      { header: { alg: "ES256" } },
      "ATTEST_ALGORITHM_NOT_ALLOWED",
    ],
    ["a critical header", { header: { crit: ["exp"] } }, INVALID],
    [
      "an address in place of x5c",
      { header: { x5c: undefined, x5u: "https://mds.example" } },
      INVALID,
    ],
    ["x5c that is no base64", { header: { x5c: ["*"] } }, INVALID],
    ["an empty x5c", { header: { x5c: [] } }, "ATTEST_WEBAUTHN_STATEMENT_INVALID"],
    [
      "a certificate for another name",
      { header: { x5c: [leafOf("mds.example.org"), fido.intermediate].map(base64) } },
      INVALID,
    ],
    ["no number", { payload: { no: "42" } }, INVALID],
    ["no nextUpdate", { payload: { nextUpdate: undefined } }, INVALID],
    ["a nextUpdate that is no date", { payload: { nextUpdate: "2026-13-01" } }, INVALID],
    ["a nextUpdate that is over", { payload: { nextUpdate: "2026-11-22" } }, STALE],
    ["no entries", { payload: { entries: {} } }, INVALID],
    ["an entry that is no object", { payload: { entries: [1] } }, INVALID],
    [
      "an entry without a statement",
      { payload: { entries: [entryOf({ metadataStatement: undefined })] } },
      INVALID,
    ],
    [
      "a status that is no text",
      { payload: { entries: [entryOf({ statusReports: [{ status: 1 }] })] } },
      INVALID,
    ],
    [
      "reports that are no list",
      { payload: { entries: [entryOf({ statusReports: {} })] } },
      INVALID,
    ],
  ];

  it.each(rows)("F7 rejects one with %s", async (_, plan, code) => {
    expect(await codeOfAsync(() => parse(plan))).toBe(code);
  });

  it("F7 rejects one that another CA signed, or that is expired, or older than one seen", async () => {
    const other = parseTrustAnchors(pemOf(createTestCa("rsa").root));
    expect(await codeOfAsync(() => parse({}, { anchors: other }))).toBe(UNTRUSTED);
    const late = { clock: () => Date.UTC(2050, 0, 1) };
    expect(await codeOfAsync(() => parse({}, late))).toBe("ATTEST_WEBAUTHN_CERTIFICATE_EXPIRED");
    expect(await codeOfAsync(() => parse({}, { minNumber: 43 }))).toBe(STALE);
    expect(await codeOfAsync(() => parse({}, { minNumber: 42 }))).toBe(FINE);
  });

  it("F7 rejects a changed payload before it reads it", async () => {
    const text = (jwt: string): string => jwt.replace(/\..*\./, ".bm8gSlNPTg.");
    await expect(parse({ text })).rejects.toThrow("the signature does not verify");
  });

  it("F7 rejects one above the limit before it reads it", async () => {
    const jwt = "a".repeat(64 * 1024 * 1024 + 1);
    await expect(parse({}, { jwt })).rejects.toThrow("larger than the limit");
  });

  it("holds what is known against either of two entries of a model", async () => {
    const revoked = entryOf({ statusReports: [{ status: "REVOKED" }] });
    const blob = await parse({ payload: { entries: [revoked, entryOf()] } });
    expect(blob.entries.get(AAGUID)?.statuses).toStrictEqual(["REVOKED", "FIDO_CERTIFIED_L1"]);
  });
});

describe("a model in the metadata", () => {
  const codeWith = async (
    entries: readonly unknown[],
    plan: Plan = packedPlan(makers),
    more: Partial<Plan> = {},
    trust: Partial<WebAuthnTrust> = {},
  ): Promise<string> => {
    const metadata = await parse({ payload: { entries } });
    const check = registrationOf({ ...plan, anchors: [], ...more });
    return codeOfAsync(() =>
      verifyRegistration({ ...check, trust: { ...check.trust, metadata, ...trust } }),
    );
  };

  it("F7 is trusted through its own anchors", async () => {
    expect(await codeWith([entryOf()])).toBe(FINE);
    expect(await codeWith([])).toBe(UNTRUSTED);
  });

  it("F7 rejects a model by another maker that the operator trusts, too", async () => {
    const statement = {
      attestationTypes: ["basic_full"],
      attestationRootCertificates: [base64(createTestCa().root)],
    };
    const entry = entryOf({ metadataStatement: statement });
    const configured = { anchors: [makers.ca.root] };
    expect(await codeWith([entry], packedPlan(makers), configured)).toBe(UNTRUSTED);
    expect(await codeWith([], packedPlan(makers), configured)).toBe(FINE);
  });

  it("F7 rejects a model whose anchors cannot be read", async () => {
    const attestationRootCertificates = ["AAAA"];
    const statement = { attestationTypes: ["basic_full"], attestationRootCertificates };
    const entry = entryOf({ metadataStatement: statement });
    expect(await codeWith([entry])).toBe(UNTRUSTED);
    const policy = { acceptUnanchored: ["packed"] } as const;
    expect(await codeWith([entry], packedPlan(makers), { policy })).toBe(UNTRUSTED);
    expect(await codeWith([], packedPlan(makers), { policy })).toBe(FINE);
  });

  it.each([
    "REVOKED",
    "USER_VERIFICATION_BYPASS",
    "ATTESTATION_KEY_COMPROMISE",
    "USER_KEY_REMOTE_COMPROMISE",
    "USER_KEY_PHYSICAL_COMPROMISE",
  ])("F7 rejects a model with the status %s, whatever came later", async (status) => {
    const statusReports = [{ status }, { status: "UPDATE_AVAILABLE" }];
    expect(await codeWith([entryOf({ statusReports })])).toBe(REFUSED);
  });

  it("F7 rejects a model that is not in it, where the policy requires that", async () => {
    const policy = { metadata: "required" } as const;
    const anchored = { policy, anchors: [makers.ca.root] };
    expect(await codeWith([], packedPlan(makers), anchored)).toBe(REFUSED);
    expect(await codeWith([entryOf()], packedPlan(makers), anchored)).toBe(FINE);
    const check = registrationOf({ ...packedPlan(makers), policy });
    expect(await codeOfAsync(() => verifyRegistration(check))).toBe(REFUSED);
  });

  it("F7 rejects self attestation of a model that has certificates", async () => {
    const self = selfPlan(createSigner());
    expect(await codeWith([entryOf()], self)).toBe(REFUSED);
    const statement = { attestationTypes: ["basic_surrogate"] };
    expect(await codeWith([entryOf({ metadataStatement: statement })], self)).toBe(FINE);
    expect(await codeWith([entryOf({ metadataStatement: statement })])).toBe(REFUSED);
  });

  it("F7 rejects every model once the metadata is stale", async () => {
    const metadata = await parse();
    const check = registrationOf(packedPlan(makers));
    const at = (ms: number): Promise<string> =>
      codeOfAsync(() =>
        verifyRegistration({ ...check, clock: () => ms, trust: { ...check.trust, metadata } }),
      );
    expect(await at(metadata.staleAtMs - 1)).toBe(FINE);
    expect(await at(metadata.staleAtMs)).toBe(STALE);
  });

  it("F7 finds a U2F device by the key of its certificate", async () => {
    const plan = u2fPlan(makers);
    const point = makers.attestationKey.spki.subarray(26);
    const identifier = encodeHex(crypto.hash("sha1", point));
    const entry = (status: string): Record<string, unknown> => ({
      attestationCertificateKeyIdentifiers: [identifier],
      metadataStatement: {
        attestationTypes: ["basic_full"],
        attestationRootCertificates: [base64(makers.ca.intermediate)],
      },
      statusReports: [{ status }],
    });
    expect(await codeWith([entry("FIDO_CERTIFIED")], plan)).toBe(FINE);
    expect(await codeWith([entry("REVOKED")], plan)).toBe(REFUSED);
  });

  it("leaves out entries of UAF", async () => {
    const uaf = { aaid: "1234#5678", metadataStatement: {}, statusReports: [] };
    expect(await codeWith([uaf, entryOf()])).toBe(FINE);
  });
});
