/** Hostile request heads over raw TLS connections: refused, and the upstream never hears of them. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import {
  exchangeRaw,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../support/tls-edge.ts";

let certificates: TestCertificates;
let upstream: TestUpstream;
let edge: TestEdge;
const seen: string[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    response.end("reached");
  });
  edge = await startEdge({ certificates, upstream: `http://127.0.0.1:${upstream.port}` });
});
beforeEach(() => {
  seen.length = 0;
  edge.codes.length = 0;
});
afterAll(async () => {
  await edge.close();
  await upstream.close();
  certificates.remove();
});

const HOST = "Host: a.example\r\n";
const head = (lines: string, target = "/"): string =>
  `GET ${target} HTTP/1.1\r\n${HOST}${lines}\r\n`;
const chunked = (coding: string): string =>
  `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n`;

test.each([
  ["a plain GET", head("Connection: close\r\n")],
  ["a query of all allowed characters", head("Connection: close\r\n", "/p?a=b&c=%2f!$'()*+,;:@[]")],
  ["OPTIONS of the server", `OPTIONS * HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`],
  ["Upgrade without being asked to", head("Upgrade: websocket\r\nConnection: close\r\n")],
  ["an IPv6 Host", "GET / HTTP/1.1\r\nHost: [::1]:8443\r\nConnection: close\r\n\r\n"],
  ["HTTP/1.0 with a Host", `GET / HTTP/1.0\r\n${HOST}\r\n`],
  ["Connection with other names", head("Connection: close, x-mine\r\nX-Mine: 1\r\n")],
])("passes %s", async (_name, text) => {
  expect(await exchangeRaw(edge.port, certificates.ca, text)).toMatch(/^HTTP\/1.1 200 /);
  expect(seen).toHaveLength(1);
});

// What our check refuses: each is let through by Node's parser (a second test asserts the rest).
const ours: [string, string][] = [
  ["two Host headers", head("Host: b.example\r\n")],
  ["two Authorization headers", head("Authorization: a\r\nauthorization: b\r\n")],
  ["two Cookie headers", head("Cookie: a=b\r\ncookie: c=d\r\n")],
  ["gzip before chunked", chunked("gzip, chunked")],
  ["a transfer coding in HTTP/1.0", chunked("chunked").replace("HTTP/1.1", "HTTP/1.0")],
  ["an absolute target", head("", "http://b.example/")],
  ["an absolute target of another scheme", head("", "file:///etc/passwd")],
  ["an asterisk for GET", head("", "*")],
  ["TRACE", `TRACE / HTTP/1.1\r\n${HOST}\r\n`],
  ["an underscore in a name", head("X_Forwarded_For: 192.0.2.1\r\n")],
  ["an upgrade to HTTP/2", head("Connection: upgrade\r\nUpgrade: h2c\r\n")],
  ["an upgrade to one of two", head("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n")],
  ["another expectation", head("Expect: 200-ok\r\n")],
  ["a fragment", head("", "/a#b")],
  ["a backslash", head("", "/a\\..\\b")],
  ["an encoded NUL", head("", "/a%00b")],
  ["an encoded NUL in the query", head("", "/a?b=%00")],
  ["userinfo in Host", "GET / HTTP/1.1\r\nHost: a@b.example\r\n\r\n"],
  ["a path in Host", "GET / HTTP/1.1\r\nHost: b.example/x\r\n\r\n"],
  ["an empty Host", "GET / HTTP/1.1\r\nHost: \r\n\r\n"],
  ["HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n"],
  ...[
    "Host",
    "Authorization",
    "Content-Length",
    "Cookie",
    "Transfer-Encoding",
    "Stile-Admission",
    "X-Forwarded-For",
  ].map((name): [string, string] => [
    `Connection naming ${name}`,
    head(`Connection: close, ${name}\r\n`),
  ]),
  [
    "Connection naming Cookie in its second line",
    head("Connection: close\r\nConnection: COOKIE\r\n"),
  ],
  [
    "a WebSocket handshake with two Host headers",
    head("Host: b.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"),
  ],
  [
    "a WebSocket handshake by POST",
    `POST / HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`,
  ],
  [
    "a WebSocket handshake with a body",
    head("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 18\r\n") +
      "GET / HTTP/1.1\r\n\r\n",
  ],
];

test.each(ours)("rejects %s", async (_name, text) => {
  expect(await exchangeRaw(edge.port, certificates.ca, text)).toMatch(/^HTTP\/1.1 400 /);
  expect(edge.codes).toStrictEqual(["TLS_HEAD_REJECTED"]);
  expect(seen).toStrictEqual([]);
});

// What Node's parser refuses by itself. Should one of these stop being refused, our check must learn it.
test.each([
  ["CONNECT", `CONNECT b.example:443 HTTP/1.1\r\n${HOST}\r\n`],
  ["two Content-Length headers", head("Content-Length: 0\r\nContent-Length: 1\r\n")],
  ["Content-Length and Transfer-Encoding", chunked("chunked\r\nContent-Length: 3")],
  ["a signed Content-Length", head("Content-Length: +1\r\n")],
  ["a Content-Length list", head("Content-Length: 1, 1\r\n")],
  ["two Transfer-Encoding headers", chunked("chunked\r\nTransfer-Encoding: chunked")],
  ["chunked that is not last", chunked("chunked, gzip")],
  ["a space before the colon", head("Host : b.example\r\n")],
  ["a folded header", head("X-A: 1\r\n 2\r\n")],
  ["a bare line feed", "GET / HTTP/1.1\nHost: a.example\n\n"],
  ["a NUL in a value", head("X-A: a\u0000b\r\n")],
  ["a control byte in the target", head("", "/a\u0001b")],
  ["a space in the target", head("", "/a b")],
  ["no Host", "GET / HTTP/1.1\r\n\r\n"],
  ["a TLS ClientHello inside TLS", "\u0016\u0003\u0001\u0002\u0000\u0001"],
])("rejects %s before the handler", async (_name, text) => {
  expect(await exchangeRaw(edge.port, certificates.ca, text)).toMatch(/^HTTP\/1.1 400 /);
  expect(seen).toStrictEqual([]);
});

test("rejects a head above the size limit with 431", async () => {
  const text = head(`X-Long: ${"x".repeat(20_000)}\r\n`);
  expect(await exchangeRaw(edge.port, certificates.ca, text)).toMatch(/^HTTP\/1.1 431 /);
  expect(seen).toStrictEqual([]);
});

test("does not forward what follows a refused head in the same segment", async () => {
  const text = head("X_A: 1\r\n") + head("Connection: close\r\n", "/smuggled");
  expect(await exchangeRaw(edge.port, certificates.ca, text)).toMatch(/^HTTP\/1.1 400 /);
  expect(seen).toStrictEqual([]);
});
