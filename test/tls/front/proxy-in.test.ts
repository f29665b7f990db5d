/** Connections that a proxy passes on with the PROXY protocol: by hand in every shape, by HAProxy and by curl. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { createServer, type TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { FrontOptions, ListenerLimits } from "../../../tls/index.ts";
import { encodeProxyHeader, type ProxyVersion } from "../../../tls/index.ts";
import { freePort } from "../../support/free-port.ts";
import { hasProgram, hasStreams, startProxy } from "../../support/proxy-process.ts";
import { type Relay, startRelay } from "../../support/relay.ts";
import {
  connectPlain,
  connectTls,
  exchangeRaw,
  readAll,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../../support/tls-edge.ts";
import { waitFor } from "../../support/wait-for.ts";

const run = promisify(execFile);
const GET = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const SENDS: FrontOptions = { sendsProxyHeader: () => true };
const CLIENT = "198.51.100.7";
const header = (version: ProxyVersion, address = CLIENT): Buffer =>
  Buffer.from(
    encodeProxyHeader(version, {
      source: { address, port: 4_242 },
      destination: { address: address.includes(":") ? "2001:db8::443" : "192.0.2.1", port: 443 },
    }),
  );
const bytesOf = (hex: string): Buffer => Buffer.from(hex, "hex");
const each = (bytes: Buffer): Buffer[] => [...bytes].map((byte) => Buffer.of(byte));

let certificates: TestCertificates;
let upstream: TestUpstream;
let asked = 0;
const closers: (() => Promise<void>)[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    asked += 1;
    response.end(`for=${String(request.headers["x-forwarded-for"] ?? "nobody")};`);
  });
});
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  asked = 0;
});
afterAll(async () => {
  await upstream.close();
  certificates.remove();
});

async function start(
  front: FrontOptions = SENDS,
  limits: Partial<ListenerLimits> = {},
  fastPath = true,
): Promise<TestEdge> {
  const target = `http://127.0.0.1:${upstream.port}`;
  const edge = await startEdge({ certificates, upstream: target, front, limits, fastPath });
  closers.push(edge.close);
  return edge;
}

async function before(edge: TestEdge, pieces: Parameters<typeof startRelay>[1]): Promise<Relay> {
  const relay = await startRelay(edge.port, pieces);
  closers.unshift(relay.close);
  return relay;
}

/** Whom the upstream is told that the request is for. @param localAddress the client's own */
async function clientOf(port: number, localAddress = "127.0.0.1"): Promise<string | undefined> {
  const socket = await connectTls(port, certificates.ca, { localAddress });
  const answer = readAll(socket);
  socket.write(GET);
  return /for=(.*);/.exec(await answer)?.[1];
}

test("Node leads from a TLS connection to the TCP connection below, by a name that it does not document", async () => {
  const server = createServer({
    cert: readFileSync(certificates.certificateFile),
    key: readFileSync(certificates.keyFile),
  });
  const raw = once(server, "connection");
  const secure = once(server, "secureConnection");
  await once(server.listen(0, "127.0.0.1"), "listening");
  const client = await connectTls((server.address() as AddressInfo).port, certificates.ca);
  const [[below], [above]] = (await Promise.all([raw, secure])) as [[Socket], [TLSSocket]];
  expect(Reflect.get(above, "_parent")).toBe(below);
  client.destroy();
  above.destroy();
  server.close();
});

describe("a client behind a proxy that tells its address", () => {
  test.each([
    [
      "together with the ClientHello",
      (head: Buffer, first: Buffer) => [Buffer.concat([head, first])],
    ],
    ["before it", (head: Buffer, first: Buffer) => [head, first]],
    ["byte by byte", (head: Buffer, first: Buffer) => [...each(head), first]],
    [
      "with half of it",
      (head: Buffer, first: Buffer) => [
        Buffer.concat([head, first.subarray(0, 200)]),
        first.subarray(200),
      ],
    ],
  ])("is that address to the upstream: header %s", async (_name, pieces) => {
    for (const fastPath of [true, false]) {
      const edge = await start(SENDS, {}, fastPath);
      for (const version of ["v1", "v2"] as const) {
        for (const address of [CLIENT, "2001:db8::7"]) {
          const relay = await before(edge, (first) => pieces(header(version, address), first));
          expect(await clientOf(relay.port)).toBe(address);
        }
      }
      expect(edge.events).toStrictEqual(["handshake", "handshake", "handshake", "handshake"]);
    }
  });

  test("is the proxy itself where that says so, and nobody where it has no address", async () => {
    const edge = await start();
    const told = async (head: Buffer): Promise<string | undefined> =>
      clientOf((await before(edge, (first) => [Buffer.concat([head, first])])).port);
    expect(await told(bytesOf("0d0a0d0a000d0a515549540a20000000"))).toBe("127.0.0.1");
    expect(await told(Buffer.from("PROXY UNKNOWN\r\n"))).toBe("127.0.0.1");
    const unix = `0d0a0d0a000d0a515549540a213100d8${"2f".repeat(216)}`;
    expect(await told(bytesOf(unix))).toBe("nobody");
    // As a dual-stack socket would have it.
    expect(await told(Buffer.from("PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n"))).toBe("192.0.2.9");
  });

  test("keeps the address for all of its requests, and through a handover to node:http", async () => {
    const edge = await start();
    const relay = await before(edge, (first) => [Buffer.concat([header("v2"), first])]);
    const chunked =
      "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    const keep = GET.replace("Connection: close\r\n", "");
    const answers = await exchangeRaw(relay.port, certificates.ca, keep + chunked + GET);
    expect(answers.match(/for=[^;]*;/g)).toStrictEqual(Array(3).fill(`for=${CLIENT};`));
  });
});

describe("a connection from a proxy's network", () => {
  async function refused(edge: TestEdge, bytes: Buffer): Promise<string> {
    const socket = await connectPlain(edge.port);
    const answer = readAll(socket);
    socket.write(bytes);
    return answer;
  }

  test("rejects a client that comes past the proxy, garbage and header bombs, with no byte of answer", async () => {
    const edge = await start();
    await expect(exchangeRaw(edge.port, certificates.ca, GET)).rejects.toThrow();
    const hostile = [
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.from(`PROXY UNKNOWN ${"x".repeat(100_000)}`),
      Buffer.from("PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\r\n"),
      bytesOf("0d0a0d0a000d0a515549540a2111ffff"),
      Buffer.concat([header("v2").subarray(0, 12), Buffer.alloc(100_000, 0xff)]),
    ];
    for (const bytes of hostile) expect(await refused(edge, bytes)).toBe("");
    expect(edge.events).toStrictEqual(Array(6).fill("proxy-header-refused"));
    // A second header is no ClientHello.
    const twice = await before(edge, (first) => [
      Buffer.concat([header("v1"), header("v1"), first]),
    ]);
    await expect(exchangeRaw(twice.port, certificates.ca, GET)).rejects.toThrow();
    expect(edge.events.at(-1)).toBe("handshake-failed");
    expect(asked).toBe(0);
  });

  test("rejects a header that does not come in time, however it trickles", async () => {
    const edge = await start(SENDS, { proxyHeaderTimeoutMs: 100, handshakeTimeoutMs: 60_000 });
    const silent = readAll(await connectPlain(edge.port));
    const slow = await connectPlain(edge.port);
    const answer = readAll(slow);
    const trickle = setInterval(() => slow.write("P"), 1_000);
    slow.write("PROXY UNKNOWN ");
    expect(await Promise.all([silent, answer])).toStrictEqual(["", ""]);
    clearInterval(trickle);
    expect(edge.events).toStrictEqual(["proxy-header-refused", "proxy-header-refused"]);
  });

  test("is let go where it only looks whether somebody listens, before its header and after it", async () => {
    const edge = await start(SENDS, { proxyHeaderTimeoutMs: 60_000, handshakeTimeoutMs: 60_000 });
    for (const bytes of ["", "PROXY", "PROXY UNKNOWN\r\n"]) {
      const socket = await connectPlain(edge.port);
      const answer = readAll(socket);
      socket.end(bytes);
      expect(await answer).toBe("");
    }
    expect(edge.events).not.toContain("proxy-header-refused");
    expect(asked).toBe(0);
  });

  test("ends with the listener while its header is awaited", async () => {
    const edge = await start();
    const closed = readAll(await connectPlain(edge.port));
    await wait(20);
    await edge.listener.drain(60_000);
    expect(await closed).toBe("");
  });
});

describe("a connection from elsewhere", () => {
  test("rejects a header: it is no ClientHello, and its address is not believed", async () => {
    const edge = await start({ sendsProxyHeader: (address) => address !== "127.0.0.1" });
    for (const version of ["v1", "v2"] as const) {
      const relay = await before(edge, (first) => [Buffer.concat([header(version), first])]);
      await expect(exchangeRaw(relay.port, certificates.ca, GET)).rejects.toThrow();
    }
    expect(await clientOf(edge.port)).toBe("127.0.0.1");
    expect(edge.events).toStrictEqual(["handshake-failed", "handshake-failed", "handshake"]);
    expect(asked).toBe(1);
  });
});

describe.skipIf(!hasProgram("haproxy"))("HAProxy before the listener", () => {
  test.each(["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])(
    "is understood (%s), and its health checks are",
    async (sends) => {
      const edge = await start();
      const port = await freePort();
      const proxy = await startProxy(
        "haproxy",
        certificates.dir,
        `
        global
          stats socket ${certificates.dir}/admin-${port}
        defaults
          mode tcp
          timeout connect 2s
          timeout client 5s
          timeout server 5s
        frontend f
          bind 127.0.0.1:${port}
          unique-id-format %[uuid()]
          default_backend b
        backend b
          server s 127.0.0.1:${edge.port} ${sends} check check-send-proxy check-ssl verify none inter 50ms fall 1000
        `,
        port,
      );
      closers.unshift(proxy.stop);
      // Its checks have 50 ms, which a busy machine takes: they do not take the server out.
      expect(await clientOf(port, "127.0.0.2")).toBe("127.0.0.2");
      // Each check is a LOCAL or UNKNOWN header with a whole handshake behind it.
      await waitFor(() =>
        expect(edge.events.filter((event) => event === "handshake").length).toBeGreaterThan(3),
      );
      expect(edge.events).not.toContain("proxy-header-refused");
    },
  );
});

describe.skipIf(!hasStreams())("nginx before the listener", () => {
  test("is understood where it streams with proxy_protocol", async () => {
    const edge = await start();
    const port = await freePort();
    const server = `listen 127.0.0.1:${port}; proxy_pass 127.0.0.1:${edge.port}; proxy_protocol on;`;
    const streams = `stream { server { ${server} } }`;
    const proxy = await startProxy("nginx", certificates.dir, streams, port);
    closers.unshift(proxy.stop);
    expect(await clientOf(port, "127.0.0.5")).toBe("127.0.0.5");
    expect(edge.events).not.toContain("proxy-header-refused");
  });
});

describe("curl before the listener", () => {
  test("is understood where it speaks for a client", async () => {
    const edge = await start();
    const args = ["-sS", "--cacert", join(certificates.dir, "ca.pem"), "--haproxy-protocol"];
    const { stdout } = await run("curl", [...args, `https://localhost:${edge.port}/`, "-4"]);
    expect(stdout).toBe("for=127.0.0.1;");
    expect(edge.events).toStrictEqual(["handshake", "h2-connection"]);
  });
});
