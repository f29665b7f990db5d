/** Who the client is, as nginx and HAProxy read it from the PROXY protocol, and upstreams from Forwarded. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { forwardedHeadersOf } from "../../../tls/forwarded-headers.ts";
import { freePort } from "../../support/free-port.ts";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import { nginxUpstream } from "../../support/nginx-upstream.ts";
import { opensslCa } from "../../support/openssl-ca.ts";
import { hasProgram, startProxy } from "../../support/proxy-process.ts";
import { createUpstreamTls, type Upstreams, type UpstreamSettings } from "../../../tls/index.ts";
import { connectTls, noExtra, readUntil, upstreamsTo } from "../../support/tls-edge.ts";
import {
  bodyOf,
  closeAfterTest,
  edgeBefore,
  edgeCertificates,
  edgeTo,
  talk,
} from "../../support/tls-edges.ts";

const GET = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const LAST = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
const WAYS = [
  ["v1", true],
  ["v1", false],
  ["v2", true],
  ["v2", false],
] as const;

function upstreamsAt(port: number, settings: Partial<UpstreamSettings>): Upstreams {
  const scheme = settings.tls === undefined ? "http" : "https";
  return upstreamsTo([`${scheme}://127.0.0.1:${port}`], { settings });
}

/** What two clients and a third request of the first get, each with its own port in front. */
async function askTwice(edgePort: number): Promise<[port: string, said: string][]> {
  const open = (): ReturnType<typeof connectTls> => connectTls(edgePort, edgeCertificates().ca);
  const [first, second] = [await open(), await open()];
  const said: [string, string][] = [];
  for (const socket of [first, second, first]) {
    const answer = readUntil(socket, ">");
    socket.write(GET);
    said.push([String(socket.localPort), /<(?<told>.*)>/.exec(await answer)?.[1] ?? ""]);
  }
  for (const socket of [first, second]) socket.destroy();
  return said;
}

describe.skipIf(!hasProgram("nginx"))("nginx with proxy_protocol", () => {
  const says =
    "<$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_port|$connection>";

  test.each(WAYS)("reads each client's address (%s, fast path: %s)", async (version, fastPath) => {
    const port = await nginxUpstream({ listen: "proxy_protocol", says });
    const upstreams = upstreamsAt(port, { proxyProtocol: version });
    const edge = await edgeTo("", { upstreams, fastPath });
    const said = await askTwice(edge.port);
    const connections = said.map(([clientPort, told]) => {
      const [address, from, to, connection] = told.split("|");
      expect([address, from, to]).toStrictEqual(["127.0.0.1", clientPort, String(edge.port)]);
      return connection;
    });
    // A client's own connection is kept for it, or none is.
    expect(new Set(connections).size).toBe(fastPath ? 2 : 3);
    expect(connections[0] === connections[2]).toBe(fastPath);
  });

  test("reads the address of an HTTP/2 client, whose requests have connections of their own", async () => {
    const port = await nginxUpstream({ listen: "proxy_protocol", says });
    const edge = await edgeTo("", { upstreams: upstreamsAt(port, { proxyProtocol: "v2" }) });
    const session = await openH2(edge.port, edgeCertificates().ca);
    const own = `<127.0.0.1|${session.socket.localPort}|${edge.port}|`;
    const answers = await Promise.all([requestH2(session, {}), requestH2(session, {})]);
    session.destroy();
    for (const { body } of answers) expect(body).toContain(own);
    expect(answers[0].body).not.toBe(answers[1].body);
  });

  test("reads it before TLS, and a client that a trusted proxy tells of, without its port", async () => {
    const ca = opensslCa();
    closeAfterTest(() => Promise.resolve(ca.remove()));
    const files = ca.issue({ name: "app", subjectAltName: "IP:127.0.0.1" });
    const server = `ssl_certificate ${files.certificateFile}; ssl_certificate_key ${files.keyFile};`;
    const port = await nginxUpstream({ listen: "ssl proxy_protocol", says, server });
    const steady = { clock: () => 0, observe: () => undefined };
    const tls = createUpstreamTls({ host: "127.0.0.1", caFile: ca.caFile, ...steady });
    for (const fastPath of [true, false]) {
      const edge = await edgeTo("", {
        upstreams: upstreamsAt(port, { proxyProtocol: "v2", tls }),
        extra: { ...noExtra, clientAddress: "2001:db8::7" },
        fastPath,
      });
      expect(await talk(edge, LAST)).toMatch(/<2001:db8::7\|0?\|/);
    }
  });

  test.each(["v1", "v2"] as const)("takes our own checks for nobody's (%s)", async (version) => {
    const port = await nginxUpstream({ listen: "proxy_protocol", says });
    const events: string[] = [];
    const check = { path: "/", host: "a.example", intervalMs: 5, timeoutMs: 500 };
    const upstreams = upstreamsTo([`http://127.0.0.1:${port}`], {
      settings: { proxyProtocol: version },
      healthCheck: { ...check, healthy: 1, unhealthy: 1, expectedStatus: 200 },
      observe: (event) => void events.push(event),
    });
    await wait(100);
    upstreams.close();
    expect(events).toStrictEqual([]);
  });
});

describe.skipIf(!hasProgram("haproxy"))("HAProxy with accept-proxy", () => {
  test.each(WAYS)("reads each client's address (%s, fast path: %s)", async (version, fastPath) => {
    const dir = mkdtempSync(join(tmpdir(), "stile-haproxy-"));
    const port = await freePort();
    const configuration = `defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind 127.0.0.1:${port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "<%[src]|%[src_port]|%[dst_port]>"
`;
    const haproxy = await startProxy("haproxy", dir, configuration, port);
    closeAfterTest(async () => {
      await haproxy.stop();
      rmSync(dir, { recursive: true });
    });
    const upstreams = upstreamsAt(port, { proxyProtocol: version });
    const edge = await edgeTo("", { upstreams, fastPath });
    for (const [clientPort, told] of await askTwice(edge.port)) {
      expect(told).toBe(`127.0.0.1|${clientPort}|${edge.port}`);
    }
  });
});

describe("Forwarded", () => {
  test.each([
    // RFC 7239 §4 and §6.
    ["192.0.2.43", "www.example", "for=192.0.2.43;host=www.example;proto=https"],
    ["::ffff:192.0.2.43", "www.example", "for=192.0.2.43;host=www.example;proto=https"],
    ["2001:db8:cafe::17", "a.example", 'for="[2001:db8:cafe::17]";host=a.example;proto=https'],
    ["fe80::1%eth0", "a.example", 'for="[fe80::1]";host=a.example;proto=https'],
    ["192.0.2.43", "a.example:8443", 'for=192.0.2.43;host="a.example:8443";proto=https'],
    ["192.0.2.43", "[::1]:1", 'for=192.0.2.43;host="[::1]:1";proto=https'],
    [undefined, 'a"\\', 'for=unknown;host="a\\"\\\\";proto=https'],
  ])("of %s for %s", (address, host, expected) => {
    expect(forwardedHeadersOf("forwarded", address, host)).toStrictEqual(["Forwarded", expected]);
  });

  test.each([true, false])(
    "is what is chosen, and a client's is dropped (%s)",
    async (fastPath) => {
      const asked = LAST.replace(
        "\r\n\r\n",
        "\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-For: 6\r\n\r\n",
      );
      for (const [forwardedHeader, names] of [
        ["x-forwarded", ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]],
        ["forwarded", ["forwarded"]],
        ["both", ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]],
      ] as const) {
        const edge = await edgeBefore(
          ({ headers }, response) => {
            const told = Object.entries(headers).filter(([name]) => name.includes("forwarded"));
            const text = JSON.stringify(told);
            response.writeHead(200, { "content-length": text.length }).end(text);
          },
          { forwarder: { forwardedHeader }, fastPath },
        );
        const told = new Map(JSON.parse(bodyOf(await talk(edge, asked))) as [string, string][]);
        expect([...told.keys()]).toStrictEqual(names);
        if (forwardedHeader !== "x-forwarded") {
          expect(told.get("forwarded")).toBe("for=127.0.0.1;host=a.example;proto=https");
        }
        if (forwardedHeader !== "forwarded") expect(told.get("x-forwarded-for")).toBe("127.0.0.1");
      }
    },
  );
});
