/** WebSocket by extended CONNECT (RFC 8441), tunnelled to a handshake of HTTP/1.1 at the upstream. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { openH2 } from "../../support/h2-client.ts";
import {
  startEdge,
  type TestCertificates,
  testCertificates,
  type TestEdge,
} from "../../support/tls-edge.ts";
import { waitFor } from "../../support/wait-for.ts";

let certificates: TestCertificates;
let server: Server;
let edge: TestEdge;
let session: ClientHttp2Session;
const tunnels: { request: IncomingMessage; socket: Duplex }[] = [];

/** RFC 6455 §4.2.2 step 5.4 */
const proof = (key: string): string =>
  createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");

function accept(request: IncomingMessage, socket: Duplex): void {
  tunnels.push({ request, socket });
  socket.on("error", () => undefined);
  const key = String(request.headers["sec-websocket-key"]);
  const answer = request.url === "/liar" ? proof("another") : proof(key);
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${answer}\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello`,
  );
  socket.on("data", (chunk: Buffer) => socket.write(chunk));
  socket.on("end", () => socket.end("bye"));
}

beforeAll(async () => {
  certificates = await testCertificates();
  server = createServer((_request, response) => response.writeHead(403, { "x-a": "1" }).end("no"));
  server.on("upgrade", accept);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  edge = await startEdge({ certificates, upstream: `http://127.0.0.1:${port}` });
  session = await openH2(edge.port, certificates.ca);
  if (session.remoteSettings.enableConnectProtocol !== true) await once(session, "remoteSettings");
});
afterEach(() => {
  tunnels.length = 0;
  edge.codes.length = 0;
});
afterAll(async () => {
  session.destroy();
  await edge.close();
  server.close();
  certificates.remove();
});

function connect(path: string, headers: OutgoingHttpHeaders = {}): ClientHttp2Stream {
  const stream = session.request(
    { ":method": "CONNECT", ":protocol": "websocket", ":path": path, ...headers },
    { endStream: false },
  );
  stream.on("error", () => undefined);
  return stream;
}

async function answerOf(stream: ClientHttp2Stream): Promise<Record<string, unknown>> {
  const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
  return headers;
}

async function until(stream: ClientHttp2Stream, text: string): Promise<string> {
  let seen = "";
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    seen += String(chunk);
    if (seen.includes(text)) break;
  }
  return seen;
}

test("carries bytes both ways, and each end in its turn", async () => {
  const stream = connect("/chat?a=b", {
    "sec-websocket-version": "13",
    "sec-websocket-protocol": "chat",
    "x-forwarded-for": "192.0.2.1",
  });
  const headers = await answerOf(stream);
  expect(headers).toMatchObject({ ":status": 200, "sec-websocket-protocol": "chat" });
  expect(headers).not.toHaveProperty("upgrade");
  const [tunnel] = tunnels;
  expect(tunnel?.request.url).toBe("/chat?a=b");
  expect(tunnel?.request.headers).toMatchObject({
    upgrade: "websocket",
    connection: "Upgrade",
    "sec-websocket-version": "13",
    "x-forwarded-for": "127.0.0.1",
  });
  const key = Buffer.from(String(tunnel?.request.headers["sec-websocket-key"]), "base64");
  expect(key).toHaveLength(16);
  const large = Buffer.alloc(500_000, "x").toString();
  stream.end(`${large}.`);
  expect(await until(stream, "bye")).toBe(`hello${large}.bye`);
});

test("rejects a handshake with a length or an expectation, of which an upstream would wait for a body", async () => {
  for (const field of [{ "content-length": "10" }, { expect: "100-continue" }]) {
    expect((await answerOf(connect("/", field)))[":status"]).toBe(400);
  }
  expect(edge.codes).toStrictEqual(["TLS_HEAD_REJECTED", "TLS_HEAD_REJECTED"]);
  expect(tunnels).toHaveLength(0);
});

test("makes a key of its own for each tunnel", async () => {
  const streams = [connect("/"), connect("/")];
  await Promise.all(streams.map((stream) => answerOf(stream)));
  const keys = tunnels.map(({ request }) => request.headers["sec-websocket-key"]);
  expect(new Set(keys).size).toBe(2);
  for (const stream of streams) stream.close();
});

test("rejects an upstream that answers another handshake", async () => {
  const stream = connect("/liar");
  expect((await answerOf(stream))[":status"]).toBe(502);
  expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_UNREACHABLE"]);
  await waitFor(() => expect(tunnels[0]?.socket.destroyed).toBe(true));
});

test("passes on an answer that is no handshake", async () => {
  server.removeListener("upgrade", accept);
  const stream = connect("/");
  expect(await answerOf(stream)).toMatchObject({ ":status": 403, "x-a": "1" });
  expect(await until(stream, "no")).toBe("no");
  server.on("upgrade", accept);
});

test("ends the other side where one breaks off", async () => {
  const left = connect("/");
  await answerOf(left);
  left.close(8);
  await waitFor(() => expect(tunnels[0]?.socket.destroyed).toBe(true));
  const cut = connect("/");
  await answerOf(cut);
  tunnels[1]?.socket.destroy();
  await new Promise<void>((resolve) => cut.once("close", () => resolve()));
  expect(cut.rstCode).not.toBe(0);
});
