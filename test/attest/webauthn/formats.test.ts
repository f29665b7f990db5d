/** The statement of each format by an authenticator of our own: refused for each rule it breaks. */

import { describe, expect, it } from "vitest";
import { verifyRegistration } from "../../../attest/webauthn/index.ts";
import { concatBytes } from "../../../wire/index.ts";
import { codeOfAsync } from "../../support/reject.ts";
import { der, seq } from "../support/der-certificate.ts";

import {
  AAGUID,
  coseKeyOf,
  type Plan,
  registrationOf,
  sha256,
  signDer,
} from "./support/authenticator.ts";
import {
  AAGUID_EXTENSION,
  AIK_EXTENSIONS,
  AIK_PURPOSE,
  androidPlan,
  type AndroidTweaks,
  applePlan,
  type AppleTweaks,
  AUTHORIZATION,
  createMakers,
  CREDENTIAL_ATTRIBUTES,
  highTag,
  PACKED_SUBJECT,
  packedPlan,
  selfPlan,
  tpmName,
  tpmPlan,
  type TpmTweaks,
  type Tweaks,
  u2fPlan,
} from "./support/statements.ts";
import {
  basicConstraints,
  createSigner,
  createTestCa,
  type Extension,
  extKeyUsage,
  integer,
  keyUsage,
  name,
  octets,
} from "./support/x509.ts";

const makers = createMakers();
const rsaKey = createSigner("rsa");
const p384 = createSigner("P-384");
const other = createSigner();

const codeFor = (plan: Plan, more: Partial<Plan> = {}): Promise<string> =>
  codeOfAsync(() => verifyRegistration(registrationOf({ ...plan, ...more })));

const BAD_CERTIFICATE = "ATTEST_WEBAUTHN_CERTIFICATE_INVALID";
const BAD_STATEMENT = "ATTEST_WEBAUTHN_STATEMENT_INVALID";
const BAD_SIGNATURE = "ATTEST_SIGNATURE_INVALID";
const BAD_ALGORITHM = "ATTEST_ALGORITHM_NOT_ALLOWED";
const BAD_ATTRIBUTES = "ATTEST_KEY_ATTRIBUTES_INVALID";
const KEY_MISMATCH = "ATTEST_WEBAUTHN_KEY_MISMATCH";
const NONCE_MISMATCH = "ATTEST_NONCE_MISMATCH";

const flipped = (bytes: Uint8Array): Uint8Array => {
  const out = Uint8Array.from(bytes);
  out[out.length - 1]! ^= 1;
  return out;
};
const wrongSignature = (message: Uint8Array): Uint8Array => signDer(other.key, message);
const setMember =
  (key: string, value: unknown) =>
  (statement: Map<string, unknown>): void => {
    if (value === undefined) statement.delete(key);
    else statement.set(key, value);
  };
const without = (extensions: readonly Extension[], oid: string): readonly Extension[] =>
  extensions.filter((extension) => extension.oid !== oid);

describe("F3 tpm", () => {
  const rows: readonly [string, TpmTweaks, string][] = [
    ["another version than 2.0", { ver: "1.2" }, BAD_STATEMENT],
    ["a missing member", { statement: setMember("certInfo", undefined) }, BAD_STATEMENT],
    ["an unknown member", { statement: setMember("extra", 1) }, BAD_STATEMENT],
    ["certInfo that is no byte string", { statement: setMember("certInfo", "x") }, BAD_STATEMENT],
    ["x5c that is empty", { statement: setMember("x5c", []) }, BAD_STATEMENT],
    ["an unknown alg", { alg: -999 }, BAD_ALGORITHM],
    ["alg that does not go with the AIK", { alg: -7 }, BAD_ALGORITHM],
    ["a signature by another key", { signature: (m) => signDer(rsaKey.key, m) }, BAD_SIGNATURE],
    [
      "a signature with another hash",
      { signature: (m) => signDer(makers.aik.key, m, "sha384") },
      BAD_SIGNATURE,
    ],
    ["the magic of no TPM", { certInfo: { magic: 0xff544348 } }, "ATTEST_MAGIC_MISMATCH"],
    ["a quote", { certInfo: { type: 0x8018 } }, "ATTEST_TYPE_MISMATCH"],
    [
      "extraData of another ceremony",
      { certInfo: { extraData: new Uint8Array(32) } },
      NONCE_MISMATCH,
    ],
    ["extraData that is cut short", { certInfo: { extraData: new Uint8Array(0) } }, NONCE_MISMATCH],
    ["safe that is neither yes nor no", { certInfo: { safe: 2 } }, "WIRE_VALUE_NOT_ALLOWED"],
    ["bytes after certInfo", { certInfo: { tail: Uint8Array.of(0) } }, "WIRE_TRAILING_BYTES"],
    [
      "the Name of another object",
      { certInfo: { name: new Uint8Array(34) } },
      "ATTEST_NAME_MISMATCH",
    ],
    ["pubArea of another key", { pubArea: { key: other } }, KEY_MISMATCH],
    ["bytes after pubArea", { pubArea: { tail: Uint8Array.of(0) } }, "WIRE_TRAILING_BYTES"],
    [
      "a key that can leave its TPM",
      { pubArea: { attributes: CREDENTIAL_ATTRIBUTES & ~0x2 } },
      BAD_ATTRIBUTES,
    ],
    [
      "a key that can change its parent",
      { pubArea: { attributes: CREDENTIAL_ATTRIBUTES & ~0x10 } },
      BAD_ATTRIBUTES,
    ],
    [
      "a key that was imported",
      { pubArea: { attributes: CREDENTIAL_ATTRIBUTES & ~0x20 } },
      BAD_ATTRIBUTES,
    ],
    [
      "a key that does not sign",
      { pubArea: { attributes: CREDENTIAL_ATTRIBUTES & ~0x40000 } },
      BAD_ATTRIBUTES,
    ],
    [
      "a restricted key",
      { pubArea: { attributes: CREDENTIAL_ATTRIBUTES | 0x10000 } },
      BAD_ATTRIBUTES,
    ],
    [
      "an AIK certificate with a subject",
      { leaf: { subject: name({ CN: "x" }) } },
      BAD_CERTIFICATE,
    ],
    ["an AIK certificate of version 2", { leaf: { version: 1 } }, BAD_CERTIFICATE],
    [
      "an AIK certificate without extKeyUsage",
      { leaf: { extensions: without(AIK_EXTENSIONS, "2.5.29.37") } },
      BAD_CERTIFICATE,
    ],
    [
      "an AIK certificate with another purpose",
      {
        leaf: {
          extensions: [...without(AIK_EXTENSIONS, "2.5.29.37"), extKeyUsage("2.23.133.8.1")],
        },
      },
      BAD_CERTIFICATE,
    ],
    [
      "an AIK certificate of a CA",
      { leaf: { extensions: [basicConstraints(true), ...without(AIK_EXTENSIONS, "2.5.29.19")] } },
      BAD_CERTIFICATE,
    ],
    [
      "an AIK certificate whose key may not sign",
      { leaf: { extensions: [keyUsage(0x04), ...without(AIK_EXTENSIONS, "2.5.29.15")] } },
      BAD_CERTIFICATE,
    ],
    [
      "an AIK certificate without subjectAltName",
      { leaf: { extensions: without(AIK_EXTENSIONS, "2.5.29.17") } },
      BAD_CERTIFICATE,
    ],
    [
      "an aaguid extension of another model",
      {
        leaf: {
          extensions: [
            ...AIK_EXTENSIONS,
            { oid: AAGUID_EXTENSION.oid, value: octets(new Uint8Array(16)) },
          ],
        },
      },
      BAD_CERTIFICATE,
    ],
  ];

  it.each(rows)("F3 rejects %s", async (_, tweaks, code) => {
    expect(await codeFor(tpmPlan(makers, tweaks))).toBe(code);
  });

  const names: readonly [string, Uint8Array][] = [
    ["an unregistered vendor", tpmName({ 1: "id:FFFFF1D0", 2: "m", 3: "id:1" })],
    ["a vendor without id:", tpmName({ 1: "53544D20", 2: "m", 3: "id:1" })],
    ["no model", tpmName({ 1: "id:53544D20", 3: "id:1" })],
    ["no version", tpmName({ 1: "id:53544D20", 2: "m" })],
  ];
  const withName = (value: Uint8Array, critical: boolean): Plan =>
    tpmPlan(makers, {
      leaf: {
        extensions: [
          ...without(AIK_EXTENSIONS, "2.5.29.17"),
          { oid: "2.5.29.17", critical, value },
        ],
      },
    });

  it.each(names)("A7 rejects an AIK certificate with %s", async (_, value) => {
    expect(await codeFor(withName(value, true))).toBe(BAD_CERTIFICATE);
  });

  it("A7 rejects a subjectAltName that is not critical though the subject is empty", async () => {
    expect(await codeFor(withName(tpmName(), false))).toBe(BAD_CERTIFICATE);
  });

  it("A7 rejects a vendor that the policy does not name, while it names another", async () => {
    const plan = withName(names[0]![1], true);
    const named = (vendor: string): Promise<string> =>
      codeFor(plan, { policy: { unregisteredTpmVendors: [vendor] } });
    expect(await named("id:FFFFF1D1")).toBe(BAD_CERTIFICATE);
    expect(await named("id:FFFFF1D0")).toBe("nothing was thrown");
  });

  it("D1 rejects a wrong signature before it reads certInfo", async () => {
    const plan = tpmPlan(makers, { certInfo: { magic: 0 }, signature: wrongSignature });
    expect(await codeFor(plan)).toBe(BAD_SIGNATURE);
  });

  it("D12 rejects SHA-1 in the signature and as nameAlg, unless the policy names it", async () => {
    const rows = [
      [{ hash: "sha1" }, "tpm-attestation"],
      [{ pubArea: { nameAlg: 0x0004 } }, "tpm-name"],
    ] as const;
    for (const [tweaks, use] of rows) {
      const plan = tpmPlan(makers, tweaks);
      const others = (["tpm-attestation", "tpm-name", "credential-key"] as const).filter(
        (other_) => other_ !== use,
      );
      expect(await codeFor(plan)).toBe(BAD_ALGORITHM);
      expect(await codeFor(plan, { policy: { acceptSha1: others } })).toBe(BAD_ALGORITHM);
      expect(await codeFor(plan, { policy: { acceptSha1: [use] } })).toBe("nothing was thrown");
    }
  });

  it("D12 rejects a credential key of RS1, unless the policy names it", async () => {
    const credential = createSigner("rsa");
    const plan = { ...packedPlan(makers), credential, coseKey: coseKeyOf(credential, -65535) };
    expect(await codeFor(plan)).toBe(BAD_ALGORITHM);
    expect(await codeFor(plan, { policy: { acceptSha1: ["credential-key"] } })).toBe(
      "nothing was thrown",
    );
  });

  it("F3 rejects a statement over other authenticatorData", async () => {
    const plan = { ...tpmPlan(makers), message: sha256(Uint8Array.of(1)) };
    expect(await codeFor(plan)).toBe(NONCE_MISMATCH);
  });

  it("F3 rejects an AIK by an issuer that is confined to another purpose", async () => {
    const confined = (purpose: string): Promise<string> => {
      const extensions = [basicConstraints(true), keyUsage(0x04), extKeyUsage(purpose)];
      const ca = createTestCa("P-256", { intermediate: { extensions } });
      return codeFor(tpmPlan({ ...makers, ca }));
    };
    expect(await confined("2.23.133.8.1")).toBe("ATTEST_WEBAUTHN_CHAIN_UNTRUSTED");
    expect(await confined(AIK_PURPOSE)).toBe("nothing was thrown");
  });
});

describe("F4 packed", () => {
  const subject = (fields: Readonly<Record<string, string>>): Tweaks => ({
    leaf: { subject: name(fields) },
  });
  const { C, O, OU, CN } = PACKED_SUBJECT;
  const rows: readonly [string, Tweaks, string][] = [
    ["a signature by another key", { signature: wrongSignature }, BAD_SIGNATURE],
    [
      "a signature in another form",
      { signature: (m) => flipped(signDer(makers.attestationKey.key, m)) },
      BAD_SIGNATURE,
    ],
    ["a raw signature", { signature: () => new Uint8Array(64).fill(1) }, BAD_SIGNATURE],
    ["an unknown member", { statement: setMember("ecdaaKeyId", Uint8Array.of(1)) }, BAD_STATEMENT],
    ["no sig", { statement: setMember("sig", undefined) }, BAD_STATEMENT],
    ["x5c of text", { statement: setMember("x5c", ["x"]) }, BAD_STATEMENT],
    [
      "x5c of eight",
      {
        statement: setMember(
          "x5c",
          Array.from({ length: 8 }, () => Uint8Array.of(1)),
        ),
      },
      BAD_STATEMENT,
    ],
    ["an alg that does not go with the key", { alg: -257 }, BAD_ALGORITHM],
    ["a certificate of version 2", { leaf: { version: 1 } }, BAD_CERTIFICATE],
    ["another OU", subject({ C, O, OU: "Authenticators", CN }), BAD_CERTIFICATE],
    ["no C", subject({ O, OU, CN }), BAD_CERTIFICATE],
    ["a C that is no code", subject({ C: "Sweden", O, OU, CN }), BAD_CERTIFICATE],
    ["no O", subject({ C, OU, CN }), BAD_CERTIFICATE],
    ["no CN", subject({ C, O, OU }), BAD_CERTIFICATE],
    [
      "a name twice",
      { leaf: { subject: seq(...[PACKED_SUBJECT, { CN }].map((it) => name(it).subarray(2))) } },
      BAD_CERTIFICATE,
    ],
    [
      "a certificate of a CA",
      { leaf: { extensions: [basicConstraints(true), AAGUID_EXTENSION] } },
      BAD_CERTIFICATE,
    ],
    [
      "an aaguid extension of another model",
      { leaf: { extensions: [{ oid: AAGUID_EXTENSION.oid, value: octets(new Uint8Array(16)) }] } },
      BAD_CERTIFICATE,
    ],
    [
      "a critical aaguid extension",
      { leaf: { extensions: [{ ...AAGUID_EXTENSION, critical: true }] } },
      BAD_CERTIFICATE,
    ],
    [
      "an aaguid extension that is no OCTET STRING",
      { leaf: { extensions: [{ oid: AAGUID_EXTENSION.oid, value: integer(1) }] } },
      BAD_CERTIFICATE,
    ],
    [
      "a certificate that is no DER",
      { statement: setMember("x5c", [Uint8Array.of(1, 2, 3)]) },
      BAD_CERTIFICATE,
    ],
  ];

  it.each(rows)("F4 rejects %s", async (_, tweaks, code) => {
    expect(await codeFor(packedPlan(makers, tweaks))).toBe(code);
  });

  it("F4 rejects self attestation unless the policy names it", async () => {
    expect(await codeFor(selfPlan(other), { policy: {} })).toBe("ATTEST_WEBAUTHN_FORMAT_REFUSED");
  });

  it("F4 rejects self attestation with another algorithm than the credential's", async () => {
    expect(await codeFor(selfPlan(other, { alg: -257 }))).toBe(BAD_ALGORITHM);
  });

  it("F4 rejects self attestation by another key", async () => {
    const plan = selfPlan(other);
    expect(await codeFor(plan, { message: Uint8Array.of(1) })).toBe(BAD_SIGNATURE);
    expect(await codeFor(plan, { coseKey: coseKeyOf(createSigner()) })).toBe(BAD_SIGNATURE);
  });

  it("F4 rejects self attestation with an unknown member", async () => {
    expect(await codeFor(selfPlan(other, { statement: setMember("extra", 1) }))).toBe(
      BAD_STATEMENT,
    );
  });
});

describe("F5 android-key", () => {
  const tagged = (tag: readonly number[]): Uint8Array =>
    concatBytes([Uint8Array.from(tag), der(0x30, integer(1)).subarray(1)]);
  const { purpose, origin, allApplications } = AUTHORIZATION;
  const rows: readonly [string, AndroidTweaks, string][] = [
    ["a signature by another key", { signature: wrongSignature }, BAD_SIGNATURE],
    [
      "a certificate for another key",
      { leafSpki: other.spki, signature: wrongSignature },
      KEY_MISMATCH,
    ],
    ["an unknown member", { statement: setMember("extra", 1) }, BAD_STATEMENT],
    ["no key description", { withoutDescription: true }, BAD_CERTIFICATE],
    ["the challenge of another ceremony", { challenge: new Uint8Array(32) }, NONCE_MISMATCH],
    [
      "a key of all applications in hardware",
      { tee: [purpose(2), allApplications, origin(0)] },
      BAD_ATTRIBUTES,
    ],
    ["a key of all applications in software", { software: [allApplications] }, BAD_ATTRIBUTES],
    ["an imported key", { tee: [purpose(2), origin(2)] }, BAD_ATTRIBUTES],
    ["a key of unknown origin", { tee: [purpose(2)] }, BAD_ATTRIBUTES],
    ["a key that does not sign", { tee: [purpose(3), origin(0)] }, BAD_ATTRIBUTES],
    ["a key that may decrypt too", { tee: [purpose(1, 2), origin(0)] }, BAD_ATTRIBUTES],
    [
      "a purpose that only software enforces",
      { software: [purpose(2), origin(0)], tee: [] },
      BAD_ATTRIBUTES,
    ],
    ["a software attestation", { levels: [0, 1] }, "ATTEST_POLICY_REFUSED"],
    ["a software key", { levels: [1, 0] }, "ATTEST_POLICY_REFUSED"],
    ["an unknown security level", { levels: [9, 1] }, BAD_CERTIFICATE],
    ["an origin twice", { tee: [purpose(2), origin(0), origin(0)] }, BAD_CERTIFICATE],
    [
      "a tag number in a longer form",
      { tee: [purpose(2), tagged([0xbf, 0x1e]), origin(0)] },
      BAD_CERTIFICATE,
    ],
    [
      "a tag number below 128 in two octets",
      { tee: [purpose(2), tagged([0xbf, 0x80, 0x7e]), origin(0)] },
      BAD_CERTIFICATE,
    ],
    [
      "a tag number of three octets",
      { tee: [Uint8Array.of(0xbf, 0x81, 0x80, 0x01, 0x00)] },
      BAD_CERTIFICATE,
    ],
    ["a field that is not tagged", { tee: [integer(1)] }, BAD_CERTIFICATE],
    [
      "too many fields",
      { tee: Array.from({ length: 65 }, (_, i) => highTag(i + 200, integer(1))) },
      BAD_CERTIFICATE,
    ],
    ["a description with a ninth field", { ninthField: true }, BAD_CERTIFICATE],
    ["a CA's certificate", { leaf: { extensions: [basicConstraints(true)] } }, BAD_CERTIFICATE],
  ];

  it.each(rows)("F5 rejects %s", async (_, tweaks, code) => {
    expect(await codeFor(androidPlan(makers, tweaks))).toBe(code);
  });

  it("F5 accepts fields that it does not know, of any tag number", async () => {
    const tee = [
      purpose(2),
      tagged([0xa4]),
      tagged([0xbf, 0x7e]),
      tagged([0xbf, 0x83, 0x7f]),
      origin(0),
    ];
    expect(await codeFor(androidPlan(makers, { tee }))).toBe("nothing was thrown");
  });

  it("F5 takes what software enforces only where the policy accepts software", async () => {
    const plan = androidPlan(makers, {
      levels: [0, 0],
      software: [purpose(2), origin(0)],
      tee: [],
    });
    expect(await codeFor(plan)).toBe(BAD_ATTRIBUTES);
    expect(await codeFor(plan, { policy: { androidSecurityLevels: ["software"] } })).toBe(
      "nothing was thrown",
    );
  });
});

describe("F6 apple, fido-u2f and none", () => {
  const apple: readonly [string, AppleTweaks, string][] = [
    ["the nonce of another ceremony", { nonce: new Uint8Array(32) }, NONCE_MISMATCH],
    ["a value behind the nonce", { nonceTail: "inside" }, BAD_CERTIFICATE],
    ["a field after the nonce", { nonceTail: "after" }, BAD_CERTIFICATE],
    ["a nonce that is cut short", { nonce: new Uint8Array(0) }, NONCE_MISMATCH],
    ["no nonce extension", { nonceExtension: undefined }, BAD_CERTIFICATE],
    [
      "a malformed nonce extension",
      { nonceExtension: { oid: "1.2.840.113635.100.8.2", value: seq(octets(Uint8Array.of(1))) } },
      BAD_CERTIFICATE,
    ],
    ["a certificate for another key", { leafSpki: other.spki }, KEY_MISMATCH],
    ["an unknown member", { statement: setMember("sig", Uint8Array.of(1)) }, BAD_STATEMENT],
    ["no x5c", { statement: setMember("x5c", undefined) }, BAD_STATEMENT],
  ];

  it.each(apple)("F6 rejects apple with %s", async (_, tweaks, code) => {
    expect(await codeFor(applePlan(makers, tweaks))).toBe(code);
  });

  const u2f: readonly [string, Tweaks, Partial<Plan>, string][] = [
    ["an AAGUID", {}, { authData: { aaguid: AAGUID } }, BAD_STATEMENT],
    ["a chain", { issuers: [makers.ca.intermediate] }, {}, BAD_STATEMENT],
    ["a signature by another key", { signature: wrongSignature }, {}, BAD_SIGNATURE],
    ["an attestation key on P-384", { leaf: { spki: p384.spki } }, {}, BAD_ALGORITHM],
    ["an RSA attestation key", { leaf: { spki: rsaKey.spki } }, {}, BAD_ALGORITHM],
    ["a credential on P-384", {}, { credential: p384 }, BAD_ALGORITHM],
    ["an unknown member", { statement: setMember("alg", -7) }, {}, BAD_STATEMENT],
    ["a claim of user verification", {}, { policy: {} }, "ATTEST_WEBAUTHN_USER_ABSENT"],
  ];

  it.each(u2f)("F6 rejects fido-u2f with %s", async (_, tweaks, more, code) => {
    expect(await codeFor(u2fPlan(makers, tweaks), more)).toBe(code);
  });

  it("F6 rejects none by default, and with anything in its statement", async () => {
    const plan: Plan = { format: "none", statement: () => new Map() };
    expect(await codeFor(plan)).toBe("ATTEST_WEBAUTHN_FORMAT_REFUSED");
    const full = { ...plan, statement: () => new Map([["x5c", []]]) };
    expect(await codeFor(full, { policy: { formats: ["none"] } })).toBe(BAD_STATEMENT);
  });

  it("F6 rejects a format that is not verified here", async () => {
    const plan = { ...packedPlan(makers), format: "android-safetynet" };
    expect(await codeFor(plan)).toBe("ATTEST_WEBAUTHN_FORMAT_REFUSED");
  });
});
