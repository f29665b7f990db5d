/** WebSocket through the edge: Node's own client, raw tunnels, refusals, half-close and silence. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { ForwarderOptions } from "../../tls/index.ts";
import { join as joinEnds } from "../../tls/upgrade.ts";
import {
  connectPlain,
  connectTls,
  exchangeRaw,
  type Extra,
  noExtra,
  readAll,
  readUntil,
  startEdge,
  type TestCertificates,
  testCertificates,
  type TestEdge,
} from "../support/tls-edge.ts";
import { EXAMPLE_ACCEPT, EXAMPLE_KEY } from "../support/websocket-example.ts";
import { waitFor } from "../support/wait-for.ts";

const run = promisify(execFile);
const [KEY, ACCEPT] = [EXAMPLE_KEY, EXAMPLE_ACCEPT];
const HANDSHAKE =
  "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
  `Sec-WebSocket-Key: ${KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n`;

let certificates: TestCertificates;
const closers: (() => Promise<void>)[] = [];
beforeAll(async () => {
  certificates = await testCertificates();
});
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});
afterAll(() => certificates.remove());

interface Upstream {
  readonly edge: TestEdge;
  /** The heads that arrived, and the connections on which they did. */
  readonly heads: string[];
  readonly sockets: Socket[];
}

/** An upstream of raw bytes: `answer` gets each head with its connection. */
async function before(
  answer: (socket: Socket, head: string) => void,
  forwarder: Partial<ForwarderOptions> = {},
  extra: Extra = noExtra,
): Promise<Upstream> {
  const heads: string[] = [];
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket.on("error", () => undefined));
    socket.once("data", (head) => {
      heads.push(head.toString("latin1"));
      answer(socket, head.toString("latin1"));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  closers.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const upstream = `http://127.0.0.1:${port}`;
  const edge = await startEdge({ certificates, upstream, forwarder, extra });
  closers.push(edge.close);
  return { edge, heads, sockets };
}

function accept(socket: Socket, head: string): void {
  const key = /sec-websocket-key: (?<key>.*)\r\n/i.exec(head)?.groups?.["key"] ?? "";
  // RFC 6455 §4.2.2 step 5.4
  const digest = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade, X-Hop\r\n" +
      `X-Hop: 1\r\nSec-WebSocket-Accept: ${digest.digest("base64")}\r\n\r\n`,
  );
}

/** Unmasks a short frame and sends its payload back as the server's (RFC 6455 §5.2, §5.3). */
function echoFrames(socket: Socket): void {
  socket.on("data", (frame: Buffer) => {
    const length = (frame[1] ?? 0) & 0x7f;
    const mask = frame.subarray(2, 6);
    const payload = frame.subarray(6, 6 + length).map((byte, i) => byte ^ (mask[i % 4] ?? 0));
    socket.write(Buffer.concat([Uint8Array.of(frame[0] ?? 0, length), payload]));
    if (((frame[0] ?? 0) & 0x0f) === 0x8) socket.end();
  });
}

test("carries messages of Node's own WebSocket client", async () => {
  const { edge, heads } = await before((socket, head) => {
    accept(socket, head);
    echoFrames(socket);
  });
  const script = `
    const socket = new WebSocket("wss://localhost:${edge.port}/chat?a=b");
    const seen = [];
    // Over HTTP/2, its connection keeps no process alive.
    const alive = setTimeout(() => undefined, 20_000);
    socket.onopen = () => socket.send("one");
    socket.onmessage = ({ data }) => {
      seen.push(data);
      if (seen.length === 1) socket.send("two");
      else socket.close(1000);
    };
    socket.onclose = ({ code, wasClean }) => {
      clearTimeout(alive);
      console.log(seen.join(), code, wasClean);
    };
    socket.onerror = (event) => console.log(event.message);`;
  const env = { NODE_EXTRA_CA_CERTS: join(certificates.dir, "ca.pem") };
  const { stdout } = await run(process.execPath, ["--eval", script], { env });
  expect(stdout).toBe("one,two 1000 true\n");
  expect(heads[0]).toMatch(/^GET \/chat\?a=b HTTP\/1.1\r\n/);
});

test("rebuilds both heads: hop-by-hop and spoofed headers stay behind, ours are added", async () => {
  const { edge, heads } = await before(
    accept,
    {},
    {
      removeRequestHeaders: ["authorization"],
      requestHeaders: [["Stile-Admission", "token"]],
      responseHeaders: [["Set-Cookie", "c=1"]],
    },
  );
  const socket = await connectTls(edge.port, certificates.ca);
  const spoofed = "X-Forwarded-For: 192.0.2.1\r\nStile-Admission: x\r\nAuthorization: secret\r\n";
  socket.write(HANDSHAKE.replace("Upgrade: websocket", `${spoofed}Upgrade: websocket`));
  expect(await readUntil(socket, "\r\n\r\n")).toBe(
    `HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n` +
      "Set-Cookie: c=1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
  );
  expect(heads).toStrictEqual([
    `GET /chat HTTP/1.1\r\nHost: a.example\r\nSec-WebSocket-Key: ${KEY}\r\n` +
      "Sec-WebSocket-Version: 13\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n" +
      "X-Forwarded-Host: a.example\r\nStile-Admission: token\r\n" +
      "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
  ]);
  socket.destroy();
});

test("loses no byte that arrives with either head, nor of 8 MiB each way", async () => {
  const bytes = Buffer.alloc(8 * 2 ** 20, "0123456789abcdef");
  const expected = createHash("sha256").update("early").update(bytes).digest("hex");
  let atUpstream = "";
  const { edge } = await before((socket, head) => {
    accept(socket, head);
    socket.write("early");
    socket.end(bytes);
    const hash = createHash("sha256");
    socket.on("data", (part: Buffer) => hash.update(part));
    socket.once("end", () => (atUpstream = hash.digest("hex")));
  });
  const socket = await connectTls(edge.port, certificates.ca, { allowHalfOpen: true } as object);
  const answer = readAll(socket);
  socket.write(`${HANDSHAKE}early`);
  socket.end(bytes);
  const body = (await answer).split("\r\n\r\n")[1] ?? "";
  expect(createHash("sha256").update(body, "latin1").digest("hex")).toBe(expected);
  await waitFor(() => expect(atUpstream).toBe(expected));
});

test("ends one direction at a time", async () => {
  const { edge, sockets } = await before((socket, head) => {
    accept(socket, head);
    // Speaks only after the client has ended its side.
    socket.resume().once("end", () => socket.end("last words"));
  });
  const socket = await connectTls(edge.port, certificates.ca, { allowHalfOpen: true } as object);
  const answer = readAll(socket);
  socket.write(HANDSHAKE);
  await waitFor(() => expect(sockets[0]?.bytesWritten).toBeGreaterThan(0));
  socket.end();
  expect(await answer).toMatch(/\r\n\r\nlast words$/);
});

test("passes on an answer that is not 101, and ends", async () => {
  const { edge } = await before((socket) => {
    socket.write("HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n");
    socket.end("Transfer-Encoding: chunked\r\n\r\n5\r\nwrong\r\n0\r\n\r\n");
  });
  expect(await exchangeRaw(edge.port, certificates.ca, HANDSHAKE)).toBe(
    "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nConnection: close\r\n\r\nwrong",
  );
});

test.each([
  ["closes", (socket: Socket) => void socket.end(), 502, "TLS_UPSTREAM_UNREACHABLE"],
  [
    "switches to another protocol",
    (socket: Socket) =>
      void socket.write("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
    502,
    "TLS_UPSTREAM_UNREACHABLE",
  ],
  [
    "switches to nothing",
    (socket: Socket) => void socket.write("HTTP/1.1 101 x\r\n\r\n"),
    502,
    "TLS_UPSTREAM_UNREACHABLE",
  ],
  ["does not answer", () => undefined, 504, "TLS_UPSTREAM_TIMEOUT"],
])("rejects the handshake where the upstream %s", async (_name, answer, status, code) => {
  const { edge } = await before(answer, { idleTimeoutMs: 100 });
  const text = await exchangeRaw(edge.port, certificates.ca, HANDSHAKE);
  expect(text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  expect(edge.codes).toStrictEqual([code]);
});

test.each([
  ["none", ""],
  ["another's", `Sec-WebSocket-Accept: ${KEY}\r\n`],
])(
  "rejects a 101 that proves nothing (%s): what comes behind it was not admitted",
  async (_name, proof) => {
    const heads: string[] = [];
    const { edge } = await before((socket, request) => {
      heads.push(request);
      socket.write(`HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n${proof}\r\n`);
      socket.on("data", (chunk: Buffer) => heads.push(chunk.toString("latin1")));
    });
    const text = await exchangeRaw(
      edge.port,
      certificates.ca,
      `${HANDSHAKE}GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n`,
    );
    expect(text).toMatch(/^HTTP\/1.1 502 /);
    expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_UNREACHABLE"]);
    expect(heads.join("")).not.toContain("/admin");
  },
);

test.each([
  "",
  "Sec-WebSocket-Key: short\r\n",
  `Sec-WebSocket-Key: ${KEY}\r\nSec-WebSocket-Key: ${KEY}\r\n`,
])("rejects a handshake whose key cannot be answered: %j", async (key) => {
  const { edge, sockets } = await before(accept);
  const text = await exchangeRaw(
    edge.port,
    certificates.ca,
    HANDSHAKE.replace(`Sec-WebSocket-Key: ${KEY}\r\n`, key),
  );
  expect(text).toMatch(/^HTTP\/1.1 400 /);
  expect(sockets).toHaveLength(0);
});

test("cuts a tunnel that is silent, not one that is used", async () => {
  // A busy machine can be late by much of this time.
  const idleTimeoutMs = 1_000;
  const { edge, sockets } = await before(accept, { idleTimeoutMs });
  const socket = await connectTls(edge.port, certificates.ca);
  const ended = readAll(socket);
  socket.write(HANDSHAKE);
  await readUntil(socket, "\r\n\r\n");
  for (const end = performance.now() + 1.5 * idleTimeoutMs; performance.now() < end;) {
    socket.write("x");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect(socket.destroyed).toBe(false);
  await ended;
  await waitFor(() => expect(sockets[0]?.destroyed || sockets[0]?.readableEnded).toBe(true));
  expect(edge.codes).toStrictEqual([]);
});

test.each([
  ["the client", (client: Socket) => void client.resetAndDestroy()],
  ["the upstream", (_client: Socket, upstream: Socket) => void upstream.resetAndDestroy()],
])("cuts the other side where %s resets its connection", async (_name, reset) => {
  const { edge, sockets } = await before(accept);
  const raw = await connectPlain(edge.port);
  const socket = await connectTls(edge.port, certificates.ca, { socket: raw });
  const ended = readAll(socket);
  socket.write(HANDSHAKE);
  await readUntil(socket, "\r\n\r\n");
  const [upstream] = sockets;
  if (upstream === undefined) throw new Error("no upstream connection");
  upstream.resume();
  reset(raw, upstream);
  await ended;
  await waitFor(() => expect(upstream.readableEnded || upstream.destroyed).toBe(true));
  expect(edge.codes).toStrictEqual([]);
});

test("cuts an end that does not take what the other has left behind", async () => {
  const server = createServer((socket) => socket.end("the last of it"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const upstream = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const client = new Duplex({ read: () => undefined, write: () => undefined });
  await joinEnds(client, upstream, 50);
  expect([client.destroyed, client.writableLength]).toStrictEqual([true, 14]);
  server.close();
});

test("drains: a tunnel lives until the deadline", async () => {
  const { edge } = await before((socket, head) => {
    accept(socket, head);
    socket.pipe(socket);
  });
  const socket = await connectTls(edge.port, certificates.ca);
  socket.write(HANDSHAKE);
  await readUntil(socket, "\r\n\r\n");
  const drained = edge.listener.drain(200);
  socket.write("still here");
  await readUntil(socket, "still here");
  await drained;
  await waitFor(() => expect(socket.destroyed).toBe(true));
});
