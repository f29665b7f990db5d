/** The address that a proxy tells by the PROXY protocol, wherever Stile goes by a client's address. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeProxyHeader } from "../../tls/index.ts";
import { type Relay, startRelay } from "../support/relay.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { exchangeRaw } from "../support/tls-edge.ts";

const run = promisify(execFile);
const CLIENT = "198.51.100.9";
const NEIGHBOUR = "192.0.2.77";
const BLOCKED = "203.0.113.5";
const OPEN = "2001:db8::5";
const TRUSTED = "192.0.2.80";
const rules = [
  { name: "bad-network", action: "block", networks: ["203.0.113.0/24"] },
  { name: "good-network", action: "open", networks: ["2001:db8::/64"] },
] as const;

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

describe.each([true, false])("an edge behind the PROXY protocol (fast path: %s)", (fastPath) => {
  let target: TestSidecar;
  let relay: Relay;
  /** What the proxy tells with the next connection. */
  let told = CLIENT;
  beforeAll(async () => {
    target = await startTestSidecar({
      listen: { proxyProtocol: ["127.0.0.0/8"], trustedProxies: [`${TRUSTED}/32`] },
      edge: { rules, redemptionContext: "window+network", fastPath },
      limits: { requestsPerMinute: 3 },
    });
    relay = await startRelay(target.port, (first) => {
      const end = { address: told, port: 4_242 };
      return [encodeProxyHeader("v2", { source: end, destination: end }), first];
    });
  });
  afterAll(async () => {
    await relay.close();
    await target.stop();
  });

  async function get(
    from: string,
    path = "/",
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    told = from;
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const head = `GET ${path} HTTP/1.1\r\nHost: ${target.host}\r\nConnection: close\r\n`;
    const answer = await exchangeRaw(relay.port, target.ca, `${head}${lines.join("")}\r\n`);
    const [top = "", body = ""] = answer.split("\r\n\r\n");
    const fields = top.split("\r\n").slice(1);
    return {
      status: Number(top.slice(9, 12)),
      headers: Object.fromEntries(
        fields.map((field) => {
          const [name = "", value = ""] = field.split(/: (.*)/);
          return [name.toLowerCase(), value];
        }),
      ),
      body,
    };
  }
  const seenBy = (answer: Answer): string | undefined =>
    (JSON.parse(answer.body) as { headers: Record<string, string> }).headers["x-forwarded-for"];

  it("judges networks and tells the upstream by it", async () => {
    expect((await get(BLOCKED)).status).toBe(403);
    expect((await get(CLIENT)).status).toBe(401);
    const open = await get(OPEN, "/", { "x-forwarded-for": BLOCKED });
    expect([open.status, seenBy(open)]).toStrictEqual([200, OPEN]);
  });

  it("binds challenges to its network, not to the proxy's", async () => {
    const authorization = await target.mintFor(await get(CLIENT));
    const elsewhere = await get(NEIGHBOUR, "/", { authorization });
    expect(elsewhere.status).toBe(401);
    expect(elsewhere.body).toContain("token-challenge-mismatch");
    const admitted = await get(CLIENT, "/", { authorization });
    expect([admitted.status, seenBy(admitted)]).toStrictEqual([200, CLIENT]);
  });

  it("believes X-Forwarded-For of a proxy behind the proxy, and of nobody else", async () => {
    const headers = { "x-forwarded-for": OPEN };
    const trusted = await get(TRUSTED, "/", headers);
    expect([trusted.status, seenBy(trusted)]).toStrictEqual([200, OPEN]);
    expect((await get(NEIGHBOUR, "/", headers)).status).toBe(401);
  });

  it("is the client's over HTTP/2, too", async () => {
    told = OPEN;
    const { port } = new URL(target.url);
    const args = ["-sS", "--http2", "--cacert", join(target.dir, "tls", "ca.pem"), "--connect-to"];
    const at = [
      `localhost:${port}:127.0.0.1:${relay.port}`,
      `${target.url}/`,
      "-w",
      "%{http_version}",
    ];
    const { stdout } = await run("curl", [...args, ...at]);
    expect(stdout).toMatch(/"x-forwarded-for": "2001:db8::5"[^]*\n2$/);
    told = BLOCKED;
    const refused = await run("curl", [...args, ...at, "-o", "/dev/null", "-w", "%{http_code}"]);
    expect(refused.stdout).toBe("403");
  });

  it("counts the requests of each address apart", async () => {
    const ask = async (from: string): Promise<number> =>
      (await get(from, "/.well-known/jwks.json")).status;
    const statuses = [];
    for (let i = 0; i < 4; i += 1) statuses.push(await ask("198.51.100.1"));
    expect(statuses).toStrictEqual([200, 200, 200, 429]);
    expect(await ask("198.51.100.2")).toBe(200);
  });

  it("rejects who comes past the proxy, counts it, and writes down no address", async () => {
    const before = target.upstream.hits();
    await expect(target.get("/")).rejects.toThrow();
    expect(target.upstream.hits()).toBe(before);
    const metrics = await target.sidecar.metrics.registry.metrics();
    expect(metrics).toContain('stile_tls_events_total{event="proxy-header-refused"} 1');
    const written = `${metrics}${target.lines.join("\n")}`;
    for (const address of [CLIENT, NEIGHBOUR, BLOCKED, OPEN, TRUSTED]) {
      expect(written).not.toContain(address);
    }
  });
});
