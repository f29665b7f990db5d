/** Stile's own endpoints: what good requests get, and what each kind of bad one gets. */
import { createHash, randomBytes } from "node:crypto";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  attest,
  connectTransport,
  createDpopProof,
  type Device,
  openDevice,
} from "../../attest/agent/index.ts";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { openManufacturerCa, startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import {
  encodeGenericBatchTokenRequest,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_TOKEN_REQUEST,
  parseIssuerDirectory,
} from "../../tokens/index.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const DIRECTORY = "/.well-known/private-token-issuer-directory";
const json = { "content-type": "application/json" };
const ALLOWANCE = 40;

let target: TestSidecar;
let tpm: Swtpm;
let device: Device;

beforeAll(async () => {
  target = await startTestSidecar({
    attester: { allowance: { tokens: ALLOWANCE, windowSeconds: 86_400 } },
    issuer: { maxBatch: 20 },
  });
  const folder = join(target.dir, "manufacturer");
  tpm = await startSwtpm({
    ca: await openManufacturerCa({ clock: Date.now, folder }),
    ekAlgorithms: ["ecc"],
  });
  device = await openDevice({ tcti: tpm.tcti, ekAlgorithm: "ecc" });
});

afterAll(async () => {
  await device.close();
  await tpm.stop();
  await target.stop();
});

const problemOf = (answer: ExchangeAnswer): string => {
  expect(answer.headers["content-type"]).toBe("application/problem+json");
  const problem = problemIn(answer);
  expect(problem.status).toBe(answer.status);
  return problem.type.replace("urn:stile:problem:", "");
};

async function attestedResult(): Promise<string> {
  const transport = await connectTransport({
    origin: target.url,
    ca: target.ca,
    timeoutMs: 10_000,
  });
  try {
    return (await attest({ device, transport, clock: Date.now })).attestationResult;
  } finally {
    transport.close();
  }
}

async function tokenRequest(
  accessToken: string,
  mediaType: string,
  body: Uint8Array,
  uri = `${target.url}/token-request`,
): Promise<ExchangeAnswer> {
  const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));
  const dpop = await createDpopProof({
    device,
    method: "POST",
    uri,
    accessToken,
    clock: Date.now,
    random,
  });
  return target.post("/token-request", body, {
    authorization: `DPoP ${accessToken}`,
    dpop,
    "content-type": mediaType,
  });
}

async function blinded(count: number): Promise<Uint8Array> {
  const { tokenKey } = await target.challenge();
  const truncatedTokenKeyId = createHash("sha256").update(tokenKey!).digest()[31]!;
  return encodeGenericBatchTokenRequest(
    Array.from({ length: count }, () => ({
      tokenType: 2,
      truncatedTokenKeyId,
      blindedMessage: Uint8Array.from(randomBytes(256).fill(1, 0, 1)),
    })),
  );
}

describe("the issuer directory", () => {
  it("is the same bytes for everyone, cacheable, with a strong ETag", async () => {
    const answer = await target.get(DIRECTORY);
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe("application/private-token-issuer-directory");
    expect(answer.headers["cache-control"]).toMatch(/^public, max-age=8\d{4}$/);
    const etag = answer.headers["etag"] ?? "";
    expect(etag).toMatch(/^"[\w-]+"$/);
    const directory = parseIssuerDirectory(answer.body);
    expect(directory.tokenKeys[0]?.tokenKey).toEqual((await target.challenge()).tokenKey);
    expect((await target.get(DIRECTORY)).body).toEqual(answer.body);
    for (const header of [etag, `"x", W/${etag}`, "*"]) {
      const cached = await target.get(DIRECTORY, { "if-none-match": header });
      expect([cached.status, cached.body.length]).toEqual([304, 0]);
    }
    expect((await target.get(DIRECTORY, { "if-none-match": '"other"' })).status).toBe(200);
  });
});

describe("token requests", () => {
  it("are refused without an attestation result, or with one but no proof", async () => {
    const headers = { "content-type": MEDIA_TYPE_TOKEN_REQUEST };
    const bare = await target.post("/token-request", new Uint8Array(259), headers);
    expect([bare.status, problemOf(bare)]).toEqual([401, "attest-result-invalid"]);
    expect(bare.headers["www-authenticate"]).toBe('DPoP algs="ES256"');
    const authorization = `DPoP ${await attestedResult()}`;
    const proofless = await target.post("/token-request", new Uint8Array(259), {
      ...headers,
      authorization,
    });
    expect([proofless.status, problemOf(proofless)]).toEqual([401, "attest-proof-invalid"]);
    const forged = await tokenRequest(
      `${await attestedResult()}x`,
      MEDIA_TYPE_TOKEN_REQUEST,
      new Uint8Array(259),
    );
    expect([forged.status, problemOf(forged)]).toEqual([401, "attest-result-invalid"]);
  });

  it("are refused with the status of the RFC, and cost nothing of the allowance", async () => {
    const result = await attestedResult();
    const refused = async (mediaType: string, body: Uint8Array): Promise<[number, string]> => {
      const answer = await tokenRequest(result, mediaType, body);
      return [answer.status, problemOf(answer)];
    };
    const known = (await blinded(1)).slice(2);
    const unknownKey = Uint8Array.from(known).fill((known[2]! + 1) & 0xff, 2, 3);
    const single = MEDIA_TYPE_TOKEN_REQUEST;
    const batch = MEDIA_TYPE_GENERIC_BATCH_REQUEST;
    expect(await refused(single, known.slice(1))).toEqual([422, "token-type-unsupported"]);
    expect(await refused(single, known.slice(0, -1))).toEqual([422, "token-request-invalid"]);
    expect(await refused(single, unknownKey)).toEqual([422, "token-key-unknown"]);
    expect(await refused(single, Uint8Array.of(0, 9, 1))).toEqual([422, "token-type-unsupported"]);
    expect(await refused(single, Uint8Array.from(known).fill(0xff, 3))).toEqual([
      422,
      "token-request-invalid",
    ]);
    expect(await refused(batch, await blinded(21))).toEqual([422, "token-batch-too-large"]);
    expect(await refused(batch, Uint8Array.of(0x40))).toEqual([422, "token-request-invalid"]);
    expect(await refused("text/plain", known)).toEqual([415, "service-media-type-unsupported"]);
    expect(await refused("application/json", new Uint8Array(2))).toEqual([
      400,
      "service-request-invalid",
    ]);
    expect(await refused(single, new Uint8Array(600_000))).toEqual([413, "service-body-too-large"]);
    // All of the allowance is still there, and no more than that.
    for (let i = 0; i < 2; i += 1)
      expect((await tokenRequest(result, batch, await blinded(20))).status).toBe(200);
    const over = await tokenRequest(result, single, known);
    expect([over.status, problemOf(over)]).toEqual([429, "attest-allowance-exceeded"]);
    expect(Number(over.headers["retry-after"])).toBeGreaterThan(0);
    // Attesting anew, as the same device, brings no new allowance.
    expect((await tokenRequest(await attestedResult(), single, known)).status).toBe(429);
    target.clock.offsetMs += 86_400_000;
    const later = await tokenRequest(await attestedResult(), single, known).catch(() => undefined);
    // A day later by the sidecar's clock the proof is stale: the device's clock did not move.
    expect(later?.status).toBe(401);
    target.clock.offsetMs = 0;
  });

  it("are refused with a proof for another place", async () => {
    const elsewhere = await tokenRequest(
      await attestedResult(),
      MEDIA_TYPE_TOKEN_REQUEST,
      new Uint8Array(259),
      "https://other.example/token-request",
    );
    expect([elsewhere.status, problemOf(elsewhere)]).toEqual([401, "attest-proof-invalid"]);
  });
});

describe("attestation endpoints", () => {
  it("G2: refuse what is no message, and what proves nothing, and count each by its code", async () => {
    const post = async (
      path: string,
      body: string,
      headers: Record<string, string> = json,
    ): Promise<unknown[]> => {
      const answer = await target.post(path, body, headers);
      return [answer.status, problemOf(answer)];
    };
    const challenge = "/attest/tpm/challenge";
    expect(await post(challenge, "{")).toEqual([400, "service-request-invalid"]);
    expect(await post(challenge, "")).toEqual([400, "service-request-invalid"]);
    expect(await post(challenge, "null")).toEqual([400, "attest-message-invalid"]);
    expect(await post(challenge, '{"__proto__":{}}')).toEqual([400, "service-request-invalid"]);
    expect(await post(challenge, "{}", { "content-type": "text/xml" })).toEqual([
      415,
      "service-media-type-unsupported",
    ]);
    const body = JSON.stringify({ ekCertificates: ["AA"], ekPublic: "AA", akPublic: "AA" });
    expect(await post(challenge, body)).toEqual([400, "wire-too-short"]);
    const evidence = JSON.stringify({
      session: "none",
      activatedSecret: "AA",
      quote: { attest: "AA", signature: "AA" },
      pcrValues: [{ hash: "sha256", pcr: 0, value: "AA" }],
      deviceKey: { public: "AA", attest: "AA", signature: "AA" },
    });
    expect(await post("/attest/tpm/evidence", evidence)).toEqual([403, "attest-session-unknown"]);
    const metrics = await (await fetch(`${target.sidecar.operatorAddress}/metrics`)).text();
    for (const [step, outcome] of [
      ["challenge", "ATTEST_MESSAGE_INVALID"],
      ["challenge", "WIRE_TOO_SHORT"],
      ["evidence", "ATTEST_SESSION_UNKNOWN"],
    ]) {
      const name = `stile_attestations_total{step="${step}",outcome="${outcome}"}`;
      expect(metrics.split("\n")).toContain(`${name} 1`);
    }
  });
});

describe("redemption for other programs", () => {
  it("/.stile/redeem redeems once and says how", async () => {
    const token = /"(?<token>.*)"/.exec(await target.mint())?.groups?.["token"] ?? "";
    const redeem = (body: unknown, headers: Record<string, string> = {}): Promise<ExchangeAnswer> =>
      target.post("/.stile/redeem", JSON.stringify(body), { ...json, ...headers });
    const first = await redeem({ token, host: target.host }, { "idempotency-key": "a" });
    expect(first.status).toBe(200);
    const answer = JSON.parse(Buffer.from(first.body).toString()) as Record<string, unknown>;
    expect(answer).toMatchObject({ admitted: true, by: "token" });
    const cookie = `__Host-stile=${String(answer["clearance"])}`;
    expect((await target.get("/", { cookie })).status).toBe(200);
    const again = await redeem({ token, host: target.host }, { "idempotency-key": "a" });
    expect(JSON.parse(Buffer.from(again.body).toString())).toMatchObject({ by: "repeat" });
    const replay = await redeem({ token, host: target.host });
    expect([replay.status, problemOf(replay)]).toEqual([401, "token-already-spent"]);
    expect(replay.headers["www-authenticate"]).toMatch(/^PrivateToken /);
    for (const [body, status, type] of [
      [{ token, host: "evil.example" }, 421, "service-host-unknown"],
      [{ token: "!!", host: target.host }, 400, "wire-bad-encoding"],
      [{ token }, 400, "service-request-invalid"],
      [{ token, host: target.host, more: 1 }, 400, "service-request-invalid"],
      [{ token: 5, host: target.host }, 400, "service-request-invalid"],
    ] as const) {
      const refused = await redeem(body);
      expect([refused.status, problemOf(refused)]).toEqual([status, type]);
    }
  });

  it("/.stile/authorize answers other proxies by the header that is configured, or not at all", async () => {
    expect((await target.get("/.stile/authorize", { "x-original-host": target.host })).status).toBe(
      404,
    );
    const modes = { original: "x-original-host", forwarded: "x-forwarded-host" } as const;
    for (const [headers, name] of Object.entries(modes)) {
      const asked = await startTestSidecar({
        listen: { trustedProxies: ["127.0.0.0/8"] },
        edge: { authorize: { headers: headers as keyof typeof modes } },
      });
      try {
        const authorize = (more: Record<string, string>): Promise<ExchangeAnswer> =>
          asked.get("/.stile/authorize", { "x-forwarded-for": "192.0.2.7", ...more });
        expect((await authorize({})).status).toBe(403);
        expect((await authorize({ [name]: "evil.example" })).status).toBe(403);
        const challenged = await authorize({ [name]: asked.host });
        expect(challenged.status).toBe(401);
        expect(challenged.headers["www-authenticate"]).toMatch(/^PrivateToken /);
        const allowed = await authorize({ [name]: asked.host, authorization: await asked.mint() });
        expect(allowed.status).toBe(200);
        expect(allowed.headers["stile-admission"]).toBe("token");
        const cookie = allowed.headers["set-cookie"]?.[0]?.split(";")[0] ?? "";
        const cleared = await authorize({ [name]: asked.host, cookie });
        expect([cleared.status, cleared.headers["stile-admission"]]).toEqual([200, "clearance"]);
        expect(asked.upstream.hits()).toBe(0);
      } finally {
        await asked.stop();
      }
    }
  });

  it("publishes the keys of clearances, results and its log, without private parts", async () => {
    const answer = await target.get("/.well-known/jwks.json");
    const { keys } = JSON.parse(Buffer.from(answer.body).toString()) as {
      keys: Record<string, string>[];
    };
    expect(keys).toHaveLength(3);
    for (const key of keys) {
      expect(key).toMatchObject({ kty: "EC", crv: "P-256", alg: "ES256", use: "sig" });
      expect(key["d"]).toBeUndefined();
    }
  });
});

describe("limits", () => {
  it("rejects unknown paths and methods below its own prefixes", async () => {
    for (const path of ["/.stile/nothing", "/attest/", "/attest/tpm/challenge/"]) {
      const answer = await target.get(path);
      expect([answer.status, problemOf(answer)]).toEqual([404, "service-not-found"]);
    }
  });

  it("limits requests of one address to its own endpoints, and nothing else", async () => {
    const limited = await startTestSidecar({ limits: { requestsPerMinute: 5 } });
    try {
      for (let i = 0; i < 5; i += 1) expect((await limited.get(DIRECTORY)).status).toBe(200);
      const over = await limited.get(DIRECTORY);
      expect([over.status, problemOf(over)]).toEqual([429, "service-rate-limited"]);
      expect(Number(over.headers["retry-after"])).toBeGreaterThan(0);
      expect((await limited.get("/")).status).toBe(401);
    } finally {
      await limited.stop();
    }
  });
});

describe("the operator listener", () => {
  const operator = (path: string): Promise<{ status: number; body: string }> =>
    new Promise((resolve, reject) => {
      const asked = httpRequest(`${target.sidecar.operatorAddress}${path}`, (response) => {
        response.toArray().then(
          (parts) =>
            resolve({
              status: response.statusCode ?? 0,
              body: Buffer.concat(parts as Buffer[]).toString(),
            }),
          reject,
        );
      });
      asked.once("error", reject).end();
    });

  it("says how it is", async () => {
    expect((await operator("/livez")).status).toBe(200);
    expect((await operator("/readyz")).status).toBe(200);
    const metrics = (await operator("/metrics")).body;
    expect(metrics).toContain('stile_issuer_keys{state="active"} 1');
    expect(metrics).toContain('stile_token_requests_total{outcome="TOKEN_KEY_UNKNOWN"}');
    const { keys } = JSON.parse((await operator("/keys")).body) as { keys: { state: string }[] };
    expect(keys.map(({ state }) => state)).toEqual(["active"]);
    const openapi = JSON.parse((await operator("/openapi.json")).body) as {
      openapi: string;
      paths: object;
    };
    expect(openapi.openapi).toBe("3.1.0");
    expect(Object.keys(openapi.paths)).toContain("/token-request");
  });
});
