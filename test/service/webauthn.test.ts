/**
 * Browsers that attest by WebAuthn, over HTTPS: real `tpm` statements of a software TPM and `packed` ones go
 * from the first request to a token that admits; each refusal is a problem document; no mutation is a 5xx.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRemoteJWKSet, customFetch, jwtVerify } from "jose";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { decodeBase64Url } from "../../wire/index.ts";
import { seededRandom } from "../support/attester.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { openTpmAuthenticator, type TpmAuthenticator } from "../support/tpm-authenticator.ts";
import {
  createSoftAuthenticator,
  type CredentialJson,
  type Deviation,
  type SoftAuthenticator,
  withFlippedBit,
} from "../support/webauthn-authenticator.ts";
import {
  jsonOf,
  newPageKey,
  openCeremony,
  type PageKey,
  postJson,
  requestTokens,
  sendEvidence,
} from "../support/webauthn-page.ts";

const CASES = Number(process.env["WEBAUTHN_CASES"] ?? 96);
const running = useSwtpm([]);
let folder: string;
let target: TestSidecar;
let tpmKey: TpmAuthenticator;
let soft: SoftAuthenticator;
/** What is written in the whole run must hold none of these. */
const secrets = new Set<string>();

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "stile-webauthn-"));
  tpmKey = await openTpmAuthenticator({ tcti: running.swtpm.tcti });
  soft = createSoftAuthenticator();
  const fileOf = (name: string, pem: string): string => {
    const path = join(folder, `${name}.pem`);
    writeFileSync(path, pem);
    return path;
  };
  target = await startTestSidecar({
    attester: {
      webauthn: {
        enabled: true,
        rootFiles: { tpm: fileOf("tpm", tpmKey.rootPem), packed: fileOf("packed", soft.rootPem) },
        attestationsPerNetwork: 100_000,
        tokens: 3,
      },
    },
  });
});
afterAll(async () => {
  await tpmKey.close();
  await target.stop();
  rmSync(folder, { recursive: true, force: true });
});

interface Result {
  readonly attestationResult: string;
  readonly expiresIn: number;
}

const resultIn = (answer: ExchangeAnswer): Result => {
  expect(answer.status, Buffer.from(answer.body).toString()).toBe(200);
  const result = jsonOf(answer) as Result;
  secrets.add(result.attestationResult);
  return result;
};

/** The problem's type without its prefix, and the status. */
const refusalIn = (answer: ExchangeAnswer): string => {
  expect(answer.headers["content-type"]).toBe("application/problem+json");
  const { status, type } = problemIn(answer);
  expect(status).toBe(answer.status);
  return `${status} ${type.replace("urn:stile:problem:", "")}`;
};

const inputOf = (publicKey: {
  readonly challenge: string;
}): { challenge: string; rpId: string; origin: string } => {
  secrets.add(publicKey.challenge);
  return { challenge: publicKey.challenge, rpId: "localhost", origin: target.url };
};

async function attestSoftly(
  purpose: "registration" | "assertion",
  deviation: Deviation & { readonly rpId?: string; readonly origin?: string } = {},
  key: PageKey = newPageKey(),
): Promise<ExchangeAnswer> {
  const id = purpose === "assertion" ? soft.credentialId() : undefined;
  const { publicKey, session } = await openCeremony(target, key, id);
  const input = { ...inputOf(publicKey), ...deviation };
  const credential =
    id === undefined ? soft.register(input, deviation) : soft.authenticate(input, deviation);
  secrets.add(credential.id);
  secrets.add(session);
  secrets.add(key.jwk.x);
  return sendEvidence(target, session, credential);
}

async function claimsOf(jwt: string): Promise<Record<string, unknown>> {
  const keys = createRemoteJWKSet(new URL(`${target.url}/.well-known/jwks.json`), {
    [customFetch]: async () => {
      const { body } = await target.get("/.well-known/jwks.json");
      return new Response(Uint8Array.from(body));
    },
  });
  const { payload } = await jwtVerify(jwt, keys, { issuer: target.url, typ: "eat-ear+jwt" });
  return payload;
}

describe("a browser on a machine with a TPM", () => {
  it("registers, gets a token and is let in; comes back by an assertion, under the same name", async () => {
    const subjects: unknown[] = [];
    let credentialId: string | undefined;
    for (const _purpose of ["registration", "assertion"]) {
      const key = newPageKey();
      const opened = await openCeremony(target, key, credentialId);
      expect(opened.expiresIn).toBe(120);
      const input = inputOf(opened.publicKey);
      const ceremony = { ...input, challenge: decodeBase64Url(input.challenge) };
      const credential = await (credentialId === undefined
        ? tpmKey.register(ceremony)
        : tpmKey.authenticate(ceremony));
      credentialId = String(credential["id"]);
      secrets.add(credentialId);
      const result = resultIn(await sendEvidence(target, opened.session, credential));
      // JWT instants are whole seconds.
      expect([899, 900]).toContain(result.expiresIn);
      const claims = await claimsOf(result.attestationResult);
      subjects.push(claims["sub"]);
      expect(claims).toMatchObject({
        cnf: { jwk: key.jwk },
        "urn:stile:channel-binding": "none",
        submods: {
          webauthn: {
            "ear.status": "affirming",
            "ear.appraisal-policy-id": "urn:stile:policy:webauthn-anchored",
            "ear.trustworthiness-vector": { "instance-identity": 2, hardware: 2 },
          },
        },
      });
      const { tokens } = await requestTokens(target, key, result.attestationResult);
      const [authorization = ""] = await tokens();
      expect((await target.get("/", { authorization })).status).toBe(200);
      expect((await target.get("/", { authorization })).status).toBe(401);
    }
    expect(subjects[0]).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(subjects[1]).toBe(subjects[0]);
    secrets.add(String(subjects[0]));
  });
});

describe("a result", () => {
  it("is of use only with the device key that the ceremony was for, and within the credential's limit", async () => {
    const key = newPageKey();
    const { attestationResult } = resultIn(await attestSoftly("registration", {}, key));
    const stolen = await requestTokens(target, newPageKey(), attestationResult);
    expect(refusalIn(stolen.answer)).toBe("401 attest-proof-invalid");
    const greedy = await requestTokens(target, key, attestationResult, 4);
    expect(refusalIn(greedy.answer)).toBe("429 attest-allowance-exceeded");
    const modest = await requestTokens(target, key, attestationResult, 3);
    expect(await modest.tokens()).toHaveLength(3);
    // Another ceremony of the same credential, for another key: the same allowance.
    const other = newPageKey();
    const again = resultIn(await attestSoftly("assertion", {}, other));
    const more = await requestTokens(target, other, again.attestationResult);
    expect(refusalIn(more.answer)).toBe("429 attest-allowance-exceeded");
  });

  it("is refused, and so are new ones, where the operator revokes its subject", async () => {
    const key = newPageKey();
    const { attestationResult } = resultIn(await attestSoftly("registration", {}, key));
    const { sub } = await claimsOf(attestationResult);
    const revocation = await fetch(new URL("/revocations", target.sidecar.operatorAddress), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ kind: "device", name: sub }),
    });
    expect(revocation.status).toBe(204);
    const { answer } = await requestTokens(target, key, attestationResult);
    expect(refusalIn(answer)).toBe("403 attest-device-revoked");
    expect(refusalIn(await attestSoftly("assertion"))).toBe("403 attest-device-revoked");
  });
});

describe("evidence is refused", () => {
  beforeEach(async () => {
    resultIn(await attestSoftly("registration"));
  });
  const purposes = ["registration", "assertion"] as const;
  const wrong: readonly (readonly [string, Parameters<typeof attestSoftly>[1], string])[] = [
    [
      "challenge",
      { clientData: { challenge: Buffer.alloc(32, 1).toString("base64url") } },
      "403 attest-webauthn-challenge-mismatch",
    ],
    ["origin", { origin: "https://localhost" }, "403 attest-webauthn-origin-refused"],
    ["RP id", { rpId: "example.org" }, "400 attest-webauthn-authenticator-data-invalid"],
    ["user verification", { flags: 0x41 }, "403 attest-webauthn-user-absent"],
  ];
  it.each(purposes.flatMap((purpose) => wrong.map((row) => [purpose, ...row] as const)))(
    "%s: with another %s",
    async (purpose, _name, deviation, expected) => {
      const isFlags = deviation?.flags !== undefined && purpose === "assertion";
      const given = isFlags ? { flags: 0x01 } : deviation;
      expect(refusalIn(await attestSoftly(purpose, given))).toBe(expected);
    },
  );

  it("after its session was used, or has expired, or for a session of another device key", async () => {
    const opened = await openCeremony(target, newPageKey());
    const credential = soft.register(inputOf(opened.publicKey));
    resultIn(await sendEvidence(target, opened.session, credential));
    const unknown = "403 attest-session-unknown";
    expect(refusalIn(await sendEvidence(target, opened.session, credential))).toBe(unknown);
    const [mine, theirs] = [
      await openCeremony(target, newPageKey()),
      await openCeremony(target, newPageKey()),
    ];
    const forThem = soft.register(inputOf(theirs.publicKey));
    expect(refusalIn(await sendEvidence(target, mine.session, forThem))).toBe(
      "403 attest-webauthn-challenge-mismatch",
    );
    target.clock.offsetMs += 120_000;
    expect(refusalIn(await sendEvidence(target, theirs.session, forThem))).toBe(unknown);
  });

  it("with a flipped byte of what was signed, or of the signature", async () => {
    for (const [purpose, member, bit, expected] of [
      ["registration", "attestationObject", 8 * 200, /^40[03] attest-/],
      ["registration", "clientDataJSON", 8 * 20, /^40[03] /],
      ["assertion", "signature", 8 * 20, /^403 attest-signature-invalid$/],
      ["assertion", "authenticatorData", 8 * 36, /^403 attest-signature-invalid$/],
    ] as const) {
      const id = purpose === "assertion" ? soft.credentialId() : undefined;
      const { publicKey, session } = await openCeremony(target, newPageKey(), id);
      const input = inputOf(publicKey);
      const credential = id === undefined ? soft.register(input) : soft.authenticate(input);
      const mutated = withFlippedBit(credential, member, bit);
      expect(refusalIn(await sendEvidence(target, session, mutated))).toMatch(expected);
      if (id === undefined) resultIn(await attestSoftly("registration"));
    }
  });

  it("of an authenticator of an unknown maker, of none at all, or without a certificate", async () => {
    const stranger = createSoftAuthenticator();
    const { publicKey, session } = await openCeremony(target, newPageKey());
    const credential = stranger.register(inputOf(publicKey));
    expect(refusalIn(await sendEvidence(target, session, credential))).toBe(
      "403 attest-webauthn-chain-untrusted",
    );
    const none = { format: "none", statement: () => new Map<string, unknown>() };
    expect(refusalIn(await attestSoftly("registration", { plan: none }))).toBe(
      "403 attest-webauthn-format-refused",
    );
  });

  it("of a counter that went back, or of a credential that is not registered", async () => {
    expect(refusalIn(await attestSoftly("assertion", { signCount: 1 }))).toBe(
      "403 attest-webauthn-counter-invalid",
    );
    resultIn(await attestSoftly("assertion"));
    const opened = await openCeremony(target, newPageKey(), soft.credentialId());
    const input = inputOf(opened.publicKey);
    const stranger = createSoftAuthenticator();
    stranger.register(input);
    const credential: CredentialJson = stranger.authenticate(input);
    const expected = "403 attest-webauthn-credential-unknown";
    expect(refusalIn(await sendEvidence(target, opened.session, credential))).toBe(expected);
    // Told at once, too, so that nobody touches a key in vain.
    const body = { deviceKey: newPageKey().jwk, purpose: "assertion", credentialId: credential.id };
    expect(refusalIn(await postJson(target, "/attest/webauthn/options", body))).toBe(expected);
  });

  it("by its form", async () => {
    const malformed = "400 attest-message-invalid";
    for (const path of ["/attest/webauthn/options", "/attest/webauthn/evidence"]) {
      for (const body of [{}, [], "text", 7, { session: "a" }, { deviceKey: {}, purpose: "x" }]) {
        expect(refusalIn(await postJson(target, path, body))).toBe(malformed);
      }
      expect((await target.get(path)).status).toBe(404);
    }
    const { session } = await openCeremony(target, newPageKey());
    expect(refusalIn(await sendEvidence(target, session, { id: "AA" }))).toBe(malformed);
  });
});

describe("mutated evidence", () => {
  it("is never let in and never a fault of the service", { timeout: 600_000 }, async () => {
    resultIn(await attestSoftly("registration"));
    const random = seededRandom("http bits");
    const statuses: Record<number, number> = {};
    for (let i = 0; i < CASES; i += 1) {
      // Of a real TPM now and then, else of the quick one.
      const isTpm = i % 16 === 0;
      const opened = await openCeremony(target, newPageKey());
      const input = inputOf(opened.publicKey);
      const credential = isTpm
        ? ((await tpmKey.register({
            ...input,
            challenge: decodeBase64Url(input.challenge),
          })) as unknown as CredentialJson)
        : soft.register(input);
      const [high = 0, low = 0] = random(2);
      const member = i % 4 === 0 ? "clientDataJSON" : "attestationObject";
      const mutated = withFlippedBit(credential, member, high * 256 + low);
      const { status } = await sendEvidence(target, opened.session, mutated);
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
    expect(Object.keys(statuses).toSorted()).toStrictEqual(["400", "403"]);
  });
});

describe("logs and metrics", () => {
  it("G1: hold no credential id, session, challenge, key, result or name", async () => {
    const metrics = await (await fetch(`${target.sidecar.operatorAddress}/metrics`)).text();
    expect(metrics).toContain('stile_attestations_total{step="webauthn-evidence",outcome="OK"}');
    expect(metrics).toContain(
      'step="webauthn-evidence",outcome="ATTEST_WEBAUTHN_COUNTER_INVALID"} 1',
    );
    const written = `${target.lines.join("\n")}\n${metrics}`;
    expect(written).toContain("webauthn.swept");
    expect(secrets.size).toBeGreaterThan(CASES);
    for (const secret of secrets) {
      const hex = Buffer.from(secret, "base64url").toString("hex");
      expect(written.includes(secret) || written.includes(hex), secret).toBe(false);
    }
    expect(written).not.toContain("127.0.0");
  });
});
