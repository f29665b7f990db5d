/** Upstream connections of HTTP/2 requests without a body: shared by clients, one exchange at a time, never left half-read. */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import type { ClientHttp2Session } from "node:http2";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import {
  startEdge,
  type TestCertificates,
  testCertificates,
  type TestEdge,
} from "../../support/tls-edge.ts";
import { waitFor } from "../../support/wait-for.ts";

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
let certificates: TestCertificates;
let server: Server;
let edge: TestEdge;
let session: ClientHttp2Session;
const sockets: Socket[] = [];
const heads: string[] = [];
/** What each request gets. */
let answer: (socket: Socket, head: string) => void;

beforeAll(async () => {
  certificates = await testCertificates();
  server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      heads.push(chunk.toString("latin1"));
      answer(socket, chunk.toString("latin1"));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const { port } = server.address() as AddressInfo;
  edge = await startEdge({
    certificates,
    upstream: `http://127.0.0.1:${port}`,
    forwarder: { firstByteTimeoutMs: 300, idleTimeoutMs: 300 },
  });
  session = await openH2(edge.port, certificates.ca);
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  heads.length = 0;
  edge.codes.length = 0;
});
afterAll(async () => {
  session.destroy();
  await edge.close();
  server.close();
  certificates.remove();
});

const plain = (socket: Socket): void => void socket.write(OK);

test("one is used again, by other clients too, and as many are opened as are needed at once", async () => {
  answer = plain;
  for (let i = 0; i < 3; i += 1) expect((await requestH2(session, {})).body).toBe("ok");
  const other = await openH2(edge.port, certificates.ca);
  expect((await requestH2(other, {})).body).toBe("ok");
  other.destroy();
  expect(sockets).toHaveLength(1);
  expect(heads[0]).toMatch(/^GET \/ HTTP\/1\.1\r\nhost: localhost:\d+\r\n(?:[^\r]+\r\n)+\r\n$/);
  answer = (socket) => void setTimeout(() => socket.write(OK), 50);
  const both = await Promise.all([requestH2(session, {}), requestH2(session, {})]);
  expect(both.map(({ body }) => body)).toStrictEqual(["ok", "ok"]);
  expect(sockets).toHaveLength(2);
});

test("one that the upstream has closed meanwhile costs no request", async () => {
  answer = plain;
  await requestH2(session, {});
  answer = (socket) => {
    if (socket === sockets[0]) socket.destroy();
    else socket.write(OK);
  };
  expect((await requestH2(session, {})).body).toBe("ok");
  expect(sockets).toHaveLength(2);
});

test("one whose answer was not wholly read serves nobody else", async () => {
  answer = (socket) => void socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
  const stream = session.request({ ":path": "/" });
  stream.on("error", () => undefined);
  await new Promise((resolve) => stream.once("data", resolve));
  stream.close(8);
  await waitFor(() => expect(sockets[0]?.destroyed || sockets[0]?.readableEnded).toBe(true));
  answer = plain;
  expect((await requestH2(session, {})).body).toBe("ok");
  expect(sockets).toHaveLength(2);
  expect(edge.codes).toStrictEqual([]);
});

test("bytes behind an answer are nobody's answer", async () => {
  answer = (socket) => void socket.write(`${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`);
  expect((await requestH2(session, {})).body).toBe("ok");
  answer = plain;
  expect((await requestH2(session, {})).body).toBe("ok");
  expect(sockets).toHaveLength(2);
});

test.each([
  ["is malformed", "nonsense\r\n\r\n", 502, "TLS_UPSTREAM_UNREACHABLE"],
  [
    "has two lengths",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    502,
    "TLS_UPSTREAM_UNREACHABLE",
  ],
  ["does not come", "", 504, "TLS_UPSTREAM_TIMEOUT"],
])("rejects an answer that %s", async (_name, text, status, code) => {
  answer = (socket) => void socket.write(text);
  expect((await requestH2(session, {})).status).toBe(status);
  expect(edge.codes).toStrictEqual([code]);
});

test("an answer that stops is reset", async () => {
  answer = (socket) => void socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
  const failure = requestH2(session, {}).catch((error: unknown) => error);
  expect(await failure).toMatchObject({ code: "ERR_HTTP2_STREAM_ERROR" });
  expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_TIMEOUT"]);
});

test("chunks, no content and unknown lengths are told in frames", async () => {
  answer = (socket) =>
    void socket.write(
      "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
  const chunked = await requestH2(session, {});
  expect([chunked.body, chunked.headers["transfer-encoding"]]).toStrictEqual(["ok", undefined]);
  answer = (socket) => void socket.write("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n");
  const empty = await requestH2(session, {});
  expect([empty.status, empty.headers["content-length"]]).toStrictEqual([204, undefined]);
  answer = (socket) => void socket.end("HTTP/1.0 200 OK\r\n\r\nto the end");
  expect((await requestH2(session, {})).body).toBe("to the end");
});

test("is not read on while the client does not take what has come", async () => {
  const megabyte = Buffer.alloc(1_000_000, "x");
  let written = 0;
  answer = (socket) => {
    socket.write("HTTP/1.1 200 OK\r\nContent-Length: 60000000\r\n\r\n");
    const more = (): void => {
      while (written < 60 && socket.write(megabyte)) written += 1;
      written += 1;
    };
    socket.on("drain", more);
    more();
  };
  const stream = session.request({ ":path": "/" });
  stream.on("error", () => undefined);
  await new Promise((resolve) => stream.once("response", resolve));
  // The first 64 KiB are all that the window lets through.
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(written).toBeLessThan(30);
  stream.close(8);
  await waitFor(() => expect(sockets[0]?.destroyed).toBe(true));
});

test("a request with a body goes another way", async () => {
  answer = (socket, text) => {
    if (!text.includes("content-length: 1") || text.endsWith("x")) socket.write(OK);
  };
  expect((await requestH2(session, { ":method": "POST", "content-length": "1" }, "x")).body).toBe(
    "ok",
  );
  expect((await requestH2(session, { ":method": "POST" })).body).toBe("ok");
  expect(heads.at(-1)).toContain("Content-Length: 0\r\n");
});
