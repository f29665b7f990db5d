/** Enrolment: the rules of its sessions, what an attester may be configured with, and hostile messages. */
import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  createTpmAttester,
  DEFAULT_APPRAISAL_POLICY,
  encodeChallengeRequest,
  encodeEvidenceRequest,
  evidenceBinding,
  parseChallengeRequest,
  parseEvidenceRequest,
  type TpmAttesterOptions,
} from "../../attest/index.ts";
import { createSessions, type AttestationSession } from "../../attest/enrolment/sessions.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { memoryRegistry, seededRandom } from "../support/attester.ts";
import { codeOf } from "../support/reject.ts";

const crypto = createNodeAttestCrypto();

const options: TpmAttesterOptions = {
  crypto,
  random: seededRandom("enrolment"),
  clock: () => 0,
  roots: { kind: "trusted-roots", certificates: [] } as unknown as TpmAttesterOptions["roots"],
  policy: {
    ...DEFAULT_APPRAISAL_POLICY,
    pcrBanks: [{ hash: "sha256", pcrs: [0, 7] }],
    referenceValues: [{ hash: "sha256", pcr: 7, value: new Uint8Array(32) }],
  },
  registry: memoryRegistry(),
  pseudonymSecret: new Uint8Array(32),
  sessionMs: 60_000,
  maxSessions: 10,
};

describe("an attester's options", () => {
  const { eventLog } = options.policy;
  const policy = (change: Partial<TpmAttesterOptions["policy"]>): Partial<TpmAttesterOptions> => ({
    policy: { ...options.policy, referenceValues: [], ...change },
  });

  it("are accepted where they protect something", () => {
    expect(createTpmAttester(options)).toBeDefined();
    const sha1 = policy({ allowSha1: true, pcrBanks: [{ hash: "sha1", pcrs: [0] }] });
    expect(createTpmAttester({ ...options, ...sha1 })).toBeDefined();
  });

  it.each<[string, Partial<TpmAttesterOptions>]>([
    ["a short pseudonym secret", { pseudonymSecret: new Uint8Array(31) }],
    ["no pseudonym secret", { pseudonymSecret: new Uint8Array() }],
    ["sessions of no length", { sessionMs: 0 }],
    ["sessions without end", { sessionMs: Infinity }],
    ["no sessions", { maxSessions: 0 }],
    ["no banks", policy({ pcrBanks: [] })],
    ["a bank without PCRs", policy({ pcrBanks: [{ hash: "sha256", pcrs: [] }] })],
    ["D5: a PCR twice", policy({ pcrBanks: [{ hash: "sha256", pcrs: [1, 1] }] })],
    ["a PCR that does not exist", policy({ pcrBanks: [{ hash: "sha256", pcrs: [24] }] })],
    [
      "D5: a bank twice",
      policy({
        pcrBanks: [
          { hash: "sha256", pcrs: [1] },
          { hash: "sha256", pcrs: [2] },
        ],
      }),
    ],
    ["no classes", policy({ classes: [] })],
    ["two classes of one name", policy({ classes: [{ name: "a" }, { name: "a" }] })],
    ["a log that no quote covers", policy({ eventLog: { ...eventLog, mode: "required" } })],
    ["Secure Boot without a log", policy({ eventLog: { ...eventLog, secureBoot: "on" } })],
    [
      "boot applications without a log",
      policy({ eventLog: { ...eventLog, bootApplications: new Set() } }),
    ],
    ["a class of a log that is off", policy({ classes: [{ name: "a", eventLog: true }] })],
    [
      "a class of Secure Boot where logs are off",
      policy({ classes: [{ name: "a", secureBoot: "on" }] }),
    ],
    ["D12: a SHA-1 bank", policy({ pcrBanks: [{ hash: "sha1", pcrs: [0] }] })],
    [
      "a reference value that no quote covers",
      policy({ referenceValues: [{ hash: "sha256", pcr: 1, value: new Uint8Array(32) }] }),
    ],
    [
      "a reference value of another size",
      policy({ referenceValues: [{ hash: "sha256", pcr: 0, value: new Uint8Array(20) }] }),
    ],
    [
      "two reference values for one PCR",
      policy({
        referenceValues: [1, 2].map((byte) => ({
          hash: "sha256" as const,
          pcr: 0,
          value: new Uint8Array(32).fill(byte),
        })),
      }),
    ],
  ])("rejects %s", (_name, change) => {
    expect(() => createTpmAttester({ ...options, ...change })).toThrow(RangeError);
  });
});

describe("sessions", () => {
  const clock = { nowMs: 0 };
  const open = (maxSessions = 10): ReturnType<typeof createSessions> => {
    clock.nowMs = 0;
    return createSessions({
      clock: () => clock.nowMs,
      random: seededRandom("sessions"),
      maxSessions,
    });
  };
  const session = (pseudonym: string, expiresAtMs = 1_000): AttestationSession => ({
    ak: {} as AttestationSession["ak"],
    ek: {} as AttestationSession["ek"],
    secret: new Uint8Array(32),
    nonce: new Uint8Array(32),
    pseudonym,
    manufacturer: "id:00000000",
    expiresAtMs,
  });

  it("C2: rejects a session the second time", () => {
    const sessions = open();
    const id = sessions.open(session("a"));
    expect(sessions.take(id).pseudonym).toBe("a");
    expect(codeOf(() => sessions.take(id))).toBe("ATTEST_SESSION_UNKNOWN");
  });

  it("C2: rejects a session at its end, and one that never was", () => {
    const sessions = open();
    const id = sessions.open(session("a", 1_000));
    clock.nowMs = 1_000;
    expect(codeOf(() => sessions.take(id))).toBe("ATTEST_SESSION_UNKNOWN");
    for (const other of ["", "A", id.toLowerCase(), "__proto__"]) {
      expect(codeOf(() => sessions.take(other))).toBe("ATTEST_SESSION_UNKNOWN");
    }
  });

  it("C4: rejects more sessions than the limit, until some end", () => {
    const sessions = open(3);
    const ids = ["a", "b", "c"].map((name) => sessions.open(session(name, 1_000)));
    expect(codeOf(() => sessions.open(session("d")))).toBe("ATTEST_SESSION_LIMIT");
    sessions.take(ids[1] ?? "");
    sessions.open(session("d", 2_000));
    clock.nowMs = 1_500;
    sessions.open(session("e", 2_500));
    sessions.open(session("f", 2_500));
    expect(codeOf(() => sessions.open(session("g")))).toBe("ATTEST_SESSION_LIMIT");
  });

  it("C4: gives one device no more than four; its own oldest makes way", () => {
    const sessions = open(100);
    const ids = Array.from({ length: 6 }, () => sessions.open(session("a")));
    const other = sessions.open(session("b"));
    expect(ids.map((id) => codeOf(() => sessions.take(id)))).toStrictEqual([
      "ATTEST_SESSION_UNKNOWN",
      "ATTEST_SESSION_UNKNOWN",
      ...Array.from({ length: 4 }, () => "nothing was thrown"),
    ]);
    expect(sessions.take(other).pseudonym).toBe("b");
  });
});

describe("the binding of evidence", () => {
  const input = {
    nonce: new Uint8Array(32).fill(1),
    tlsExporter: new Uint8Array(32).fill(2),
    deviceKeyName: new Uint8Array(34).fill(3),
  };
  const bound = (change: Partial<typeof input> = {}, purpose: "quote" | "certify" = "quote") =>
    Buffer.from(evidenceBinding(crypto, purpose, { ...input, ...change })).toString("hex");

  it("D3, D11: differs in the nonce, the channel, the device key and the purpose", () => {
    const all = new Set([
      bound(),
      bound({}, "certify"),
      bound({ nonce: new Uint8Array(32).fill(9) }),
      bound({ tlsExporter: new Uint8Array(32).fill(9) }),
      bound({ deviceKeyName: new Uint8Array(34).fill(9) }),
      Buffer.from(evidenceBinding(crypto, "quote", { ...input, tlsExporter: undefined })).toString(
        "hex",
      ),
    ]);
    expect(all.size).toBe(6);
  });
});

describe("messages", () => {
  const some = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));
  const challenge = encodeChallengeRequest({
    ekCertificates: [some(1_000)],
    ekPublic: some(300),
    akPublic: some(90),
  }) as Record<string, unknown>;
  const evidence = encodeEvidenceRequest({
    session: "session-1",
    activatedSecret: some(32),
    quote: { attest: some(140), signature: some(70) },
    pcrValues: [{ hash: "sha256", pcr: 0, value: some(32) }],
    deviceKey: { public: some(90), attest: some(140), signature: some(70) },
  }) as Record<string, unknown>;
  const long = (bytes: number): string => Buffer.alloc(bytes).toString("base64url");

  it("are read as they were written", () => {
    expect(encodeChallengeRequest(parseChallengeRequest(challenge))).toStrictEqual(challenge);
    expect(encodeEvidenceRequest(parseEvidenceRequest(evidence))).toStrictEqual(evidence);
  });

  it.each<[string, unknown]>([
    ["no object", []],
    ["null", null],
    ["a text", "{}"],
    ["no member", {}],
    ["an unknown member", { ...challenge, extra: 1 }],
    ["a missing member", { ...challenge, akPublic: undefined, ek: 1 }],
    ["members of a prototype", Object.create(challenge) as object],
    ["no certificate", { ...challenge, ekCertificates: [] }],
    ["seven certificates", { ...challenge, ekCertificates: Array.from({ length: 7 }, () => "AA") }],
    ["a certificate above its cap", { ...challenge, ekCertificates: [long(8_193)] }],
    ["a certificate that is no text", { ...challenge, ekCertificates: [1] }],
    ["padding", { ...challenge, ekPublic: "AA==" }],
    ["base64 of the other alphabet", { ...challenge, ekPublic: "+/+/" }],
    ["unused bits that are set", { ...challenge, ekPublic: "AB" }],
    ["white space", { ...challenge, ekPublic: "AA A" }],
    ["a structure above its cap", { ...challenge, akPublic: long(1_025) }],
  ])("reject %s as a challenge request", (_name, json) => {
    expect(codeOf(() => parseChallengeRequest(json))).toBe("ATTEST_MESSAGE_INVALID");
  });

  const value = { hash: "sha256", pcr: 0, value: "AA" };
  it.each<[string, unknown]>([
    ["a session of another form", { ...evidence, session: "a b" }],
    ["a long session", { ...evidence, session: "a".repeat(65) }],
    ["a secret above its cap", { ...evidence, activatedSecret: long(65) }],
    ["no PCR value", { ...evidence, pcrValues: [] }],
    ["97 PCR values", { ...evidence, pcrValues: Array.from({ length: 97 }, () => value) }],
    ["PCR 24", { ...evidence, pcrValues: [{ ...value, pcr: 24 }] }],
    ["PCR 0.5", { ...evidence, pcrValues: [{ ...value, pcr: 0.5 }] }],
    ["an unknown bank", { ...evidence, pcrValues: [{ ...value, hash: "sm3_256" }] }],
    ["a value above its cap", { ...evidence, pcrValues: [{ ...value, value: long(65) }] }],
    [
      "a quote with a member too many",
      { ...evidence, quote: { ...Object(evidence["quote"]), a: 1 } },
    ],
    ["a device key without its public area", { ...evidence, deviceKey: evidence["quote"] }],
  ])("reject %s as evidence", (_name, json) => {
    expect(codeOf(() => parseEvidenceRequest(json))).toBe("ATTEST_MESSAGE_INVALID");
  });
});
