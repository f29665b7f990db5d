/** CORS at the edge: preflights without a token, refusals that a listed page may read, and nothing for others. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { checkConfig } from "../../service/config/index.ts";
import { codeOf } from "../support/reject.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const LISTED = "https://app.example";
let target: TestSidecar;
beforeAll(async () => {
  target = await startTestSidecar({ edge: { cors: { origins: [LISTED] } } });
});
afterAll(() => target.stop());

const preflight = (headers: Record<string, string>, path = "/api"): Promise<ExchangeAnswer> =>
  exchange({ url: target.url + path, method: "OPTIONS", headers, ca: target.ca });

describe("a preflight", () => {
  it.each(["/api", "/token-request", "/attest/webauthn/options"])(
    "of a listed origin is answered without a token, and without the upstream: %s",
    async (path) => {
      const before = target.upstream.hits();
      const answer = await preflight(
        {
          origin: LISTED,
          "access-control-request-method": "PUT",
          "access-control-request-headers": "authorization, x-own",
        },
        path,
      );
      expect(answer.status).toBe(204);
      expect(answer.headers).toMatchObject({
        "access-control-allow-origin": LISTED,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "PUT",
        "access-control-allow-headers": "authorization, x-own",
      });
      expect(answer.headers["vary"]).toContain("origin");
      expect(target.upstream.hits()).toBe(before);
    },
  );

  it.each([
    ["of another origin", { origin: "https://evil.example" }],
    ["of an origin that a listed one is part of", { origin: "https://app.example.evil.example" }],
    ["of no origin", { origin: "null" }],
  ])("%s gets what any request gets", async (_name, headers) => {
    const answer = await preflight({ ...headers, "access-control-request-method": "GET" });
    expect(answer.status).toBe(401);
    expect(answer.headers["access-control-allow-origin"]).toBeUndefined();
    expect(answer.headers["vary"]).toContain("origin");
  });

  it("echoes nothing that is no list of names", async () => {
    const base = { origin: LISTED, "access-control-request-method": "GET" };
    const odd = { ...base, "access-control-request-headers": "a b" };
    expect((await preflight(odd)).headers["access-control-allow-headers"]).toBeUndefined();
    const method = { ...base, "access-control-request-method": "GET;x" };
    expect((await preflight(method)).status).toBe(401);
  });

  it("is not any OPTIONS request", async () => {
    expect((await preflight({ origin: LISTED })).status).toBe(401);
  });
});

describe("a refusal", () => {
  it("can be read by a listed page, challenge and all, and by no other", async () => {
    const listed = await target.get("/api", { origin: LISTED });
    expect(listed.status).toBe(401);
    expect(listed.headers).toMatchObject({
      "access-control-allow-origin": LISTED,
      "access-control-expose-headers": "www-authenticate, retry-after, dpop-nonce",
    });
    const other = await target.get("/api", { origin: "https://evil.example" });
    expect(other.headers["access-control-allow-origin"]).toBeUndefined();
    expect((await target.get("/api")).headers["access-control-allow-origin"]).toBeUndefined();
  });

  it("of Stile's own endpoints can, too", async () => {
    const answer = await target.post("/token-request", "", { origin: LISTED });
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.headers["access-control-allow-origin"]).toBe(LISTED);
  });

  it("leaves the application's answers to the application", async () => {
    const authorization = await target.mint();
    const answer = await target.get("/api", { origin: LISTED, authorization });
    expect(answer.status).toBe(200);
    expect(answer.headers["access-control-allow-origin"]).toBeUndefined();
  });
});

describe("a setting", () => {
  it.each(["*", "app.example", "https://app.example/", "https://App.example", "null"])(
    "rejects %s as an origin",
    (origin) => {
      const edge = { hosts: ["a"], issuerName: "a", upstream: "http://127.0.0.1:1" };
      const config = {
        publicUrl: "https://a.example",
        passphraseFile: "p",
        tls: { certificateFile: "c", keyFile: "k" },
        attester: { manufacturerRootsFile: "r" },
        edge: { ...edge, cors: { origins: [origin] } },
      };
      expect(codeOf(() => checkConfig(config))).toBe("SERVICE_CONFIG_INVALID");
    },
  );
});
