/**
 * Connections that are forwarded undecrypted: to a real nginx and to openssl with certificates of their own, by real
 * clients; and what must not get there.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  encodeProxyHeader,
  type FrontOptions,
  type ListenerLimits,
  type PassthroughRecord,
  type PassthroughRoute,
} from "../../../tls/index.ts";
import { freePort } from "../../support/free-port.ts";
import { type IssuedFiles, opensslCa, type OpensslCa } from "../../support/openssl-ca.ts";
import { hasProgram, nginxFolders, startProxy } from "../../support/proxy-process.ts";
import { startRelay } from "../../support/relay.ts";
import {
  connectPlain,
  connectTls,
  readAll,
  readUntil,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../../support/tls-edge.ts";
import { CHROMIUM, chromiumMissing } from "../../web/browser.ts";
import {
  bytes,
  helloBody,
  helloRecord,
  message,
  nameEntry,
  records,
  serverName,
} from "./hello-builder.ts";
import { waitFor } from "../../support/wait-for.ts";

const run = promisify(execFile);
const GET = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const DECODE_ERROR = "15030300020232";
const ILLEGAL_PARAMETER = "1503030002022f";
const INTERNAL_ERROR = "15030300020250";
let certificates: TestCertificates;
let upstream: TestUpstream;
let ca: OpensslCa;
let files: IssuedFiles;
let asked = 0;
const closers: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
  ca = opensslCa("passed through");
  files = ca.issue({ name: "pass.example", subjectAltName: "DNS:pass.example,DNS:*.wild.example" });
  upstream = await startUpstream((_request, response) => {
    asked += 1;
    response.end("terminated");
  });
});
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  asked = 0;
});
afterAll(async () => {
  await upstream.close();
  certificates.remove();
  ca.remove();
});

/** A server that takes TCP connections and knows no TLS. */
interface RawServer {
  readonly port: number;
  readonly sockets: Socket[];
  /** What came on each connection. */
  readonly received: string[];
}

async function rawServer(onSocket: (socket: Socket) => void = () => undefined): Promise<RawServer> {
  const sockets: Socket[] = [];
  const received: string[] = [];
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    const i = sockets.push(socket) - 1;
    received[i] = "";
    socket.on("error", () => undefined);
    socket.on("data", (piece: Buffer) => (received[i] += piece.toString("latin1")));
    onSocket(socket);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  closers.push(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });
  return { port: (server.address() as AddressInfo).port, sockets, received };
}

interface PassEdge extends TestEdge {
  readonly records: PassthroughRecord[];
}

async function start(
  port: number,
  route: Partial<PassthroughRoute> = {},
  front: FrontOptions = {},
  limits: Partial<ListenerLimits> = {},
): Promise<PassEdge> {
  const passed: PassthroughRecord[] = [];
  const edge = await startEdge({
    certificates,
    upstream: `http://127.0.0.1:${upstream.port}`,
    limits,
    front: {
      passthrough: [
        {
          names: ["pass.example", "*.wild.example"],
          upstream: { kind: "tcp", host: "127.0.0.1", port },
          proxyProtocol: "off",
          maxConnections: 10,
          connectTimeoutMs: 2_000,
          idleTimeoutMs: 5_000,
          ...route,
        },
      ],
      onPassedThrough: (record) => passed.push(record),
      ...front,
    },
  });
  closers.unshift(edge.close);
  return { ...edge, records: passed };
}

const helloFor = (name: string): Buffer =>
  Buffer.from(helloRecord({ extensions: [serverName(nameEntry(name))] }));

/** Everything that comes back for these bytes, in hexadecimal. */
async function answerTo(port: number, input: Uint8Array): Promise<string> {
  const socket = await connectPlain(port);
  const answer = readAll(socket);
  socket.write(input);
  return Buffer.from(await answer, "latin1").toString("hex");
}

const ask = async (
  port: number,
  trusted: string,
  servername: string,
  ecdhCurve?: string,
): Promise<string> => {
  const options = { servername, ...(ecdhCurve === undefined ? {} : { ecdhCurve }) };
  const socket = await connectTls(port, trusted, options);
  const answer = readAll(socket);
  socket.write(GET);
  return answer;
};

describe.skipIf(!hasProgram("nginx"))("a real nginx behind it, with its own certificate", () => {
  const nginxSocket = (): string => join(ca.dir, "nginx.sock");
  async function nginx(listen: string): Promise<number> {
    const port = await freePort();
    const server = `
      server {
        listen 127.0.0.1:${port} ssl ${listen};
        listen unix:${nginxSocket()} ssl ${listen};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate ${files.certificateFile};
        ssl_certificate_key ${files.keyFile};
        return 200 "passed for $remote_addr|$proxy_protocol_addr|$ssl_protocol\\n";
      }`;
    const http = `http { access_log off; ${nginxFolders(ca.dir)} ${server} }`;
    const proxy = await startProxy("nginx", ca.dir, http, port);
    closers.push(proxy.stop);
    return port;
  }

  test("gets what is its own, byte for byte, and the terminator gets the rest", async () => {
    const edge = await start(await nginx(""));
    // 1,216 bytes of a hybrid key share: the ClientHello comes in two segments or more.
    for (const groups of ["X25519MLKEM768:X25519", "X25519"]) {
      expect(await ask(edge.port, ca.pem, "pass.example", groups)).toContain(
        "passed for 127.0.0.1|",
      );
      expect(await ask(edge.port, ca.pem, "A.Wild.Example.", groups)).toContain("passed for");
      expect(await ask(edge.port, certificates.ca, "localhost", groups)).toContain("terminated");
    }
    expect(asked).toBe(2);
    await waitFor(() => expect(edge.records).toHaveLength(4));
    const names = ["pass.example", "*.wild.example"];
    expect(edge.records.map(({ name }) => name)).toStrictEqual([...names, ...names]);
    expect(edge.records[0]).toMatchObject({ event: "passthrough" });
    expect(edge.records[0]?.ja4).toMatch(/^t13d[0-9]{4}00(_[0-9a-f]{12}){2}$/);
    expect(edge.records[0]?.receivedBytes).toBeGreaterThan(1_500);
    expect(edge.events.toSorted()).toStrictEqual([
      "handshake",
      "handshake",
      ...Array<string>(4).fill("passthrough"),
    ]);
  });

  test.skipIf(chromiumMissing)("is reached by Chromium, which offers the hybrid", async () => {
    const edge = await start(await nginx(""));
    const dir = mkdtempSync(join(tmpdir(), "stile-chromium-"));
    const args = ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${dir}`];
    const resolve = "--host-resolver-rules=MAP pass.example 127.0.0.1";
    const at = ["--ignore-certificate-errors", resolve, "--dump-dom"];
    const browser = run(CHROMIUM ?? "", [...args, ...at, `https://pass.example:${edge.port}/`]);
    expect((await browser).stdout).toContain("passed for 127.0.0.1|");
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
    expect(edge.events).not.toContain("client-hello-refused");
    expect(asked).toBe(0);
  });

  test("is reached at a Unix socket", async () => {
    await nginx("");
    const edge = await start(0, { upstream: { kind: "unix", path: nginxSocket() } });
    expect(await ask(edge.port, ca.pem, "pass.example")).toContain("passed for unix:|");
  });

  test("is reached by openssl and curl, TLS 1.2 included, which the terminator refuses", async () => {
    const edge = await start(await nginx(""));
    const s_client = (...args: string[]): Promise<{ stdout: string }> => {
      const base = `openssl s_client -connect 127.0.0.1:${edge.port} -CAfile ${ca.caFile}`;
      return run("sh", ["-c", `echo Q | ${base} ${args.join(" ")}`]);
    };
    const old = await s_client("-tls1_2", "-servername", "pass.example");
    expect(old.stdout).toContain("Verify return code: 0 (ok)");
    expect(old.stdout).toContain("Protocol  : TLSv1.2");
    await expect(s_client("-tls1_2", "-servername", "localhost")).rejects.toThrow(
      /protocol version/,
    );
    const at = `pass.example:${edge.port}`;
    const resolve = ["--resolve", `${at}:127.0.0.1`, "--cacert", ca.caFile];
    const { stdout } = await run("curl", ["-sS", ...resolve, `https://${at}/`]);
    expect(stdout).toContain("|TLSv1.3");
  });

  test.each(["v1", "v2"] as const)(
    "is told the client by our PROXY header (%s)",
    async (version) => {
      const port = await nginx("proxy_protocol");
      const edge = await start(port, { proxyProtocol: version });
      const options = { servername: "pass.example", localAddress: "127.0.0.3" };
      const socket = await connectTls(edge.port, ca.pem, options);
      const answer = readAll(socket);
      socket.write(GET);
      expect(await answer).toContain("|127.0.0.3|");
      // And what a proxy before us has told goes on.
      const sends = await start(port, { proxyProtocol: version }, { sendsProxyHeader: () => true });
      const source = { address: "2001:db8::9", port: 4_242 };
      const head = encodeProxyHeader("v2", { source, destination: source });
      const relay = await startRelay(sends.port, (first) => [Buffer.concat([head, first])]);
      closers.unshift(relay.close);
      expect(await ask(relay.port, ca.pem, "pass.example")).toContain("|2001:db8::9|");
    },
  );
});

describe.skipIf(!hasProgram("haproxy"))("HAProxy behind it", () => {
  test.each(["v1", "v2"] as const)("takes our PROXY header (%s)", async (version) => {
    const target = await rawServer((socket) => socket.end());
    const port = await freePort();
    const proxy = await startProxy(
      "haproxy",
      ca.dir,
      `
      defaults
        mode tcp
        timeout connect 2s
        timeout client 5s
        timeout server 5s
      listen l
        bind 127.0.0.1:${port} accept-proxy
        server s 127.0.0.1:${target.port} send-proxy
      `,
      port,
    );
    closers.unshift(proxy.stop);
    const edge = await start(port, { proxyProtocol: version });
    const client = connect({ port: edge.port, host: "127.0.0.1", localAddress: "127.0.0.4" });
    const { localPort } = await once(client, "connect").then(() => client);
    client.write(helloFor("pass.example"));
    await readAll(client);
    const told = `PROXY TCP4 127.0.0.4 127.0.0.1 ${localPort ?? 0} ${edge.port}\r\n`;
    // HAProxy tells the next one what it was told; the ClientHello follows as it was.
    expect(target.received.at(-1)).toBe(told + helloFor("pass.example").toString("latin1"));
  });
});

describe("openssl s_server behind it", () => {
  test("gets lines through, both ways", async () => {
    const port = await freePort();
    const certificate = ["-cert", files.certificateFile, "-key", files.keyFile];
    const args = ["s_server", "-accept", `127.0.0.1:${port}`, "-rev", ...certificate];
    const child = spawn("openssl", args, { stdio: ["ignore", "pipe", "ignore"] });
    const exited = once(child, "exit");
    closers.push(async () => {
      child.kill();
      await exited;
    });
    await readUntil(child.stdout, "ACCEPT");
    const edge = await start(port);
    const socket = await connectTls(edge.port, ca.pem, { servername: "pass.example" });
    socket.write("abcdef\n");
    expect(await readUntil(socket, "\n")).toBe("fedcba\n");
    socket.destroy();
  });
});

describe("a connection that is passed through", () => {
  test("keeps every byte, however it is cut, and what follows the ClientHello", async () => {
    const target = await rawServer((socket) => socket.once("end", () => socket.end("over")));
    const edge = await start(target.port);
    const body = message(helloBody({ extensions: [serverName(nameEntry("pass.example"))] }));
    const input = Buffer.concat([records(body, 7), bytes(20, 3, 3, 0, 1, 1), Buffer.from("early")]);
    const relay = await startRelay(edge.port, (first) => [...first].map((byte) => bytes(byte)));
    closers.unshift(relay.close);
    for (const port of [edge.port, relay.port]) {
      const socket = await connectPlain(port);
      const answer = readAll(socket);
      socket.end(input);
      // Its own direction has ended: the answer comes all the same.
      expect(await answer).toBe("over");
      expect(target.received.at(-1)).toBe(input.toString("latin1"));
    }
  });

  test("waits for who reads slowly, in both directions", async () => {
    const MUCH = 24_000_000;
    const target = await rawServer((socket) => {
      socket.pause();
      socket.write(Buffer.alloc(MUCH, "d"));
    });
    const edge = await start(target.port);
    const client = await connectPlain(edge.port);
    client.pause();
    client.write(helloFor("pass.example"));
    client.write(Buffer.alloc(MUCH, "u"));
    await waitFor(() => expect(target.sockets).toHaveLength(1));
    await wait(300);
    const held = client.writableLength + (target.sockets[0]?.writableLength ?? 0);
    // What neither side reads stays with the senders, but for the kernel's buffers.
    expect(held).toBeGreaterThan(MUCH);
    // And goes on when they do.
    target.sockets[0]?.resume();
    let got = 0;
    client.on("data", (piece: Buffer) => (got += piece.length)).resume();
    const sent = MUCH + helloFor("pass.example").length;
    await waitFor(() => expect([got, target.sockets[0]?.bytesRead]).toStrictEqual([MUCH, sent]), {
      timeout: 10_000,
    });
  });

  test("ends where nothing passes for its time, and with the upstream's end", async () => {
    const target = await rawServer();
    const edge = await start(target.port, { idleTimeoutMs: 100 });
    expect(await answerTo(edge.port, helloFor("pass.example"))).toBe("");
    const cut = await rawServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
    const other = await start(cut.port);
    expect(await answerTo(other.port, helloFor("pass.example"))).toBe("");
    await waitFor(() =>
      expect([edge.records, other.records].map((r) => r.length)).toStrictEqual([1, 1]),
    );
  });

  test("is refused with an alert above its limit, and where the upstream is not there", async () => {
    const target = await rawServer();
    const edge = await start(target.port, { maxConnections: 1 });
    const first = await connectPlain(edge.port);
    first.write(helloFor("pass.example"));
    await waitFor(() => expect(edge.events).toStrictEqual(["passthrough"]));
    expect(await answerTo(edge.port, helloFor("a.wild.example"))).toBe(INTERNAL_ERROR);
    expect(edge.events.at(-1)).toBe("passthrough-busy");
    target.sockets[0]?.end();
    first.end();
    await waitFor(() => expect(edge.records).toMatchObject([{ event: "passthrough" }]));
    (await connectPlain(edge.port)).write(helloFor("pass.example"));
    await waitFor(() => expect(edge.events.at(-1)).toBe("passthrough"));
    const nowhere = await start(await freePort());
    expect(await answerTo(nowhere.port, helloFor("pass.example"))).toBe(INTERNAL_ERROR);
    expect(nowhere.events).toStrictEqual(["passthrough-failed"]);
    expect(nowhere.records).toMatchObject([{ event: "passthrough-failed", name: "pass.example" }]);
  });

  test("goes on in a drain until its deadline", async () => {
    const target = await rawServer((socket) => socket.on("data", (piece) => socket.write(piece)));
    const edge = await start(target.port);
    const client = await connectPlain(edge.port);
    client.write(helloFor("pass.example"));
    await waitFor(() => expect(edge.events).toStrictEqual(["passthrough"]));
    const ended = readAll(client);
    const drained = edge.listener.drain(300);
    client.write("still there");
    await drained;
    expect(await ended).toContain("still there");
  });

  test("is of no handshake that is under way, and of its address as any other", async () => {
    const target = await rawServer();
    const limits = { maxHandshakesPerAddress: 1, maxConnectionsPerAddress: 3 };
    const edge = await start(target.port, {}, {}, limits);
    for (let i = 1; i <= 3; i += 1) {
      (await connectPlain(edge.port)).write(helloFor("pass.example"));
      await waitFor(() => expect(edge.events).toHaveLength(i));
    }
    expect(await answerTo(edge.port, helloFor("pass.example"))).toBe("");
    expect(edge.events.at(-1)).toBe("address-connections-refused");
  });
});

describe("bad input where connections are passed through", () => {
  test.each<[string, Uint8Array, string]>([
    ["garbage", Buffer.from("GET / HTTP/1.1\r\nHost: pass.example\r\n\r\n"), ILLEGAL_PARAMETER],
    ["a ClientHello that is too large", records(message(bytes(), 1, 0xff_ffff)), DECODE_ERROR],
    [
      "two names",
      helloRecord({ extensions: [serverName(nameEntry("pass.example"), nameEntry("localhost"))] }),
      DECODE_ERROR,
    ],
    [
      "a name twice",
      helloRecord({
        extensions: [serverName(nameEntry("pass.example")), serverName(nameEntry("pass.example"))],
      }),
      ILLEGAL_PARAMETER,
    ],
    ["an empty name", helloRecord({ extensions: [serverName(nameEntry(""))] }), DECODE_ERROR],
    ["a name that goes on behind a NUL", helloFor("pass.example\0"), ILLEGAL_PARAMETER],
    ["a name of other bytes", helloFor("p\xe4ss.example"), ILLEGAL_PARAMETER],
    ["records without end", records(new Uint8Array(64).fill(1), 1), DECODE_ERROR],
    ["a PROXY header that nobody asked for", Buffer.from("PROXY UNKNOWN\r\n"), ILLEGAL_PARAMETER],
  ])("rejects %s with one alert, and no upstream hears of it", async (_name, input, alert) => {
    const target = await rawServer();
    const edge = await start(target.port);
    expect(await answerTo(edge.port, input)).toBe(alert);
    expect(edge.events).toStrictEqual(["client-hello-refused"]);
    expect([target.sockets.length, asked, edge.records.length]).toStrictEqual([0, 0, 0]);
  });

  test.each([
    "x.pass.example",
    "a.b.wild.example",
    "wild.example",
    ".wild.example",
    "*.wild.example",
    "pass.example..",
    "pass.example:443",
  ])("does not pass %j through", async (name) => {
    const target = await rawServer();
    const edge = await start(target.port);
    // The terminator's: no certificate of its own covers it, or its ClientHello is not enough.
    expect(await answerTo(edge.port, helloFor(name))).toMatch(/^150303000202/);
    expect(target.sockets).toHaveLength(0);
    expect(edge.events).toStrictEqual(["handshake-failed"]);
  });

  test("rejects a ClientHello that is slow, cut or never sent, in bounded time", async () => {
    const target = await rawServer();
    const edge = await start(target.port, {}, {}, { handshakeTimeoutMs: 150 });
    const whole = helloFor("pass.example");
    const silent = answerTo(edge.port, bytes());
    const half = answerTo(edge.port, whole.subarray(0, 30));
    const slow = await connectPlain(edge.port);
    const trickled = readAll(slow);
    let at = 0;
    const trickle = setInterval(() => slow.write(whole.subarray(at, (at += 1))), 20);
    expect(await Promise.all([silent, half, trickled])).toStrictEqual(["", "", ""]);
    clearInterval(trickle);
    const cut = await connectPlain(edge.port);
    const answer = readAll(cut);
    cut.end(whole.subarray(0, 30));
    expect(await answer).toBe("");
    expect(edge.events).toStrictEqual(Array(3).fill("client-hello-refused"));
    // A proxy's check, with nothing behind its header.
    const sends = await start(target.port, {}, { sendsProxyHeader: () => true });
    const check = await connectPlain(sends.port);
    const nothing = readAll(check);
    check.end("PROXY UNKNOWN\r\n");
    expect(await nothing).toBe("");
    expect(target.sockets).toHaveLength(0);
  });

  test("rejects a flood of half-open connections, and passes others through meanwhile", async () => {
    const target = await rawServer();
    const edge = await start(target.port, {}, {}, { maxHandshakesPerAddress: 4 });
    const flood: Socket[] = [];
    for (let i = 0; i < 20; i += 1) {
      const socket = connect({ port: edge.port, host: "127.0.0.1", localAddress: "127.0.0.2" });
      socket.on("error", () => undefined).write(bytes(22));
      flood.push(socket);
    }
    await waitFor(() => expect(edge.events).toHaveLength(16));
    (await connectPlain(edge.port)).write(helloFor("pass.example"));
    await waitFor(() => expect(edge.events.at(-1)).toBe("passthrough"));
    for (const socket of flood) socket.destroy();
  });
});
