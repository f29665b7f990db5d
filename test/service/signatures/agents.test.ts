/** An edge that lets in agents by their signatures: what passes, what the upstream hears of it, and key files. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EdgeAgentConfig } from "../../../service/config/index.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../../support/sidecar.ts";
import { newAgentKeys, signedHeaders, type SignedFields } from "../../support/signing-agent.ts";

const dir = mkdtempSync(join(tmpdir(), "stile-agents-"));
afterAll(() => rmSync(dir, { recursive: true }));

const crawler = newAgentKeys("crawler");
const jwksFile = join(dir, "crawler.json");
writeFileSync(jwksFile, crawler.jwks);

const agent = (fields: Partial<EdgeAgentConfig> = {}): EdgeAgentConfig => ({
  name: "crawler",
  jwksFile,
  components: ["@method", "@target-uri"],
  nonce: "optional",
  maxAgeSeconds: 300,
  ...fields,
});

function signed(
  { clock, host }: TestSidecar,
  path: string,
  fields: Partial<SignedFields> = {},
): Record<string, string> {
  const createdMs = Date.now() + clock.offsetMs;
  return signedHeaders({
    host,
    path,
    key: crawler.privateKey,
    kid: "crawler",
    createdMs,
    ...fields,
  });
}

const headersIn = (body: Uint8Array): Record<string, string> =>
  (JSON.parse(Buffer.from(body).toString()) as { headers: Record<string, string> }).headers;

describe("an edge with a rule for agents", () => {
  let target: TestSidecar;
  beforeAll(async () => {
    const rules = [
      { name: "admin", action: "block", paths: ["/admin"] },
      { name: "crawlers", action: "open", methods: ["GET"], agents: ["crawler"] },
    ] as const;
    target = await startTestSidecar({ edge: { rules, agents: [agent()] } });
  });
  afterAll(() => target.stop());

  it("forwards what the agent signed, and says by whom, whatever the client says", async () => {
    const forged = { "stile-agent": "other", "stile-admission": "token" };
    const answer = await target.get("/a?b=1", { ...signed(target, "/a?b=1"), ...forged });
    expect(answer.status).toBe(200);
    expect(headersIn(answer.body)).toMatchObject({
      "stile-admission": "agent",
      "stile-agent": "crawler",
    });
    const text = await target.sidecar.metrics.registry.metrics();
    expect(text).toMatch(/stile_admissions_total\{by="agent"\} 1/);
    expect(text).toMatch(/stile_agent_signatures_total\{outcome="OK"\} 1/);
    expect(text).toMatch(/stile_rule_verdicts_total\{rule="crawlers",verdict="open"\} 1/);
  });

  it("challenges a replay and says so, and keeps it from the upstream", async () => {
    const headers = signed(target, "/once");
    expect((await target.get("/once", headers)).status).toBe(200);
    const before = target.upstream.hits();
    const again = await target.get("/once", headers);
    expect(again.status).toBe(401);
    expect(again.headers["www-authenticate"]).toContain("PrivateToken");
    expect(problemIn(again).type).toBe("urn:stile:problem:service-signature-replayed");
    expect(target.upstream.hits()).toBe(before);
  });

  it.each([
    ["another path", "/b", {}, "invalid"],
    ["another key", "/a", { key: newAgentKeys("x").privateKey }, "invalid"],
    ["an unknown key", "/a", { kid: "x" }, "key-unknown"],
    ["another method", "/a", { method: "POST" }, "invalid"],
  ])("challenges a signature over %s", async (_, path, fields, what) => {
    const before = target.upstream.hits();
    const answer = await target.get("/a", signed(target, path, fields));
    expect(answer.status).toBe(401);
    expect(problemIn(answer).type).toBe(`urn:stile:problem:service-signature-${what}`);
    expect(target.upstream.hits()).toBe(before);
  });

  it("asks everybody else for a token, and takes one beside a signature that is wrong", async () => {
    expect(problemIn(await target.get("/a")).type).toBe("urn:stile:problem:service-token-required");
    const headers = { ...signed(target, "/b"), authorization: await target.mint() };
    const paid = await target.get("/a", headers);
    expect(headersIn(paid.body)["stile-admission"]).toBe("token");
    expect(headersIn(paid.body)["stile-agent"]).toBeUndefined();
  });

  it("does not use up a signature where another part of the rule does not match, or an earlier rule does", async () => {
    const headers = signed(target, "/admin");
    expect((await target.get("/admin", headers)).status).toBe(403);
    const text = await target.sidecar.metrics.registry.metrics();
    const uses = /agent_signatures_total\{outcome="OK"\} (\d+)/.exec(text)?.[1];
    const posted = await target.post("/a", "x", signed(target, "/a", { method: "POST" }));
    expect(posted.status).toBe(401);
    expect(await target.sidecar.metrics.registry.metrics()).toContain(
      `agent_signatures_total{outcome="OK"} ${uses}\n`,
    );
  });

  it("changes keys with their file at SIGHUP, keeps them where it is broken, and logs both", async () => {
    const next = newAgentKeys("crawler-2");
    writeFileSync(jwksFile, "{");
    target.sidecar.reloadCertificates();
    expect((await target.get("/a", signed(target, "/a"))).status).toBe(200);
    writeFileSync(jwksFile, next.jwks);
    target.sidecar.reloadCertificates();
    expect((await target.get("/a", signed(target, "/a"))).status).toBe(401);
    const fields = { key: next.privateKey, kid: "crawler-2" };
    expect((await target.get("/a", signed(target, "/a", fields))).status).toBe(200);
    const said = target.lines.filter((line) => line.includes("edge.agents"));
    expect(said.map((line) => (JSON.parse(line) as { event: string }).event)).toEqual([
      "edge.agents-failed",
      "edge.agents-loaded",
    ]);
    writeFileSync(jwksFile, crawler.jwks);
    target.sidecar.reloadCertificates();
  });
});

describe("the settings of agents", () => {
  const rule = { name: "r", action: "open", agents: ["crawler"] } as const;
  it.each([
    ["an agent that no rule names", { agents: [agent()] }, "no rule names the agent crawler"],
    ["a rule that names another", { agents: [], rules: [rule] }, "not one of edge.agents"],
    ["two of one name", { agents: [agent(), agent()], rules: [rule] }, "two agents have one name"],
    [
      "two with one key",
      {
        agents: [agent(), agent({ name: "b" })],
        rules: [rule, { ...rule, name: "s", agents: ["b"] }],
      },
      "two keys have one id",
    ],
    [
      "a key file that is missing",
      { agents: [agent({ jwksFile: join(dir, "missing") })], rules: [rule] },
      "cannot be read",
    ],
  ])("rejects %s", async (_, edge, message) => {
    await expect(startTestSidecar({ edge })).rejects.toMatchObject({
      code: "SERVICE_CONFIG_INVALID",
      message: expect.stringContaining(message) as string,
    });
  });
});
