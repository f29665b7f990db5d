/** Client certificates at a whole edge: what they admit, what the upstream hears, and where they do not count. */
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { request as httpsRequest } from "node:https";
import { X509Certificate } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ClientCertificatesConfig, EdgeRuleConfig } from "../../service/config/index.ts";
import { compileRules } from "../../service/edge/rules.ts";
import { type IssuedFiles, opensslCa, type OpensslCa } from "../support/openssl-ca.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const ID = "spiffe://example.org/web";
let ca: OpensslCa;
let server: IssuedFiles;
let client: IssuedFiles;
let stranger: IssuedFiles;

beforeAll(() => {
  ca = opensslCa("the ca");
  const subjectAltName = "DNS:need.test,DNS:may.test,DNS:open.test";
  server = ca.issue({ name: "server", subjectAltName });
  const fields = { extendedKeyUsage: "clientAuth" };
  client = ca.issue({ name: "web", subjectAltName: `URI:${ID}`, ...fields });
  stranger = ca.issue({
    name: "other",
    subjectAltName: "URI:spiffe://example.org/other",
    ...fields,
  });
});
afterAll(() => ca.remove());

const rule = (fields: Partial<ClientCertificatesConfig> = {}): ClientCertificatesConfig => ({
  name: "workloads",
  hosts: ["need.test"],
  mode: "required",
  caFile: ca?.caFile ?? "ca.pem",
  allow: { spiffe: [ID] },
  upstream: "certificate",
  ...fields,
});

const HOSTS = ["need.test", "may.test", "open.test"];
const RULES: readonly EdgeRuleConfig[] = [
  { name: "echo", action: "open", paths: ["/echo"] },
  {
    name: "workloads",
    action: "token-or-certificate",
    paths: ["/api"],
    certificates: ["workloads", "maybe"],
  },
];

interface Asked {
  readonly host: string;
  /** Server name of the handshake; the host unless it is said. */
  readonly servername?: string;
  readonly path?: string;
  readonly files?: IssuedFiles;
  readonly headers?: Record<string, string>;
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

function tlsOf({ files, host, servername }: Asked, { port }: TestSidecar): object {
  return {
    host: "127.0.0.1",
    port,
    servername: servername ?? host,
    ca: ca.pem,
    checkServerIdentity: () => undefined,
    ...(files && {
      cert: readFileSync(files.certificateFile),
      key: readFileSync(files.keyFile),
    }),
  };
}

function askHttp1(target: TestSidecar, asked: Asked): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { headers, host, path = "/api" } = asked;
    const options = { ...tlsOf(asked, target), path, headers: { host, ...headers }, agent: false };
    const sent = httpsRequest(options, (response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => (body += chunk.toString()));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    });
    sent.on("error", reject).end();
  });
}

async function askHttp2(target: TestSidecar, asked: Asked): Promise<Answer> {
  const { headers, host, path = "/api" } = asked;
  const session = connectHttp2(`https://127.0.0.1:${target.port}`, tlsOf(asked, target));
  try {
    return await new Promise<Answer>((resolve, reject) => {
      session.once("error", reject);
      const stream = session.request({ ":authority": host, ":path": path, ...headers });
      let [status, body] = [0, ""];
      stream.on("response", (head) => (status = head[":status"] ?? 0));
      stream.on("data", (chunk: Buffer) => (body += chunk.toString()));
      stream.once("error", reject);
      // Its end without an answer is that of the connection.
      stream.once("end", () =>
        status === 0 ? reject(new Error("cut")) : resolve({ status, body }),
      );
    });
  } finally {
    session.destroy();
  }
}

const headersIn = ({ body }: Answer): Record<string, string> =>
  (JSON.parse(body) as { headers: Record<string, string> }).headers;

const der = (files: IssuedFiles): string =>
  `:${new X509Certificate(readFileSync(files.certificateFile)).raw.toString("base64")}:`;

describe.each([
  ["HTTP/1.1, fast", askHttp1, true],
  ["HTTP/1.1", askHttp1, false],
  ["HTTP/2", askHttp2, true],
] as const)("an edge with client certificates, over %s", (_, ask, fastPath) => {
  let target: TestSidecar;
  beforeAll(async () => {
    const maybe = rule({
      name: "maybe",
      hosts: ["may.test"],
      mode: "optional",
      upstream: "identity",
    });
    target = await startTestSidecar({
      tls: { ...server, clientCertificates: [rule(), maybe] },
      edge: { hosts: HOSTS, rules: RULES, fastPath },
    });
  });
  afterAll(() => target.stop());

  it("admits a verified client without a token, and tells the upstream who it is", async () => {
    const forged = {
      "client-cert": ":AAAA:",
      "client-cert-chain": ":AAAA:",
      "stile-client-identity": "x",
    };
    const answer = await ask(target, { host: "need.test", files: client, headers: forged });
    expect(answer.status).toBe(200);
    const headers = headersIn(answer);
    expect(headers).toMatchObject({ "stile-admission": "certificate", "client-cert": der(client) });
    expect(headers["client-cert-chain"]).toBeUndefined();
    expect(headers["stile-client-identity"]).toBeUndefined();
    const other = headersIn(
      await ask(target, { host: "may.test", files: client, headers: forged }),
    );
    expect(other).toMatchObject({ "stile-admission": "certificate", "stile-client-identity": ID });
    expect(other["client-cert"]).toBeUndefined();
    expect(await target.sidecar.metrics.registry.metrics()).toMatch(
      /stile_admissions_total\{by="certificate"\} 2/,
    );
  });

  it("admits nobody else by one: not without, not by another, not where no rule says so", async () => {
    const before = target.upstream.hits();
    expect((await ask(target, { host: "may.test" })).status).toBe(401);
    expect((await ask(target, { host: "may.test", files: stranger })).status).toBe(401);
    expect((await ask(target, { host: "may.test", files: client, path: "/" })).status).toBe(401);
    expect((await ask(target, { host: "need.test", files: client, path: "/" })).status).toBe(401);
    expect((await ask(target, { host: "open.test", files: client })).status).toBe(401);
    await expect(ask(target, { host: "need.test" })).rejects.toThrow();
    await expect(ask(target, { host: "need.test", files: stranger })).rejects.toThrow();
    expect(target.upstream.hits()).toBe(before);
  });

  it("lets nobody say that they have one, where they have none", async () => {
    const headers = { "client-cert": ":AAAA:", "stile-client-identity": ID };
    const answer = await ask(target, { host: "open.test", path: "/echo", headers });
    expect(headersIn(answer)["client-cert"]).toBeUndefined();
    expect(headersIn(answer)["stile-client-identity"]).toBeUndefined();
  });

  it("rejects a request for a host that its connection was not made for with 421, its own endpoints too", async () => {
    const before = target.upstream.hits();
    for (const [servername, host] of [
      ["open.test", "need.test"],
      ["open.test", "may.test"],
      ["may.test", "need.test"],
      ["need.test", "may.test"],
      ["need.test", "open.test"],
    ] as const) {
      for (const path of ["/api", "/echo", "/.well-known/jwks.json"]) {
        const answer = await ask(target, { servername, host, path, files: client });
        expect(answer.status, `${servername} ${host} ${path}`).toBe(421);
        expect(answer.body).toContain("tls-client-misdirected");
      }
    }
    expect(target.upstream.hits()).toBe(before);
  });
});

describe("the settings of client certificates", () => {
  const edge = { hosts: HOSTS };
  it.each([
    ["a host that is not served", [rule({ hosts: ["x.test"] })], edge, "not one of edge.hosts"],
    ["one host twice", [rule(), rule({ name: "b" })], edge, "two have one host"],
    ["one name twice", [rule(), rule({ hosts: ["may.test"] })], edge, "two have one name"],
    [
      "a pattern that is no SPIFFE ID",
      [rule({ allow: { spiffe: ["spiffe://Example.org/*"] } })],
      edge,
      "expected a SPIFFE ID",
    ],
    ["an empty list of names", [rule({ allow: {} })], edge, "allow"],
    [
      "the questions of another proxy",
      [rule()],
      { ...edge, authorize: { headers: "original" } },
      "must be off",
    ],
  ] as [string, ClientCertificatesConfig[], object, string][])("rejects %s", async (...row) => {
    const [, clientCertificates, edgeSettings, message] = row;
    const listen = { trustedProxies: ["127.0.0.0/8"] };
    const started = startTestSidecar({ listen, tls: { clientCertificates }, edge: edgeSettings });
    await expect(started).rejects.toMatchObject({
      code: "SERVICE_CONFIG_INVALID",
      message: expect.stringContaining(message) as string,
    });
  });

  it.each([
    [{ action: "token-or-certificate" }, "which needs them"],
    [{ action: "open", certificates: ["workloads"] }, "certificates are for token-or-certificate"],
    [{ action: "token-or-certificate", certificates: ["x"] }, "not one of tls.clientCertificates"],
  ] as const)("rejects the rule %j", (fields, message) => {
    const compile = (): unknown =>
      compileRules([{ name: "r", ...fields }], HOSTS, { certificates: ["workloads"] });
    expect(compile).toThrow(message);
  });

  it("let no reading of a path be admitted by a certificate that another reading's rule does not name", () => {
    const rules = compileRules(
      [
        { name: "a", action: "token-or-certificate", paths: ["/API"], certificates: ["a"] },
        { name: "b", action: "token-or-certificate", certificates: ["b"] },
      ],
      HOSTS,
      { certificates: ["a", "b"] },
    );
    const judge = (path: string): string =>
      rules.judge({
        host: "need.test",
        method: "GET",
        target: path,
        remoteAddress: undefined,
        isMethodOverridden: false,
      }).action;
    expect([judge("/API"), judge("/x"), judge("/api")]).toEqual([
      "token-or-certificate",
      "token-or-certificate",
      "token",
    ]);
  });
});
