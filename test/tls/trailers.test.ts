/** Trailer fields through the edge, both ways and in both versions (RFC 9110 §6.5). */
import type { IncomingMessage } from "node:http";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { openH2 } from "../support/h2-client.ts";
import {
  connectTls,
  exchangeRaw,
  readUntil,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../support/tls-edge.ts";

const TRAILERS =
  "X-Sum: 1\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: a=1\r\nX-HTTP-Method-Override: DELETE\r\n";
let certificates: TestCertificates;
let upstream: TestUpstream;
let edge: TestEdge;
const seen: IncomingMessage[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    seen.push(request);
    request.resume().once("end", () => {
      response.write("content");
      response.addTrailers([
        ["X-Sum", "2"],
        ["Set-Cookie", "a=1"],
        ["Stile-Admission", "x"],
        ["Constructor", "c"],
      ]);
      response.end();
    });
  });
  edge = await startEdge({ certificates, upstream: `http://127.0.0.1:${upstream.port}` });
});
afterEach(() => void seen.splice(0));
afterAll(async () => {
  await edge.close();
  await upstream.close();
  certificates.remove();
});

const post = (te: string): string =>
  `POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n${te}\r\n1\r\nx\r\n0\r\n${TRAILERS}\r\n`;
const CLOSE = "Connection: close\r\n";

test("HTTP/1.1: forwards what may come late, back to a client that takes it", async () => {
  const te = "TE: trailers\r\nConnection: TE, close\r\n";
  const answer = await exchangeRaw(edge.port, certificates.ca, post(te));
  expect(seen[0]?.trailers).toStrictEqual({ "x-sum": "1" });
  expect(seen[0]?.headers.te).toBe("trailers");
  expect(answer.slice(answer.indexOf("content"))).toBe(
    "content\r\n0\r\nX-Sum: 2\r\nConstructor: c\r\n\r\n",
  );
});

test("HTTP/1.1: sends none to a client that does not say so", async () => {
  for (const head of [post(CLOSE), `GET / HTTP/1.1\r\nHost: a.example\r\n${CLOSE}\r\n`]) {
    const answer = await exchangeRaw(edge.port, certificates.ca, head);
    expect(answer).toContain("content");
    expect(answer.toLowerCase()).not.toContain("x-sum");
  }
  expect(seen.some(({ headers }) => headers.te !== undefined)).toBe(false);
});

test("HTTP/1.1: the fast path leaves a client that takes them to the general one", async () => {
  const head = "GET / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
  expect(await exchangeRaw(edge.port, certificates.ca, head)).toMatch(
    /0\r\nX-Sum: 2\r\n.*\r\n\r\n$/,
  );
  const socket = await connectTls(edge.port, certificates.ca);
  socket.write("GET / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n\r\n");
  expect(await readUntil(socket, "X-Sum: 2")).toContain("content");
  socket.destroy();
});

test.each(["trailers", undefined])("HTTP/2: the same, with TE: %s", async (te) => {
  const session = await openH2(edge.port, certificates.ca);
  const stream = session.request(
    { ":method": "POST", ":path": "/", ...(te === undefined ? {} : { te }) },
    { waitForTrailers: true },
  );
  stream.once("wantTrailers", () =>
    stream.sendTrailers({ "x-sum": "1", "x-real-ip": "192.0.2.1", cookie: "a=1" }),
  );
  let trailers: object | undefined;
  stream.once("trailers", (received: object) => {
    trailers = received;
  });
  stream.end("x");
  expect(Buffer.concat(await stream.toArray()).toString()).toBe("content");
  expect(seen[0]?.trailers).toStrictEqual({ "x-sum": "1" });
  expect(trailers === undefined ? undefined : { ...trailers }).toStrictEqual(
    te === undefined ? undefined : expect.objectContaining({ "x-sum": "2", constructor: "c" }),
  );
  expect(Object.keys(trailers ?? {})).toHaveLength(te === undefined ? 0 : 2);
  session.destroy();
});
