/** Heads of upstreams' answers: what is read, and what is malformed. */
import { describe, expect, test } from "vitest";
import { parseResponseHead } from "../../../tls/splice/response-head.ts";

function parse(text: string, method = "GET"): ReturnType<typeof parseResponseHead> {
  return parseResponseHead(Buffer.from(text, "latin1"), method);
}

test("reads fields as they are spelled, without the space around their values", () => {
  const head =
    "HTTP/1.1 200 Fine \u00e9\r\nX-a:1\r\nX-B: \t two words\t \r\nx-c:\r\nContent-LENGTH: 3";
  expect(parse(`${head}\r\n\r\nabc`)).toStrictEqual({
    kind: "head",
    status: 200,
    reason: "Fine \u00e9",
    rawHeaders: ["X-a", "1", "X-B", "two words", "x-c", "", "Content-LENGTH", "3"],
    framing: { kind: "sized", bytes: 3 },
    keepAlive: true,
    length: head.length + 4,
  });
});

test.each([
  ["HTTP/1.1 304 Not Modified\r\nContent-Length: 9", "GET", { kind: "none" }, true],
  ["HTTP/1.1 200\r\nContent-Length: 9", "HEAD", { kind: "none" }, true],
  ["HTTP/1.1 200 \r\nTransfer-Encoding: CHUNKED", "GET", { kind: "chunked" }, true],
  ["HTTP/1.1 200 OK", "GET", { kind: "until-close" }, false],
  ["HTTP/1.0 200 OK\r\nContent-Length: 1", "GET", { kind: "sized", bytes: 1 }, false],
  [
    "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive",
    "GET",
    { kind: "sized", bytes: 1 },
    true,
  ],
  [
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nCONNECTION: a, Close",
    "GET",
    { kind: "sized", bytes: 1 },
    false,
  ],
])("frames %j for %s", (head, method, framing, keepAlive) => {
  expect(parse(`${head}\r\n\r\n`, method)).toMatchObject({ kind: "head", framing, keepAlive });
});

describe("what has no single meaning is malformed", () => {
  test.each([
    "HTTP/1.2 200 OK",
    "HTTP/2 200 OK",
    "HTTP/1.1  200 OK",
    "HTTP/1.1 099 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 200 O\nK",
    "HTTP/1.1 200 O\rK",
    "HTTP/1.1 200 O\0K",
    "HTTP/1.1 200 OK\nX: 1",
    "HTTP/1.1 200 OK\r\nX 1",
    "HTTP/1.1 200 OK\r\n: 1",
    "HTTP/1.1 200 OK\r\nX : 1",
    "HTTP/1.1 200 OK\r\n X: 1",
    "HTTP/1.1 200 OK\r\nX: 1\r\n folded: 2",
    "HTTP/1.1 200 OK\r\nX: 1\n\nY: 2",
    "HTTP/1.1 200 OK\r\nX: 1\rY: 2",
    "HTTP/1.1 200 OK\r\nX: \u007f",
    "HTTP/1.1 200 OK\r\nX\u00e9: 1",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    "HTTP/1.1 200 OK\r\nContent-Length: +1",
    "HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
    "HTTP/1.1 200 OK\r\nContent-Length: ",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    "\r\nHTTP/1.1 200 OK",
  ])("%j", (head) => {
    expect(parse(`${head}\r\n\r\n`)).toStrictEqual({ kind: "malformed" });
  });

  test("a head that does not end", () => {
    expect(parse("HTTP/1.1 200 OK\r\nX: 1\r\n")).toStrictEqual({ kind: "incomplete" });
    const long = `HTTP/1.1 200 OK\r\nX: ${"1".repeat(16_384)}`;
    expect(parse(long)).toStrictEqual({ kind: "malformed" });
    expect(parse(`${long}\r\n\r\n`)).toStrictEqual({ kind: "malformed" });
  });
});
