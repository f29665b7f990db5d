/** clientDataJSON, authenticatorData and the policy of a registration; assertions (checklist F1, F2, F8). */
import { describe, expect, it } from "vitest";
import {
  type AssertionCheck,
  DEFAULT_WEBAUTHN_POLICY,
  parseAssertionResponse,
  parseRegistrationResponse,
  type RegistrationCheck,
  verifyAssertion,
  verifyRegistration,
  type WebAuthnPolicy,
} from "../../../attest/webauthn/index.ts";
import { concatBytes, decodeHex, encodeBase64Url, encodeUtf8 } from "../../../wire/index.ts";
import { codeOf, codeOfAsync } from "../../support/reject.ts";
import { rocaModulus } from "../support/roca.ts";
import {
  AAGUID,
  type AuthDataFields,
  authDataOf,
  CHALLENGE,
  clientDataOf,
  coseKeyOf,
  CREDENTIAL_ID,
  crypto,
  ORIGIN,
  type Plan,
  registrationOf,
  RP_ID,
  sha256,
  signDer,
} from "./support/authenticator.ts";
import { encodeCbor } from "./support/registration.ts";
import { createMakers, packedPlan, selfPlan } from "./support/statements.ts";
import { createSigner } from "./support/x509.ts";

const makers = createMakers();
const plan = packedPlan(makers);
const FINE = "nothing was thrown";
const codeFor = (more: Partial<Plan>, change: Partial<RegistrationCheck> = {}): Promise<string> =>
  codeOfAsync(() => verifyRegistration({ ...registrationOf({ ...plan, ...more }), ...change }));

describe("F1 clientDataJSON", () => {
  const INVALID = "ATTEST_WEBAUTHN_CLIENT_DATA_INVALID";
  const REFUSED = "ATTEST_WEBAUTHN_ORIGIN_REFUSED";
  const text = new TextDecoder().decode(clientDataOf());
  const rows: readonly [string, Uint8Array, string][] = [
    ["the other ceremony", clientDataOf({ type: "webauthn.get" }), INVALID],
    ["no type", clientDataOf({ type: undefined }), INVALID],
    ["no challenge", clientDataOf({ challenge: undefined }), INVALID],
    [
      "a challenge with padding",
      clientDataOf({ challenge: `${encodeBase64Url(CHALLENGE)}=` }),
      INVALID,
    ],
    ["a challenge with other letters", clientDataOf({ challenge: "+/+/" }), INVALID],
    [
      "another challenge",
      clientDataOf({ challenge: "AAAA" }),
      "ATTEST_WEBAUTHN_CHALLENGE_MISMATCH",
    ],
    ["an empty challenge", clientDataOf({ challenge: "" }), "ATTEST_WEBAUTHN_CHALLENGE_MISMATCH"],
    ["no origin", clientDataOf({ origin: undefined }), INVALID],
    ["another origin", clientDataOf({ origin: "https://login.example.com" }), REFUSED],
    ["an origin that begins alike", clientDataOf({ origin: `${ORIGIN}.evil.example` }), REFUSED],
    ["crossOrigin that is no boolean", clientDataOf({ crossOrigin: "false" }), INVALID],
    ["crossOrigin without topOrigin", clientDataOf({ crossOrigin: true }), REFUSED],
    ["a topOrigin that is no text", clientDataOf({ crossOrigin: true, topOrigin: 1 }), INVALID],
    ["topOrigin without crossOrigin", clientDataOf({ topOrigin: ORIGIN }), INVALID],
    [
      "a frame in another site",
      clientDataOf({ crossOrigin: true, topOrigin: "https://top.example" }),
      REFUSED,
    ],
    ["a member twice", encodeUtf8(text.replace("{", '{"origin":"https://evil.example",')), INVALID],
    [
      "a member twice by an escape",
      encodeUtf8(text.replace("{", String.raw`{"origi\u006e":"https://evil.example",`)),
      INVALID,
    ],
    ["a byte order mark", concatBytes([decodeHex("efbbbf"), encodeUtf8(text)]), INVALID],
    ["bytes after it", encodeUtf8(`${text}x`), INVALID],
    [
      "bytes that are no UTF-8",
      concatBytes([encodeUtf8(text.slice(0, -1)), decodeHex("ff7d")]),
      "WIRE_BAD_ENCODING",
    ],
    ["an array", encodeUtf8("[]"), INVALID],
    ["null", encodeUtf8("null"), INVALID],
    ["nothing", new Uint8Array(), INVALID],
    ["more than the limit", encodeUtf8(text + " ".repeat(5000)), INVALID],
  ];

  it.each(rows)("F1 rejects %s", async (_, clientData, code) => {
    expect(await codeFor({ clientData })).toBe(code);
  });

  it("F1 a challenge below 16 bytes is the caller's mistake", async () => {
    const { expected } = registrationOf(plan);
    const check = {
      ...registrationOf(plan),
      expected: { ...expected, challenge: new Uint8Array(15) },
    };
    await expect(verifyRegistration(check)).rejects.toThrow(RangeError);
  });

  it("F1 accepts unknown members, and a frame in a site that the policy names", async () => {
    expect(await codeFor({ clientData: clientDataOf({ later: { members: [1] } }) })).toBe(FINE);
    const clientData = clientDataOf({ crossOrigin: true, topOrigin: "https://top.example" });
    const { expected } = registrationOf(plan);
    const topOrigins = ["https://top.example"];
    expect(await codeFor({ clientData }, { expected: { ...expected, topOrigins } })).toBe(FINE);
  });
});

describe("F2 authenticatorData", () => {
  const DATA_INVALID = "ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID";
  const CBOR_INVALID = "ATTEST_WEBAUTHN_CBOR_INVALID";
  const ALGORITHM = "ATTEST_ALGORITHM_NOT_ALLOWED";
  const key = createSigner();
  const cose = coseKeyOf(key);
  const changed = (change: (map: Map<number, unknown>) => void): AuthDataFields => {
    const map = new Map(cose);
    change(map);
    return { publicKey: encodeCbor(map) };
  };
  const extensions = (map: Map<unknown, unknown>): AuthDataFields => ({
    flags: 0xc5,
    tail: encodeCbor(map),
  });
  const rows: readonly [string, AuthDataFields, string][] = [
    ["another relying party", { rpId: "example.com" }, DATA_INVALID],
    ["no attested credential data", { flags: 0x05 }, DATA_INVALID],
    ["reserved bit 1", { flags: 0x47 }, DATA_INVALID],
    ["reserved bit 5", { flags: 0x65 }, DATA_INVALID],
    ["a backup of what cannot be backed up", { flags: 0x55 }, DATA_INVALID],
    ["an absent user", { flags: 0x44 }, "ATTEST_WEBAUTHN_USER_ABSENT"],
    ["an unverified user", { flags: 0x41 }, "ATTEST_WEBAUTHN_USER_ABSENT"],
    ["another credential id", { credentialId: new Uint8Array(32) }, DATA_INVALID],
    ["an empty credential id", { credentialId: new Uint8Array() }, "WIRE_LENGTH_OUT_OF_BOUNDS"],
    [
      "a credential id of 1024 bytes",
      { credentialId: new Uint8Array(1024) },
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    ],
    ["left-over bytes", { tail: Uint8Array.of(0) }, "WIRE_TRAILING_BYTES"],
    [
      "extensions without their flag",
      { tail: encodeCbor(new Map([["a", 1]])) },
      "WIRE_TRAILING_BYTES",
    ],
    ["a flag without extensions", { flags: 0xc5 }, CBOR_INVALID],
    ["empty extensions", extensions(new Map()), "WIRE_VALUE_NOT_ALLOWED"],
    ["extensions with numbers for names", extensions(new Map([[1, 1]])), "WIRE_VALUE_NOT_ALLOWED"],
    [
      "bytes after extensions",
      { flags: 0xc5, tail: concatBytes([encodeCbor(new Map([["a", 1]])), Uint8Array.of(0)]) },
      "WIRE_TRAILING_BYTES",
    ],
    ["more than the limit", { tail: new Uint8Array(9000) }, "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["a key of an unknown algorithm", changed((map) => map.set(3, -47)), ALGORITHM],
    ["a key without an algorithm", changed((map) => map.delete(3)), ALGORITHM],
    ["a curve that does not go with it", changed((map) => map.set(-1, 2)), ALGORITHM],
    ["another key type", changed((map) => map.set(1, 3)), CBOR_INVALID],
    [
      "a coordinate that is cut short",
      changed((map) => map.set(-2, new Uint8Array(31))),
      CBOR_INVALID,
    ],
    ["a compressed point", changed((map) => map.set(-3, true)), CBOR_INVALID],
    ["a member too many", changed((map) => map.set(4, 1)), CBOR_INVALID],
    ["a private key", changed((map) => map.set(-4, new Uint8Array(32))), CBOR_INVALID],
    [
      "members in another order",
      { publicKey: encodeCbor(new Map([...cose].reverse())) },
      CBOR_INVALID,
    ],
    ["a key that is no map", { publicKey: encodeCbor([1]) }, CBOR_INVALID],
    [
      "a key with a member twice",
      {
        publicKey: concatBytes([decodeHex("a6"), encodeCbor(cose).subarray(1), decodeHex("0102")]),
      },
      CBOR_INVALID,
    ],
    [
      "a key of indefinite length",
      { publicKey: concatBytes([decodeHex("bf"), encodeCbor(cose).subarray(1), decodeHex("ff")]) },
      CBOR_INVALID,
    ],
    [
      "a key with a longer number than needed",
      { publicKey: concatBytes([decodeHex("a5011802"), encodeCbor(cose).subarray(3)]) },
      CBOR_INVALID,
    ],
    ["a tagged key", { publicKey: concatBytes([decodeHex("c1"), encodeCbor(cose)]) }, CBOR_INVALID],
  ];

  it.each(rows)("F2 rejects %s", async (_, authData, code) => {
    expect(await codeFor({ credential: key, authData })).toBe(code);
  });

  it("F2 rejects RSA keys of an unfit size or exponent", async () => {
    const rsa = createSigner("rsa");
    const n = coseKeyOf(rsa).get(-1) as Uint8Array;
    const even = Uint8Array.from(n);
    even[255]! &= 0xfe;
    for (const [label, value] of [
      [-1, n.subarray(128)],
      [-1, concatBytes([n, n, n])],
      [-1, concatBytes([Uint8Array.of(0), n.subarray(1)])],
      [-1, even],
      [-2, Uint8Array.of(3)],
      [-2, Uint8Array.of(0, 1, 0, 1)],
    ] as const) {
      const coseKey = new Map(coseKeyOf(rsa)).set(label, value);
      expect(await codeFor({ credential: rsa, coseKey })).toBe(ALGORITHM);
    }
    expect(await codeFor({ credential: rsa })).toBe(FINE);
  });

  it("A10 rejects an RSA key of Infineon's flawed generator", async () => {
    const rsa = createSigner("rsa");
    const coseKey = new Map(coseKeyOf(rsa)).set(-1, rocaModulus("webauthn"));
    expect(await codeFor({ credential: rsa, coseKey })).toBe("ATTEST_KEY_WEAK");
  });

  it("F2 rejects Ed25519 keys of another curve or length", async () => {
    const ed25519 = createSigner("ed25519");
    for (const [label, value, code] of [
      [-1, 7, ALGORITHM],
      [-2, new Uint8Array(31), CBOR_INVALID],
    ] as const) {
      const coseKey = new Map(coseKeyOf(ed25519)).set(label, value);
      expect(await codeFor({ credential: ed25519, coseKey })).toBe(code);
    }
  });

  it("F2 rejects an algorithm that was not asked for", async () => {
    const { expected } = registrationOf(plan);
    const asked = (algorithms: number[]): Promise<string> =>
      codeFor({}, { expected: { ...expected, algorithms } });
    expect(await asked([-257])).toBe(ALGORITHM);
    expect(await asked([-257, -7])).toBe(FINE);
  });

  it("F2 accepts extensions, backup flags and a credential id of 1023 bytes", async () => {
    expect(await codeFor({ authData: extensions(new Map([["credProtect", 2]])) })).toBe(FINE);
    const { credential } = await verifyRegistration(
      registrationOf({ ...plan, authData: { flags: 0x5d } }),
    );
    expect(credential).toMatchObject({ backupEligible: true, backedUp: true });
    const credentialId = new Uint8Array(1023).fill(3);
    const check = registrationOf({ ...plan, authData: { credentialId } });
    const response = { ...check.response, rawId: credentialId };
    expect(await codeOfAsync(() => verifyRegistration({ ...check, response }))).toBe(FINE);
  });

  const objects: readonly [string, Uint8Array, string?][] = [
    ["no map", encodeCbor([1])],
    ["no members", encodeCbor(new Map())],
    [
      "a fourth member",
      encodeCbor(
        new Map<string, unknown>([
          ["fmt", "packed"],
          ["attStmt", new Map()],
          ["authData", new Uint8Array()],
          ["x", 1],
        ]),
      ),
    ],
    [
      "a statement that is no map",
      encodeCbor(
        new Map<string, unknown>([
          ["fmt", "packed"],
          ["attStmt", 1],
          ["authData", new Uint8Array()],
        ]),
      ),
    ],
    [
      "authData that is no byte string",
      encodeCbor(
        new Map<string, unknown>([
          ["fmt", "packed"],
          ["attStmt", new Map()],
          ["authData", "x"],
        ]),
      ),
    ],
    [
      "deep nesting",
      concatBytes([new Uint8Array(20_000).fill(0x81), decodeHex("00")]),
      "nested too deeply",
    ],
    ["a count above its bytes", decodeHex("bb7fffffffffffffff"), "it ends early"],
    ["a string past its end", decodeHex("a1657878"), "it ends early"],
    ["a length past its end", decodeHex("a15a0000"), "it ends early"],
    ["a tag", decodeHex("a1c100"), "a tag"],
    ["an indefinite length", decodeHex("bfff"), "an indefinite length"],
    ["a size above the limit", new Uint8Array(40_000), "larger than the limit"],
    ["nothing", new Uint8Array()],
  ];

  it.each(objects)("F2 rejects an attestation object with %s", async (_, bytes, message = "") => {
    const check = registrationOf(plan);
    const response = { ...check.response, attestationObject: bytes };
    const verifying = verifyRegistration({ ...check, response });
    await expect(verifying).rejects.toMatchObject({
      code: CBOR_INVALID,
      message: expect.stringContaining(message),
    });
  });

  it("F2 rejects bytes after the attestation object", async () => {
    const check = registrationOf(plan);
    const attestationObject = concatBytes([check.response.attestationObject, Uint8Array.of(0)]);
    const response = { ...check.response, attestationObject };
    expect(await codeOfAsync(() => verifyRegistration({ ...check, response }))).toBe(CBOR_INVALID);
  });
});

describe("F7 the model", () => {
  const REFUSED = "ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED";
  const other = "00000000-0000-0000-0000-000000000001";

  it("F7 rejects a model that is denied, or not on the list of those allowed", async () => {
    const withPolicy = (policy: Partial<WebAuthnPolicy>): Promise<string> => codeFor({ policy });
    expect(await withPolicy({ deniedAaguids: [AAGUID] })).toBe(REFUSED);
    expect(await withPolicy({ deniedAaguids: [other] })).toBe(FINE);
    expect(await withPolicy({ allowedAaguids: [other] })).toBe(REFUSED);
    expect(await withPolicy({ allowedAaguids: [AAGUID] })).toBe(FINE);
  });

  it("F7 rejects an AAGUID of the list that nothing but the authenticator vouches for", async () => {
    const self = selfPlan(createSigner());
    const policy = { acceptSelfAttestation: true, allowedAaguids: [AAGUID] };
    expect(await codeOfAsync(() => verifyRegistration(registrationOf({ ...self, policy })))).toBe(
      REFUSED,
    );
  });

  it("F2 accepts a ceremony without a touch or verification only where the policy says so", async () => {
    const policy = { userPresence: "optional", userVerification: "optional" } as const;
    expect(await codeFor({ authData: { flags: 0x40 }, policy })).toBe(FINE);
  });
});

describe("F8 assertions", () => {
  const key = createSigner();
  const stored = {
    id: CREDENTIAL_ID,
    publicKey: encodeCbor(coseKeyOf(key)),
    signCount: 5,
    backupEligible: false,
  };
  const assertion = (
    fields: AuthDataFields = {},
    more: Partial<AssertionCheck> = {},
    signer = key,
  ): AssertionCheck => {
    const clientDataJSON = clientDataOf({ type: "webauthn.get" });
    const authenticatorData = authDataOf({ flags: 0x05, signCount: 6, ...fields });
    const message = concatBytes([authenticatorData, sha256(clientDataJSON)]);
    const signature = signDer(signer.key, message);
    return {
      response: { rawId: CREDENTIAL_ID, clientDataJSON, authenticatorData, signature },
      expected: { challenge: CHALLENGE, origins: [ORIGIN], rpId: RP_ID },
      credential: stored,
      policy: DEFAULT_WEBAUTHN_POLICY,
      crypto,
      ...more,
    };
  };
  const codeOfCheck = (check: AssertionCheck): Promise<string> =>
    codeOfAsync(() => verifyAssertion(check));

  it.each(["P-256", "P-384", "rsa", "ed25519"] as const)("accepts one by %s", async (kind) => {
    const signer = createSigner(kind);
    const credential = { ...stored, publicKey: encodeCbor(coseKeyOf(signer)) };
    // ES384 hashes with SHA-384.
    const check = assertion({}, { credential }, signer);
    const message = concatBytes([
      check.response.authenticatorData,
      sha256(check.response.clientDataJSON),
    ]);
    const signature = signDer(signer.key, message, kind === "P-384" ? "sha384" : "sha256");
    const response = { ...check.response, signature };
    expect(await verifyAssertion({ ...check, response })).toMatchObject({
      kind: "verified-assertion",
      signCount: 6,
      counterRegressed: false,
      userVerified: true,
    });
  });

  const DATA_INVALID = "ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID";
  const rows: readonly [string, AssertionCheck, string][] = [
    ["a signature by another key", assertion({}, {}, createSigner()), "ATTEST_SIGNATURE_INVALID"],
    ["another relying party", assertion({ rpId: "example.com" }), DATA_INVALID],
    [
      "attested credential data",
      assertion({ flags: 0x45, publicKey: stored.publicKey }),
      DATA_INVALID,
    ],
    ["an absent user", assertion({ flags: 0x04 }), "ATTEST_WEBAUTHN_USER_ABSENT"],
    ["an unverified user", assertion({ flags: 0x01 }), "ATTEST_WEBAUTHN_USER_ABSENT"],
    ["a counter that stands still", assertion({ signCount: 5 }), "ATTEST_WEBAUTHN_COUNTER_INVALID"],
    [
      "a counter that goes back to 0",
      assertion({ signCount: 0 }),
      "ATTEST_WEBAUTHN_COUNTER_INVALID",
    ],
    ["a credential that can be backed up of late", assertion({ flags: 0x0d }), DATA_INVALID],
    [
      "one that no longer can",
      assertion({}, { credential: { ...stored, backupEligible: true } }),
      DATA_INVALID,
    ],
    ["bytes after authenticatorData", assertion({ tail: Uint8Array.of(0) }), "WIRE_TRAILING_BYTES"],
    [
      "another credential",
      assertion({}, { credential: { ...stored, id: Uint8Array.of(1) } }),
      DATA_INVALID,
    ],
  ];

  it.each(rows)("F8 rejects %s", async (_, check, code) => {
    expect(await codeOfCheck(check)).toBe(code);
  });

  it("F8 rejects every other spelling of a signature", async () => {
    const check = assertion();
    const good = check.response.signature;
    const rLength = good[3]!;
    const [r, s] = [good.subarray(2, 4 + rLength), good.subarray(4 + rLength)];
    const padded = (part: Uint8Array): Uint8Array =>
      concatBytes([Uint8Array.of(2, part[1]! + 1, 0), part.subarray(2)]);
    const sequence = (...parts: Uint8Array[]): Uint8Array => {
      const body = concatBytes(parts);
      return concatBytes([Uint8Array.of(0x30, body.length), body]);
    };
    const long = concatBytes([Uint8Array.of(0x30, 0x81, good[1]!), good.subarray(2)]);
    const spellings = [
      concatBytes([good, Uint8Array.of(0)]),
      long,
      sequence(padded(r), s),
      sequence(r, padded(s)),
      sequence(r, s, s),
      sequence(r),
      sequence(Uint8Array.of(2, 1, 0), s),
      sequence(Uint8Array.of(2, 1, 0x80), s),
      sequence(concatBytes([Uint8Array.of(2, 34, 1), new Uint8Array(33)]), s),
      new Uint8Array(),
    ];
    expect(sequence(r, s)).toStrictEqual(good);
    for (const signature of spellings) {
      const response = { ...check.response, signature };
      expect(await codeOfCheck({ ...check, response })).toBe("ATTEST_SIGNATURE_INVALID");
    }
  });

  it("F8 rejects the clientDataJSON of a registration", async () => {
    const check = assertion();
    const response = { ...check.response, clientDataJSON: clientDataOf() };
    expect(await codeOfCheck({ ...check, response })).toBe("ATTEST_WEBAUTHN_CLIENT_DATA_INVALID");
  });

  it("F8 rejects a wrong signature before it believes the counter", async () => {
    const check = assertion({ signCount: 1 }, {}, createSigner());
    expect(await codeOfCheck(check)).toBe("ATTEST_SIGNATURE_INVALID");
  });

  it("F8 accepts authenticators that never count, and reports a step back where the policy says so", async () => {
    const never = assertion({ signCount: 0 }, { credential: { ...stored, signCount: 0 } });
    expect(await verifyAssertion(never)).toMatchObject({ counterRegressed: false, signCount: 0 });
    const policy = { ...DEFAULT_WEBAUTHN_POLICY, counterRegression: "report" } as const;
    expect(await verifyAssertion(assertion({ signCount: 5 }, { policy }))).toMatchObject({
      counterRegressed: true,
    });
  });
});

describe("the JSON of a page", () => {
  const registration = {
    id: "AQID",
    rawId: "AQID",
    type: "public-key",
    response: { clientDataJSON: "AQ", attestationObject: "Ag", transports: ["internal"] },
  };
  const authentication = {
    ...registration,
    response: { clientDataJSON: "AQ", authenticatorData: "Ag", signature: "Aw", userHandle: null },
  };

  it("is read", () => {
    expect(parseRegistrationResponse(registration)).toStrictEqual({
      rawId: Uint8Array.of(1, 2, 3),
      clientDataJSON: Uint8Array.of(1),
      attestationObject: Uint8Array.of(2),
    });
    expect(parseAssertionResponse(authentication)).toMatchObject({ signature: Uint8Array.of(3) });
  });

  it.each([
    null,
    [],
    { ...registration, type: "password" },
    { ...registration, id: "AQIE" },
    { ...registration, rawId: "AQID=" },
    { ...registration, rawId: 1 },
    { ...registration, response: undefined },
    { ...registration, response: { ...registration.response, clientDataJSON: "A" } },
    { ...registration, response: { ...registration.response, attestationObject: undefined } },
    {
      ...registration,
      response: { ...registration.response, attestationObject: "A".repeat(70_000) },
    },
  ])("rejects form %#", (json) => {
    expect(codeOf(() => parseRegistrationResponse(json))).toBe("ATTEST_MESSAGE_INVALID");
  });

  it("rejects an assertion without a signature", () => {
    const { signature: _, ...response } = authentication.response;
    expect(codeOf(() => parseAssertionResponse({ ...authentication, response }))).toBe(
      "ATTEST_MESSAGE_INVALID",
    );
  });
});
