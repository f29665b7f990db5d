/** Upstreams as an operator sets them and watches them: settings, one sidecar before two of them, what it tells. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type RequestListener, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkConfig } from "../../service/config/index.ts";
import { isStileError } from "../../wire/index.ts";
import { type OpensslCa, opensslCa } from "../support/openssl-ca.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

describe("rejects at start, by its full path,", () => {
  const HTTP = { url: "http://127.0.0.1:1" };
  const HTTPS = { url: "https://127.0.0.1:1" };
  const named = (name: string): object[] => [
    { ...HTTP, name },
    { ...HTTPS, name },
  ];
  test.each([
    [{}, "expected either edge.upstream or edge.upstreams"],
    [{ upstream: HTTP.url, upstreams: [HTTP] }, "expected either edge.upstream or edge.upstreams"],
    [{ upstreams: [] }, "edge.upstreams must not have fewer than 1 items"],
    [{ upstreams: [{ ...HTTP, port: 1 }] }, "unknown setting edge.upstreams.0.port"],
    [{ upstreams: [{ ...HTTP, name: "10.0.0.1" }] }, "edge.upstreams.0.name must match"],
    [{ upstreams: named("a") }, "edge.upstreams: a name is there twice"],
    [{ upstreams: [{ ...HTTP, weight: 2 }] }, "edge.upstreams.0.weight is for several upstreams"],
    [{ upstream: HTTP.url, ejection: {} }, "edge.ejection is for several upstreams"],
    [
      { upstreams: [HTTP, { ...HTTP, caFile: "/ca" }] },
      "edge.upstreams.1.caFile is for https:// only",
    ],
    [
      { upstreams: [{ ...HTTPS, keyFile: "/key" }] },
      "edge.upstreams.0: expected both certificateFile and keyFile, or none",
    ],
    [
      { upstreams: [{ ...HTTPS, caFile: "/ca", unsafeSkipVerification: true }] },
      "edge.upstreams.0.caFile has no effect beside unsafeSkipVerification",
    ],
    [
      { upstreams: [{ ...HTTPS, serverName: "::1" }] },
      "edge.upstreams.0.serverName: expected a DNS name",
    ],
    [{ upstream: HTTP.url, healthCheck: { path: "health" } }, "edge.healthCheck.path must match"],
    [{ upstream: HTTP.url, proxyProtocol: "v3" }, "edge.proxyProtocol must be"],
  ])("%j", (edge, message) => {
    const config = {
      publicUrl: "https://a.example",
      passphraseFile: "/pass",
      tls: { certificateFile: "/tls.pem", keyFile: "/tls.key" },
      attester: { manufacturerRootsFile: "/roots.pem" },
      edge: { hosts: ["a.example"], issuerName: "a.example", ...edge },
    };
    let said = "accepted";
    try {
      checkConfig(config);
    } catch (error) {
      said = isStileError(error, "SERVICE_CONFIG_INVALID") ? error.message : String(error);
    }
    expect(said).toContain(message);
  });
});

describe("a sidecar before two upstreams, one of them over TLS", () => {
  let ca: OpensslCa;
  let other: OpensslCa;
  let dir: string;
  let target: TestSidecar;
  const servers: Server[] = [];
  let isWell = true;

  async function listen(server: Server): Promise<number> {
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return (server.address() as AddressInfo).port;
  }

  function app(name: string): RequestListener {
    return (request, response) => {
      if (request.url === "/healthz") response.writeHead(isWell ? 200 : 503).end();
      else response.end(`${name} ${String(request.headers.forwarded)}`);
    };
  }

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "stile-upstreams-"));
    [ca, other] = [opensslCa(), opensslCa("another root")];
    copyFileSync(ca.caFile, join(dir, "ca.pem"));
    const files = ca.issue({ name: "app", subjectAltName: "DNS:app.example" });
    const cert = readFileSync(files.certificateFile);
    const key = readFileSync(files.keyFile);
    const plain = await listen(createServer(app("plain")));
    const secure = await listen(createHttpsServer({ cert, key }, app("secure")));
    const counts = { healthy: 1, unhealthy: 1, expectedStatus: 200 };
    target = await startTestSidecar({
      edge: {
        upstreams: [
          { name: "plain", url: `http://127.0.0.1:${plain}` },
          {
            name: "secure",
            url: `https://127.0.0.1:${secure}`,
            caFile: join(dir, "ca.pem"),
            serverName: "app.example",
          },
        ],
        forwardedHeader: "forwarded",
        // Long enough for a machine that is busy with other tests.
        healthCheck: { path: "/healthz", intervalSeconds: 1, timeoutSeconds: 20, ...counts },
        rules: [{ name: "all", action: "open", paths: ["/"] }],
      },
    });
  });
  afterAll(async () => {
    await target.stop();
    for (const server of servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
    for (const one of [ca, other]) one.remove();
    rmSync(dir, { recursive: true });
  });

  const metrics = (): Promise<string> => target.sidecar.metrics.registry.metrics();
  const said = async (): Promise<string> => Buffer.from((await target.get("/")).body).toString();
  const logged = (message: string): string[] =>
    target.lines.filter((line) => line.includes(`"${message}"`));

  async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
    while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  test("uses both, says who the client is, and counts by name", async () => {
    // A check that took too long while the sidecar was starting has taken one out.
    for (const name of ["plain", "secure"]) {
      const usable = `stile_upstream_usable{upstream="${name}"} 1`;
      await until(async () => (await metrics()).includes(usable));
    }
    const seen = new Set<string>();
    await until(async () => {
      const [name = "", forwarded] = (await said()).split(" ");
      expect(forwarded).toMatch(/^for=127\.0\.0\.1;host="localhost:\d+";proto=https$/);
      seen.add(name);
      return seen.size === 2;
    });
    const told = await metrics();
    for (const name of ["plain", "secure"]) {
      const answered = `attempts_total\\{upstream="${name}",outcome="answered"\\} [1-9]`;
      expect(told).toMatch(new RegExp(answered));
    }
    expect(told).not.toMatch(/stile_upstream[^\n]*127\.0\.0\.1/);
  });

  test("rejects with 503 and Retry-After while its checks find none, and stays ready", async () => {
    const before = logged("upstream.unhealthy").length;
    isWell = false;
    await until(() => logged("upstream.unhealthy").length === before + 2);
    const answer = await target.get("/");
    expect(answer.status).toBe(503);
    expect(answer.headers["retry-after"]).toBe("1");
    expect(Buffer.from(answer.body).toString()).toContain("tls-upstream-unhealthy");
    expect((await fetch(`${target.sidecar.operatorAddress}/readyz`)).status).toBe(200);
    expect(await metrics()).toContain('stile_upstream_usable{upstream="plain"} 0');
    isWell = true;
    await until(() => logged("upstream.healthy").length === before + 2);
    expect((await target.get("/")).status).toBe(200);
  });

  test("takes up another CA at SIGHUP: what is not of it is out", async () => {
    copyFileSync(other.caFile, join(dir, "ca.pem"));
    target.sidecar.reloadCertificates();
    expect(logged("upstream.files-reloaded")).toHaveLength(1);
    const out = 'stile_upstream_usable{upstream="secure"} 0';
    await until(async () => (await metrics()).includes(out));
    const event = 'stile_upstream_events_total{upstream="secure",event="files-reloaded"} 1';
    expect(await metrics()).toContain(event);
    for (let i = 0; i < 4; i += 1) expect(await said()).toContain("plain ");
  });
});
