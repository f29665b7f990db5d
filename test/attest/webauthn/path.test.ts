/** The path of an attestation certificate to an anchor, with one fault at a time (checklist A2 to A5, F5, F7). */
import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  parseAndroidRevocationList,
  parseTrustAnchors,
  verifyRegistration,
} from "../../../attest/webauthn/index.ts";
import { codeOf, codeOfAsync } from "../../support/reject.ts";
import { seq } from "../support/der-certificate.ts";
import { type Plan, registrationOf } from "./support/authenticator.ts";
import { pemOf, x5cOf } from "./support/registration.ts";
import {
  AAGUID_EXTENSION,
  androidPlan,
  createMakers,
  PACKED_SUBJECT,
  packedPlan,
  type Tweaks,
} from "./support/statements.ts";
import {
  basicConstraints,
  type CertificateFields,
  createSigner,
  createTestCa,
  type Extension,
  integer,
  keyUsage,
  makeCertificate,
  name,
  type TestCa,
} from "./support/x509.ts";

const UNTRUSTED = "ATTEST_WEBAUTHN_CHAIN_UNTRUSTED";
const EXPIRED = "ATTEST_WEBAUTHN_CERTIFICATE_EXPIRED";
const BAD_CERTIFICATE = "ATTEST_WEBAUTHN_CERTIFICATE_INVALID";
const BAD_ALGORITHM = "ATTEST_ALGORITHM_NOT_ALLOWED";
const FINE = "nothing was thrown";

const makers = createMakers();
const codeFor = (plan: Plan, more: Partial<Plan> = {}): Promise<string> =>
  codeOfAsync(() => verifyRegistration(registrationOf({ ...plan, ...more })));
const withCa = (ca: TestCa, tweaks: Tweaks = {}): Plan => packedPlan({ ...makers, ca }, tweaks);
const unknownCritical: Extension = { oid: "1.2.3.4", critical: true, value: integer(1) };
const caExtensions = [basicConstraints(true), keyUsage(0x04)];

it("the certificates of these tests are ones that node:crypto reads and verifies", () => {
  const { root, intermediate } = makers.ca;
  const [rootX509, x509] = [new X509Certificate(root), new X509Certificate(intermediate)];
  expect(rootX509.verify(rootX509.publicKey)).toBe(true);
  expect(x509.verify(rootX509.publicKey)).toBe(true);
  expect(x509.checkIssued(rootX509)).toBe(true);
  expect(x509.ca).toBe(true);
});

describe("what anchors", () => {
  const leafOf = (plan: Plan): Uint8Array => {
    return x5cOf(registrationOf(plan).response.attestationObject)[0]!;
  };

  it("A2 accepts the root, an intermediate or the certificate itself as an anchor", async () => {
    const plan = packedPlan(makers);
    const alone = packedPlan(makers, { issuers: [] });
    for (const [it_, anchor] of [
      [plan, makers.ca.root],
      [plan, makers.ca.intermediate],
      [alone, makers.ca.intermediate],
      [alone, leafOf(alone)],
    ] as const) {
      expect(await codeFor(it_, { anchors: [anchor] })).toBe(FINE);
    }
  });

  it("A2 accepts x5c that ends with a copy of the root, also a renewed one of the same key", async () => {
    const { root, rootName, rootSigner, intermediate } = makers.ca;
    const renewed = makeCertificate(
      {
        subject: rootName,
        issuer: rootName,
        spki: rootSigner.spki,
        extensions: caExtensions,
        serialNumber: 0x77,
      },
      rootSigner.key,
    );
    for (const copy of [root, renewed]) {
      expect(await codeFor(packedPlan(makers, { issuers: [intermediate, copy] }))).toBe(FINE);
    }
  });

  it("F7 rejects an attestation without any anchor, unless its format is named", async () => {
    const plan = packedPlan(makers);
    expect(await codeFor(plan, { anchors: [] })).toBe(UNTRUSTED);
    const policy = { acceptUnanchored: ["packed"] } as const;
    const { attestation } = await verifyRegistration(
      registrationOf({ ...plan, anchors: [], policy }),
    );
    expect(attestation.trust).toBe("unanchored");
    const others = { acceptUnanchored: ["tpm"] } as const;
    expect(await codeFor(plan, { anchors: [], policy: others })).toBe(UNTRUSTED);
    // Anchors that are there are never overlooked.
    expect(await codeFor(plan, { anchors: [createTestCa().root], policy })).toBe(UNTRUSTED);
  });

  it("F7 rejects a certificate by another root of the same name", async () => {
    expect(await codeFor(packedPlan(makers), { anchors: [createTestCa().root] })).toBe(UNTRUSTED);
  });

  it("A2 rejects anchors that are not certificates", () => {
    expect(codeOf(() => parseTrustAnchors(""))).toBe(BAD_CERTIFICATE);
    expect(codeOf(() => parseTrustAnchors(pemOf(Uint8Array.of(1, 2, 3))))).toBe(BAD_CERTIFICATE);
    expect(codeOf(() => parseTrustAnchors(pemOf(makers.ca.root).replace("END", "FIN")))).toBe(
      BAD_CERTIFICATE,
    );
  });
});

describe("the chain", () => {
  const { root, intermediate } = makers.ca;

  it.each([
    ["a missing intermediate", []],
    ["a certificate that is no part of the path", [intermediate, createTestCa().root]],
    ["two copies of the root", [intermediate, root, root]],
    ["certificates out of order", [root, intermediate]],
  ] as const)("A2 rejects x5c with %s", async (_, issuers) => {
    expect(await codeFor(packedPlan(makers, { issuers }))).toBe(UNTRUSTED);
  });

  it("A2 rejects a certificate that the genuine intermediate beside it never signed", async () => {
    const rogue = createTestCa();
    const leaf = { issuer: makers.ca.intermediateName };
    const plan = packedPlan({ ...makers, ca: rogue }, { leaf, issuers: [intermediate] });
    expect(await codeFor(plan, { anchors: [root] })).toBe(UNTRUSTED);
    // Nor one that names another issuer than who signed it.
    const misnamed = packedPlan(makers, { leaf: { issuer: name({ CN: "Other" }) } });
    expect(await codeFor(misnamed)).toBe(UNTRUSTED);
  });

  it("A2 rejects an intermediate of the right name and another key", async () => {
    const forged = createTestCa();
    const plan = packedPlan(makers, { issuers: [forged.intermediate] });
    expect(await codeFor(plan)).toBe(UNTRUSTED);
  });

  it("A2 rejects what is outside of its validity", async () => {
    const late = { notBefore: "270101" };
    const early = { notAfter: "260101" };
    for (const period of [late, early]) {
      expect(await codeFor(packedPlan(makers, { leaf: period }))).toBe(EXPIRED);
      expect(await codeFor(withCa(createTestCa("P-256", { intermediate: period })))).toBe(EXPIRED);
      expect(await codeFor(withCa(createTestCa("P-256", { root: period })))).toBe(EXPIRED);
    }
  });

  const issuers: readonly [string, Partial<CertificateFields>, string][] = [
    [
      "A3 rejects an issuer that is no CA",
      { extensions: [basicConstraints(false), keyUsage(0x04)] },
      UNTRUSTED,
    ],
    ["A3 rejects an issuer without basicConstraints", { extensions: [keyUsage(0x04)] }, UNTRUSTED],
    [
      "A3 rejects an issuer that may not sign certificates",
      { extensions: [basicConstraints(true), keyUsage(0x80)] },
      UNTRUSTED,
    ],
    ["A3 rejects an issuer without keyUsage", { extensions: [basicConstraints(true)] }, UNTRUSTED],
    [
      "A4 rejects an unknown critical extension of an issuer",
      { extensions: [...caExtensions, unknownCritical] },
      UNTRUSTED,
    ],
    [
      "A4 rejects nameConstraints of an issuer",
      { extensions: [...caExtensions, { oid: "2.5.29.30", value: seq() }] },
      UNTRUSTED,
    ],
    ["A5 rejects an issuer's certificate signed with SHA-1", { hash: "sha1" }, BAD_ALGORITHM],
    ["A2 rejects an issuer's certificate of version 2", { version: 1 }, BAD_CERTIFICATE],
  ];

  it.each(issuers)("%s", async (_, fields, code) => {
    expect(await codeFor(withCa(createTestCa("P-256", { intermediate: fields })))).toBe(code);
  });

  it("A3 rejects a path that is longer than a pathLenConstraint allows", async () => {
    const withRoot = (pathLen: number): Promise<string> => {
      const extensions = [basicConstraints(true, pathLen), keyUsage(0x04)];
      return codeFor(withCa(createTestCa("P-256", { root: { extensions } })));
    };
    expect(await withRoot(0)).toBe(UNTRUSTED);
    expect(await withRoot(1)).toBe(FINE);
  });

  it("A3 applies the same rules to the anchor", async () => {
    const extensions = [basicConstraints(false), keyUsage(0x04)];
    expect(await codeFor(withCa(createTestCa("P-256", { root: { extensions } })))).toBe(UNTRUSTED);
  });

  it("A4 rejects an unknown critical extension of the certificate", async () => {
    const leaf = { extensions: [basicConstraints(false), AAGUID_EXTENSION, unknownCritical] };
    expect(await codeFor(packedPlan(makers, { leaf }))).toBe(BAD_CERTIFICATE);
  });

  it("A5 rejects a certificate signed with SHA-1, also where a policy allows SHA-1 elsewhere", async () => {
    const plan = packedPlan(makers, { leaf: { hash: "sha1" } });
    expect(await codeFor(plan)).toBe(BAD_ALGORITHM);
    expect(
      await codeFor(plan, {
        policy: { acceptSha1: ["tpm-attestation", "tpm-name", "credential-key"] },
      }),
    ).toBe(BAD_ALGORITHM);
  });

  it("A5 accepts RSA throughout", async () => {
    expect(await codeFor(withCa(createTestCa("rsa")))).toBe(FINE);
  });

  it("G3 ends where certificates sign each other", async () => {
    const [a, b] = [name({ CN: "A" }), name({ CN: "B" })];
    const [keyA, keyB] = [createSigner(), createSigner()];
    const certify = (subject: Uint8Array, spki: Uint8Array, issuer: Uint8Array, key: typeof keyA) =>
      makeCertificate({ subject, issuer, spki, extensions: caExtensions }, key.key);
    const [ab, ba] = [certify(a, keyA.spki, b, keyB), certify(b, keyB.spki, a, keyA)];
    const leaf = makeCertificate(
      {
        subject: name(PACKED_SUBJECT),
        issuer: a,
        spki: makers.attestationKey.spki,
        extensions: [basicConstraints(false)],
      },
      keyA.key,
    );
    const plan = packedPlan(makers, {
      statement: (statement) => statement.set("x5c", [leaf, ab, ba, ab, ba, ab, ba]),
    });
    expect(await codeFor(plan)).toBe(UNTRUSTED);
  });
});

describe("Android's revocation list", () => {
  const list = (serial: string): string =>
    JSON.stringify({ entries: { [serial]: { status: "REVOKED", reason: "KEY_COMPROMISE" } } });
  const codeWith = (json: string | undefined, policy: Plan["policy"] = {}): Promise<string> =>
    codeOfAsync(() => {
      const check = registrationOf({ ...androidPlan(makers), policy });
      const androidRevocationList =
        json === undefined ? {} : { androidRevocationList: parseAndroidRevocationList(json) };
      return verifyRegistration({ ...check, trust: { ...check.trust, ...androidRevocationList } });
    });

  it("F5 rejects a revoked certificate and a revoked issuer", async () => {
    // Serial numbers of the leaf, the intermediate and the root.
    for (const [serial, code] of [
      ["142", "ATTEST_WEBAUTHN_CERTIFICATE_REVOKED"],
      ["000143", "ATTEST_WEBAUTHN_CERTIFICATE_REVOKED"],
      ["999", FINE],
    ] as const) {
      expect(await codeWith(list(serial)), serial).toBe(code);
    }
  });

  it("A9 rejects an attestation without the list, unless the policy says so", async () => {
    const required = { androidRevocation: "required" } as const;
    expect(await codeWith(undefined, required)).toBe("ATTEST_REVOCATION_UNKNOWN");
    expect(await codeWith(list("999"), required)).toBe(FINE);
    expect(await codeWith(undefined)).toBe(FINE);
  });

  it.each([
    "",
    "[]",
    "{}",
    '{"entries":[]}',
    '{"entries":{"XYZ":{}}}',
    '{"entries":{"":{}}}',
    "null",
  ])("A9 rejects a list that is %j", (text) => {
    expect(codeOf(() => parseAndroidRevocationList(text))).toBe("ATTEST_REVOCATION_DATA_INVALID");
  });

  it("A9 rejects a list above its limit", () => {
    const text = `{"entries":{}}${" ".repeat(16 * 1024 * 1024)}`;
    expect(codeOf(() => parseAndroidRevocationList(text))).toBe("ATTEST_REVOCATION_DATA_INVALID");
  });
});
