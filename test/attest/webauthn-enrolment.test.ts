/** WebAuthn attestation below HTTP: the binding, sessions, names, and every refusal by its code. */
import { createHash, createHmac, generateKeyPairSync } from "node:crypto";
import { calculateJwkThumbprint } from "jose";
import { describe, expect, it } from "vitest";
import type { Es256PublicJwk } from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import {
  DEFAULT_WEBAUTHN_POLICY,
  type MetadataBlob,
  parseMetadataBlob,
  parseTrustAnchors,
  type WebAuthnPolicy,
  type WebAuthnTrust,
} from "../../attest/webauthn/index.ts";
import {
  type CeremonyOptions,
  createWebAuthnAttester,
  type CredentialStore,
  isCounterAccepted,
  parseCeremonyEvidence,
  parseCeremonyRequest,
  type StoredCredential,
  type WebAuthnAttester,
  type WebAuthnAttesterOptions,
} from "../../attest/webauthn-enrolment/index.ts";
import { decodeBase64Url, StileError } from "../../wire/index.ts";
import { seededRandom } from "../support/attester.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import {
  type CeremonyInput,
  type CredentialJson,
  createSoftAuthenticator,
  type Deviation,
  withFlippedBit,
} from "../support/webauthn-authenticator.ts";
import { anchors, blobOf, entryOf } from "./webauthn/support/metadata.ts";
import { selfPlan } from "./webauthn/support/statements.ts";
import { createSigner } from "./webauthn/support/x509.ts";

const ORIGIN = "https://login.example.org";
const RP_ID = "example.org";
const START = Date.UTC(2026, 10, 23);
const NETWORK = "192.0.2.0/24";
const CASES = Number(process.env["WEBAUTHN_CASES"] ?? 200);
const SECRET = new Uint8Array(32).fill(7);

function newDeviceKey(): Es256PublicJwk {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  return { kty: "EC", crv: "P-256", x, y };
}

/** A store that forgets with the process. */
function memoryStore(): CredentialStore & { readonly stored: Map<string, StoredCredential> } {
  const stored = new Map<string, StoredCredential>();
  const nameOf = (handle: Uint8Array): string => Buffer.from(handle).toString("hex");
  const lookUp = (handle: Uint8Array): StoredCredential => {
    const found = stored.get(nameOf(handle));
    if (found === undefined) throw new StileError("ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN", "unknown");
    return found;
  };
  return {
    stored,
    lookUp: async (handle) => lookUp(handle),
    add: async (handle, credential) => {
      if (stored.has(nameOf(handle))) {
        throw new StileError("ATTEST_WEBAUTHN_CREDENTIAL_EXISTS", "known");
      }
      stored.set(nameOf(handle), credential);
    },
    recordUse: async (handle, signCount) => {
      const known = lookUp(handle);
      if (!isCounterAccepted(known.signCount, signCount)) {
        throw new StileError("ATTEST_WEBAUTHN_COUNTER_INVALID", "went back");
      }
      stored.set(nameOf(handle), { ...known, signCount });
    },
  };
}

interface World {
  readonly attester: WebAuthnAttester;
  readonly authenticator: ReturnType<typeof createSoftAuthenticator>;
  readonly store: ReturnType<typeof memoryStore>;
  readonly clock: { nowMs: number };
  readonly networks: string[];
}

/** That of an operator who changes it while the attester runs. */
type ChangingPolicy = { -readonly [K in keyof WebAuthnPolicy]: WebAuthnPolicy[K] };

function createWorld(overrides: Partial<WebAuthnAttesterOptions> = {}): World {
  const authenticator = createSoftAuthenticator();
  const store = memoryStore();
  const clock = { nowMs: START };
  const networks: string[] = [];
  const attester = createWebAuthnAttester({
    crypto: createNodeAttestCrypto(),
    random: seededRandom("webauthn"),
    clock: () => clock.nowMs,
    rpId: RP_ID,
    origins: [ORIGIN],
    policy: DEFAULT_WEBAUTHN_POLICY,
    trust: () => ({ anchors: { packed: parseTrustAnchors(authenticator.rootPem) } }),
    credentials: store,
    chargeNetwork: async (network) => void networks.push(network),
    checkAdmissible: async () => undefined,
    pseudonymSecret: SECRET,
    sessionMs: 60_000,
    maxSessions: 100,
    ...overrides,
  });
  return { attester, authenticator, store, clock, networks };
}

type Purpose = "registration" | "assertion";

const challengeIn = ({ publicKey }: CeremonyOptions): string =>
  (publicKey as { challenge: string }).challenge;

async function open(
  { attester, authenticator }: World,
  purpose: Purpose,
  deviceKey: Es256PublicJwk = newDeviceKey(),
): Promise<CeremonyOptions> {
  const credentialId = decodeBase64Url(authenticator.credentialId());
  return attester.options(
    purpose === "registration" ? { deviceKey, purpose } : { deviceKey, purpose, credentialId },
    NETWORK,
  );
}

function answer(
  { authenticator }: World,
  purpose: Purpose,
  options: CeremonyOptions,
  deviation: Deviation & Partial<CeremonyInput> = {},
): CredentialJson {
  const input = { challenge: challengeIn(options), rpId: RP_ID, origin: ORIGIN, ...deviation };
  return purpose === "registration"
    ? authenticator.register(input, deviation)
    : authenticator.authenticate(input, deviation);
}

async function attest(
  world: World,
  purpose: Purpose,
  deviation: Deviation & Partial<CeremonyInput> = {},
): ReturnType<WebAuthnAttester["evidence"]> {
  const options = await open(world, purpose);
  const credential = answer(world, purpose, options, deviation);
  return world.attester.evidence({ session: options.session, credential }, NETWORK);
}

describe("the binding of a ceremony", () => {
  it("is the hash of label, nonce and RFC 7638 thumbprint, as jose computes it", async () => {
    const nonces: Uint8Array[] = [];
    const seeded = seededRandom("nonce");
    const world = createWorld({
      random: (length) => {
        const bytes = seeded(length);
        nonces.push(bytes);
        return bytes;
      },
    });
    const deviceKey = newDeviceKey();
    const options = await open(world, "registration", deviceKey);
    const thumbprint = Buffer.from(await calculateJwkThumbprint({ ...deviceKey }), "base64url");
    const parts = [Buffer.from("stile/1 webauthn"), nonces[0] ?? Buffer.of(), thumbprint];
    const hash = createHash("sha256");
    for (const part of parts) hash.update(Buffer.of(0, part.length)).update(part);
    expect(challengeIn(options)).toBe(hash.digest("base64url"));
  });

  it("asks the browser for what the policy wants", async () => {
    const world = createWorld();
    expect(await open(world, "registration")).toMatchObject({
      expiresIn: 60,
      publicKey: {
        rp: { id: RP_ID },
        pubKeyCredParams: [{ alg: -7 }, { alg: -8 }, { alg: -257 }],
        attestation: "direct",
        authenticatorSelection: { residentKey: "discouraged", userVerification: "required" },
      },
    });
    await attest(world, "registration");
    expect(await open(world, "assertion")).toMatchObject({
      publicKey: {
        rpId: RP_ID,
        allowCredentials: [{ type: "public-key", id: world.authenticator.credentialId() }],
        userVerification: "required",
      },
    });
    const policy = { ...DEFAULT_WEBAUTHN_POLICY, userVerification: "optional" as const };
    const relaxed = createWorld({ policy });
    expect(await open(relaxed, "registration")).toMatchObject({
      publicKey: { authenticatorSelection: { userVerification: "preferred" } },
    });
  });
});

describe("a credential", () => {
  it("attests when it is registered and later, under one name that is not its id", async () => {
    const world = createWorld();
    const registered = await attest(world, "registration");
    const [stored] = world.store.stored.values();
    const id = decodeBase64Url(world.authenticator.credentialId());
    expect(registered.policyId).toBe("urn:stile:policy:webauthn-anchored");
    expect(registered.trustworthiness).toMatchObject({ instanceIdentity: 2, hardware: 2 });
    expect(stored).toMatchObject({ signCount: 1, aaguid: world.authenticator.aaguid });
    const label = Buffer.from("stile/1 webauthn credential");
    const named = Buffer.concat([Buffer.of(0, label.length), label, Buffer.of(0, id.length), id]);
    const handle = createHmac("sha256", SECRET).update(named).digest("hex");
    expect([...world.store.stored.keys()]).toStrictEqual([handle]);
    for (let i = 0; i < 2; i += 1) {
      expect((await attest(world, "assertion")).pseudonym).toBe(registered.pseudonym);
    }
    expect(registered.pseudonym).not.toContain(world.authenticator.credentialId());
    expect([...world.store.stored.values()][0]?.signCount).toBe(3);
    expect((await attest(world, "registration")).pseudonym).not.toBe(registered.pseudonym);
    // Each of the four was charged to the network.
    expect(world.networks).toStrictEqual(Array.from({ length: 4 }, () => NETWORK));
  });

  it("without an anchor is refused, and named as such where it is believed all the same", async () => {
    const trust = (): WebAuthnTrust => ({ anchors: {} });
    const strict = createWorld({ trust });
    expect(await codeOfAsync(() => attest(strict, "registration"))).toBe(
      "ATTEST_WEBAUTHN_CHAIN_UNTRUSTED",
    );
    const policy: ChangingPolicy = { ...DEFAULT_WEBAUTHN_POLICY, acceptUnanchored: ["packed"] };
    const lax = createWorld({ trust, policy });
    expect(await attest(lax, "registration")).toMatchObject({
      policyId: "urn:stile:policy:webauthn-unanchored",
      trustworthiness: { instanceIdentity: 2, hardware: 0 },
    });
    policy.acceptUnanchored = [];
    expect(await codeOfAsync(() => attest(lax, "assertion"))).toBe(
      "ATTEST_WEBAUTHN_FORMAT_REFUSED",
    );
  });
});

describe("a ceremony is refused", () => {
  const purposes = ["registration", "assertion"] as const;
  const wrong: readonly (readonly [string, Deviation & Partial<CeremonyInput>, string])[] = [
    [
      "another challenge",
      { challenge: Buffer.alloc(32, 1).toString("base64url") },
      "ATTEST_WEBAUTHN_CHALLENGE_MISMATCH",
    ],
    ["another origin", { origin: "https://evil.example" }, "ATTEST_WEBAUTHN_ORIGIN_REFUSED"],
    ["another RP id", { rpId: "evil.example" }, "ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID"],
    [
      "the other type",
      { clientData: { type: "payment.get" } },
      "ATTEST_WEBAUTHN_CLIENT_DATA_INVALID",
    ],
  ];
  it.each(purposes.flatMap((purpose) => wrong.map((row) => [purpose, ...row] as const)))(
    "%s: rejects %s",
    async (purpose, _name, deviation, code) => {
      const world = createWorld();
      await attest(world, "registration");
      expect(await codeOfAsync(() => attest(world, purpose, deviation))).toBe(code);
      expect(world.networks).toHaveLength(1);
    },
  );

  it.each([
    ["registration", 0x41],
    ["assertion", 0x01],
  ] as const)("rejects a %s of a person who was not verified", async (purpose, flags) => {
    const world = createWorld();
    await attest(world, "registration");
    expect(await codeOfAsync(() => attest(world, purpose, { flags }))).toBe(
      "ATTEST_WEBAUTHN_USER_ABSENT",
    );
  });

  it("rejects self attestation and none", async () => {
    const self = selfPlan(createSigner());
    expect(await codeOfAsync(() => attest(createWorld(), "registration", { plan: self }))).toBe(
      "ATTEST_WEBAUTHN_FORMAT_REFUSED",
    );
    const none = { format: "none", statement: () => new Map<string, unknown>() };
    expect(await codeOfAsync(() => attest(createWorld(), "registration", { plan: none }))).toBe(
      "ATTEST_WEBAUTHN_FORMAT_REFUSED",
    );
  });

  it("rejects a credential that may leave its authenticator", async () => {
    const world = createWorld();
    expect(await codeOfAsync(() => attest(world, "registration", { flags: 0x4d }))).toBe(
      "ATTEST_POLICY_REFUSED",
    );
    expect(world.store.stored.size).toBe(0);
  });

  it("rejects a credential for the device key of another session", async () => {
    const world = createWorld();
    const [mine, theirs] = [await open(world, "registration"), await open(world, "registration")];
    const credential = answer(world, "registration", theirs);
    const given = world.attester.evidence({ session: mine.session, credential }, NETWORK);
    expect(await codeOfAsync(() => given)).toBe("ATTEST_WEBAUTHN_CHALLENGE_MISMATCH");
  });

  it("rejects a session that was used, has expired or never was", async () => {
    const world = createWorld();
    const send = (session: string, credential: unknown): Promise<string> =>
      codeOfAsync(() => world.attester.evidence({ session, credential }, NETWORK));
    const options = await open(world, "registration");
    const credential = answer(world, "registration", options);
    expect(await send(options.session, credential)).toBe("nothing was thrown");
    expect(await send(options.session, credential)).toBe("ATTEST_SESSION_UNKNOWN");
    expect(await send("AAAA", credential)).toBe("ATTEST_SESSION_UNKNOWN");
    const late = await open(world, "registration");
    world.clock.nowMs += 60_000;
    expect(await send(late.session, answer(world, "registration", late))).toBe(
      "ATTEST_SESSION_UNKNOWN",
    );
    // A wrong answer ends the session, too.
    const tried = await open(world, "registration");
    expect(await send(tried.session, {})).toBe("ATTEST_MESSAGE_INVALID");
    expect(await send(tried.session, answer(world, "registration", tried))).toBe(
      "ATTEST_SESSION_UNKNOWN",
    );
  });

  it("rejects an assertion in the session of a registration, and the other way round", async () => {
    const world = createWorld();
    await attest(world, "registration");
    const send = async (purpose: Purpose, other: Purpose): Promise<string> => {
      const options = await open(world, purpose);
      const credential = answer(world, other, options);
      return codeOfAsync(() =>
        world.attester.evidence({ session: options.session, credential }, NETWORK),
      );
    };
    expect(await send("registration", "assertion")).toBe("ATTEST_MESSAGE_INVALID");
    expect(await send("assertion", "registration")).toBe("ATTEST_MESSAGE_INVALID");
  });

  it("rejects a counter that does not go up, and a credential that is not known", async () => {
    const world = createWorld();
    expect(await codeOfAsync(() => open(world, "assertion"))).toBe(
      "ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN",
    );
    await attest(world, "registration", { signCount: 9 });
    const counted = (signCount: number): Promise<string> =>
      codeOfAsync(() => attest(world, "assertion", { signCount }));
    expect(await counted(9)).toBe("ATTEST_WEBAUTHN_COUNTER_INVALID");
    expect(await counted(0)).toBe("ATTEST_WEBAUTHN_COUNTER_INVALID");
    expect(await counted(10)).toBe("nothing was thrown");
    expect(await counted(10)).toBe("ATTEST_WEBAUTHN_COUNTER_INVALID");
    const options = await open(world, "assertion");
    world.store.stored.clear();
    const credential = answer(world, "assertion", options);
    const given = world.attester.evidence({ session: options.session, credential }, NETWORK);
    expect(await codeOfAsync(() => given)).toBe("ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN");
  });

  it("rejects a registered credential whose model is denied, or accepted no more", async () => {
    const policy: ChangingPolicy = { ...DEFAULT_WEBAUTHN_POLICY };
    const world = createWorld({ policy });
    await attest(world, "registration");
    policy.deniedAaguids = [world.authenticator.aaguid];
    expect(await codeOfAsync(() => attest(world, "assertion"))).toBe(
      "ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED",
    );
    policy.deniedAaguids = [];
    policy.formats = ["tpm"];
    expect(await codeOfAsync(() => attest(world, "assertion"))).toBe(
      "ATTEST_WEBAUTHN_FORMAT_REFUSED",
    );
  });

  it("rejects a registered credential of a model that FIDO reports, or with metadata that is stale", async () => {
    const crypto = createNodeAttestCrypto();
    const parse = (statuses: readonly string[]): Promise<MetadataBlob> => {
      const statusReports = statuses.map((status) => ({ status, effectiveDate: "2026-01-01" }));
      const jwt = blobOf({ payload: { entries: [entryOf({ statusReports })] } });
      return parseMetadataBlob({ jwt, anchors, crypto, clock: () => START });
    };
    const trust: { anchors: WebAuthnTrust["anchors"]; metadata?: MetadataBlob } = { anchors: {} };
    const world = createWorld({ trust: () => trust });
    trust.anchors = { packed: parseTrustAnchors(world.authenticator.rootPem) };
    await attest(world, "registration");
    trust.metadata = await parse(["FIDO_CERTIFIED_L1"]);
    expect(await codeOfAsync(() => attest(world, "assertion"))).toBe("nothing was thrown");
    trust.metadata = await parse(["FIDO_CERTIFIED_L1", "ATTESTATION_KEY_COMPROMISE"]);
    expect(await codeOfAsync(() => attest(world, "assertion"))).toBe(
      "ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED",
    );
    world.clock.nowMs = trust.metadata.staleAtMs;
    expect(await codeOfAsync(() => attest(world, "assertion"))).toBe(
      "ATTEST_WEBAUTHN_METADATA_STALE",
    );
  });

  it("rejects before it stores anything, where the network or the name is refused", async () => {
    for (const code of ["ATTEST_WEBAUTHN_NETWORK_LIMIT", "ATTEST_DEVICE_REVOKED"] as const) {
      const refuse = async (): Promise<void> => {
        throw new StileError(code, "refused");
      };
      const world = createWorld(
        code === "ATTEST_DEVICE_REVOKED" ? { checkAdmissible: refuse } : { chargeNetwork: refuse },
      );
      expect(await codeOfAsync(() => attest(world, "registration"))).toBe(code);
      expect(world.store.stored.size).toBe(0);
    }
  });
});

describe("mutated evidence", () => {
  it("is refused by a code, whatever bit was turned", { timeout: 600_000 }, async () => {
    const world = createWorld();
    await attest(world, "registration");
    const random = seededRandom("bits");
    const codes = new Set<string>();
    for (let i = 0; i < CASES; i += 1) {
      const purpose = i % 2 === 0 ? "registration" : "assertion";
      const options = await open(world, purpose);
      const credential = answer(world, purpose, options);
      const members = Object.keys(credential.response);
      const member = members[(i >> 1) % members.length] ?? "";
      const [high = 0, low = 0] = random(2);
      const mutated = withFlippedBit(credential, member, high * 256 + low);
      const given = world.attester.evidence(
        { session: options.session, credential: mutated },
        NETWORK,
      );
      const code = await codeOfAsync(() => given);
      expect(code, `${purpose} ${member}`).toMatch(/^(ATTEST|WIRE)_/);
      codes.add(code);
      // The other purpose needs the credential that the store knows.
      if (purpose === "registration") await attest(world, "registration");
    }
    expect(codes.size).toBeGreaterThan(6);
  });
});

describe("sessions", () => {
  it("of one network make way for its own, and leave places for others", async () => {
    const world = createWorld({ maxSessions: 40 });
    const openFrom = (network: string): Promise<CeremonyOptions> =>
      world.attester.options({ deviceKey: newDeviceKey(), purpose: "registration" }, network);
    const first = await openFrom("a");
    for (let i = 0; i < 30; i += 1) await openFrom("a");
    const credential = answer(world, "registration", first);
    const given = world.attester.evidence({ session: first.session, credential }, NETWORK);
    expect(await codeOfAsync(() => given)).toBe("ATTEST_SESSION_UNKNOWN");
    for (let i = 0; i < 16; i += 1) await openFrom("b");
    for (let i = 0; i < 8; i += 1) await openFrom("c");
    expect(await codeOfAsync(() => openFrom("d"))).toBe("ATTEST_SESSION_LIMIT");
    world.clock.nowMs += 60_000;
    expect(await codeOfAsync(() => openFrom("d"))).toBe("nothing was thrown");
  });
});

describe("messages", () => {
  const deviceKey = newDeviceKey();
  const credentialId = "AAAA";
  it.each([
    ["no object", []],
    ["an unknown purpose", { deviceKey, purpose: "login" }],
    ["an unknown member", { deviceKey, purpose: "registration", user: "me" }],
    ["a credential id with a registration", { deviceKey, purpose: "registration", credentialId }],
    ["an assertion without one", { deviceKey, purpose: "assertion" }],
    ["an empty one", { deviceKey, purpose: "assertion", credentialId: "" }],
    ["padding", { deviceKey, purpose: "assertion", credentialId: "AAA=" }],
    ["too long an id", { deviceKey, purpose: "assertion", credentialId: "A".repeat(1_400) }],
    ["a private key", { deviceKey: { ...deviceKey, d: deviceKey.x }, purpose: "registration" }],
    ["another curve", { deviceKey: { ...deviceKey, crv: "P-384" }, purpose: "registration" }],
    [
      "a second spelling of a coordinate",
      { deviceKey: { ...deviceKey, x: `${"A".repeat(42)}B` }, purpose: "registration" },
    ],
  ])("rejects options with %s", (_name, body) => {
    expect(codeOf(() => parseCeremonyRequest(body))).toBe("ATTEST_MESSAGE_INVALID");
  });

  it.each([
    [{}],
    [{ session: "", credential: {} }],
    [{ session: 1, credential: {} }],
    [{ session: "a" }],
  ])("rejects evidence %j", (body) => {
    expect(codeOf(() => parseCeremonyEvidence(body))).toBe("ATTEST_MESSAGE_INVALID");
  });

  it("accepts the two forms", () => {
    expect(parseCeremonyRequest({ deviceKey, purpose: "registration" })).toStrictEqual({
      deviceKey,
      purpose: "registration",
    });
    expect(parseCeremonyRequest({ deviceKey, purpose: "assertion", credentialId })).toStrictEqual({
      deviceKey,
      purpose: "assertion",
      credentialId: new Uint8Array(3),
    });
  });
});

describe("options of the attester", () => {
  it.each([
    [{ pseudonymSecret: new Uint8Array(31) }],
    [{ sessionMs: 0 }],
    [{ maxSessions: 0.5 }],
    [{ origins: [] }],
    [{ origins: ["http://login.example.org"] }],
    [{ origins: ["https://login.example.org/"] }],
    [{ origins: ["https://evilexample.org"] }],
    [{ origins: ["not an origin"] }],
  ])("rejects %j", (overrides) => {
    expect(() => createWorld(overrides)).toThrow(RangeError);
  });
});
