/** HTTP/2 in, HTTP/1.1 out: what reaches the upstream, what comes back, and what happens where one side gives up. */
import { constants, type ClientHttp2Session, type ServerHttp2Stream } from "node:http2";
import { Socket } from "node:net";
import { Readable } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { IncomingMessage, ServerResponse } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  END_HEADERS,
  END_STREAM,
  field,
  type Fields,
  FRAME,
  FrameClient,
  GET,
  head,
  POST,
  uint32,
} from "../../support/h2-frames.ts";
import { Http2Request } from "../../../tls/h2/request.ts";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import {
  connectTls,
  exchangeRaw,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../../support/tls-edge.ts";
import { waitFor } from "../../support/wait-for.ts";

interface Seen {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_PROTOCOL_ERROR } =
  constants;
let certificates: TestCertificates;
let upstream: TestUpstream;
let edge: TestEdge;
let session: ClientHttp2Session;
const seen: Seen[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    seen.push({ request, response });
    if (request.url === "/held") return;
    if (request.url?.startsWith("/empty/") === true) {
      request.socket.end(`HTTP/1.1 ${request.url.slice(7)} x\r\nContent-Length: 5\r\n\r\n`);
      return;
    }
    if (request.url === "/early-reads") {
      request.resume().on("error", () => undefined);
      response.end(Buffer.alloc(70_000));
      return;
    }
    if (request.url === "/early") {
      response.writeHead(413).end("enough");
      return;
    }
    if (request.url === "/large") {
      request.resume();
      response.setHeader("Content-Length", 3_000_000);
      response.end(Buffer.alloc(3_000_000, "y"));
      return;
    }
    response.setHeader("Set-Cookie", ["a=1", "b=2"]);
    response.setHeader("Connection", "X-Hop");
    response.setHeader("X-Hop", "1");
    response.setHeader("X-Latin", "caf\u00e9");
    request.pipe(response);
  });
  edge = await startEdge({ certificates, upstream: `http://127.0.0.1:${upstream.port}` });
  session = await openH2(edge.port, certificates.ca);
});
afterEach(() => {
  seen.length = 0;
  edge.codes.length = 0;
});
afterAll(async () => {
  session.destroy();
  await edge.close();
  await upstream.close();
  certificates.remove();
});

/** Names and values as they came, in lower case. */
const fieldsOf = ({ rawHeaders }: IncomingMessage): string[] =>
  rawHeaders.flatMap((text, i) =>
    i % 2 === 0 ? [`${text.toLowerCase()}: ${rawHeaders[i + 1]}`] : [],
  );

describe("a request", () => {
  test("reaches the upstream as HTTP/1.1 says it, without what is not the client's to say", async () => {
    const answer = await requestH2(session, {
      ":path": "/a?b=c",
      ":authority": "a.example",
      cookie: ["a=1", "b=2"],
      "x-forwarded-for": "192.0.2.1",
      "stile-admission": "x",
      te: "trailers",
      "x-own": "1",
    });
    expect(answer.status).toBe(200);
    expect(answer.headers["set-cookie"]).toStrictEqual(["a=1", "b=2"]);
    expect(answer.headers["x-hop"]).toBeUndefined();
    expect(answer.headers["connection"]).toBeUndefined();
    expect(answer.headers["x-latin"]).toBe("caf\u00e9");
    const [first] = seen;
    expect(first?.request.method).toBe("GET");
    expect(first?.request.url).toBe("/a?b=c");
    const fields = fieldsOf(first?.request ?? ({} as IncomingMessage));
    expect(fields).toContain("host: a.example");
    expect(fields).toContain("cookie: a=1; b=2");
    expect(fields).toContain("x-own: 1");
    expect(fields).toContain("x-forwarded-for: 127.0.0.1");
    expect(fields).toContain("x-forwarded-host: a.example");
    expect(fields.filter((field) => field.startsWith("x-forwarded-for"))).toHaveLength(1);
    expect(fields.some((field) => field.startsWith("stile-") || field.startsWith(":"))).toBe(false);
  });

  test("has its body with or without a length, and gets large answers whole", async () => {
    const body = "x".repeat(300_000);
    const open = await requestH2(session, { ":method": "POST" }, body);
    expect(open.body === body).toBe(true);
    expect(seen[0]?.request.headers["transfer-encoding"]).toBe("chunked");
    const sized = { ":method": "PUT", "content-length": String(body.length) };
    expect((await requestH2(session, sized, body)).body === body).toBe(true);
    expect(seen[1]?.request.headers["content-length"]).toBe("300000");
    expect((await requestH2(session, { ":path": "/large" })).body).toHaveLength(3_000_000);
    const bare = await requestH2(session, { ":path": "/large", ":method": "HEAD" });
    expect([bare.status, bare.body, bare.headers["content-length"]]).toStrictEqual([
      200,
      "",
      "3000000",
    ]);
  });

  test("is continued once it is forwarded", async () => {
    const stream = session.request({ ":method": "POST", ":path": "/", expect: "100-continue" });
    await new Promise((resolve) => stream.once("continue", resolve));
    stream.end("body");
    expect(Buffer.concat(await stream.toArray()).toString()).toBe("body");
    expect(seen[0]?.request.headers.expect).toBeUndefined();
  });

  test("does not wait for others of its connection", async () => {
    const held = requestH2(session, { ":path": "/held" });
    await waitFor(() => expect(seen).toHaveLength(1));
    expect((await requestH2(session, {}, "quick")).body).toBe("quick");
    seen[0]?.response.end("late");
    expect((await held).body).toBe("late");
  });
});

describe("what is agreed on", () => {
  const offer = async (port: number, ALPNProtocols: string[]): Promise<unknown> =>
    connectTls(port, certificates.ca, { ALPNProtocols }).then(
      (socket) => {
        socket.destroy();
        return socket.alpnProtocol;
      },
      (error: NodeJS.ErrnoException) => error.code,
    );

  test("is HTTP/2 where the client has it, in whatever order", async () => {
    expect(await offer(edge.port, ["http/1.1", "h2"])).toBe("h2");
    expect(await offer(edge.port, ["http/1.1"])).toBe("http/1.1");
  });

  test("is HTTP/1.1 where it is turned off", async () => {
    const target = `http://127.0.0.1:${upstream.port}`;
    const off = await startEdge({ certificates, upstream: target, http2: false });
    expect(await offer(off.port, ["h2", "http/1.1"])).toBe("http/1.1");
    expect(await offer(off.port, ["h2"])).toBe("ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL");
    await off.close();
  });

  test("is not HTTP/2 without ALPN: its preface is no request", async () => {
    const answer = await exchangeRaw(
      edge.port,
      certificates.ca,
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    );
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(seen).toHaveLength(0);
  });
});

describe("where one side gives up", () => {
  test("a client's reset ends the request at the upstream", async () => {
    const stream = session.request({ ":path": "/held" });
    stream.on("error", () => undefined);
    await waitFor(() => expect(seen).toHaveLength(1));
    stream.close(NGHTTP2_CANCEL);
    await waitFor(() => expect(seen[0]?.request.destroyed).toBe(true));
    expect(edge.codes).toStrictEqual([]);
  });

  test("a client that leaves within its body or its answer is nobody's failure", async () => {
    const upload = session.request({ ":method": "POST", ":path": "/" });
    upload.on("error", () => undefined);
    upload.write("part");
    await waitFor(() => expect(seen).toHaveLength(1));
    upload.close(NGHTTP2_CANCEL);
    await waitFor(() => expect(seen[0]?.request.destroyed).toBe(true));
    const download = session.request({ ":path": "/held" });
    download.on("error", () => undefined);
    await waitFor(() => expect(seen).toHaveLength(2));
    seen[1]?.response.write("part");
    await new Promise((resolve) => download.once("data", resolve));
    download.close(NGHTTP2_CANCEL);
    await waitFor(() => expect(seen[1]?.response.destroyed).toBe(true));
    expect(edge.codes).toStrictEqual([]);
  });

  test("an answer that breaks off is no whole answer", async () => {
    const stream = session.request({ ":path": "/held" });
    const failure = new Promise((resolve) => stream.once("error", resolve));
    await waitFor(() => expect(seen).toHaveLength(1));
    seen[0]?.response.write("part");
    await new Promise((resolve) => stream.once("data", resolve));
    seen[0]?.response.destroy();
    expect(await failure).toMatchObject({ code: "ERR_HTTP2_STREAM_ERROR" });
    expect(stream.rstCode).toBe(NGHTTP2_INTERNAL_ERROR);
    expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_UNREACHABLE"]);
  });

  test("an early answer ends an upload without an error", async () => {
    const client = await FrameClient.begin(edge.port, certificates.ca);
    client.request(1, [...POST.slice(0, 3), [":path", "/early"]], 0);
    client.send(FRAME.data, 0, 1, Buffer.alloc(1_000));
    expect(await client.resetCode(1)).toBe(NGHTTP2_NO_ERROR);
    expect(client.ofType(FRAME.data, 1).at(-1)?.flags).toBe(END_STREAM);
    client.socket.destroy();
  });

  test("an upload that its client breaks off behind an early answer is no whole one to the upstream", async () => {
    const client = await FrameClient.begin(edge.port, certificates.ca);
    client.request(1, [...POST.slice(0, 3), [":path", "/early-reads"]], 0);
    client.send(FRAME.data, 0, 1, Buffer.alloc(1_000));
    // Its window is full, with the end of the answer behind it.
    const received = (): number =>
      client.ofType(FRAME.data, 1).reduce((sum, { payload }) => sum + payload.length, 0);
    await waitFor(() => expect(received()).toBe(65_535));
    client.send(FRAME.rstStream, 0, 1, uint32(8));
    await waitFor(() => expect(seen[0]?.request.socket.destroyed).toBe(true));
    expect(seen[0]?.request.complete).toBe(false);
    client.socket.destroy();
  });

  /** What node:http2 shows: a stream with these properties, and an end that is no end. */
  const requestOn = (properties: object): { request: Http2Request; stream: Readable } => {
    const stream = Object.assign(new Readable({ read: () => undefined }), {
      endAfterHeaders: false,
      aborted: false,
      state: {},
    });
    for (const [name, value] of Object.entries(properties)) {
      Object.defineProperty(stream, name, { value });
    }
    const requestHead = { method: "POST", url: "/", rawHeaders: [], headers: {}, isTunnel: false };
    const request = new Http2Request(
      stream as unknown as ServerHttp2Stream,
      new Socket() as TLSSocket,
      requestHead,
      () => undefined,
    );
    return { request, stream };
  };

  test("a stream that ends since it was closed, behind an answer that was out, is no end of its request", async () => {
    // Not aborted, and an end all the same.
    const { request, stream } = requestOn({ closed: true });
    const ends: string[] = [];
    for (const name of ["end", "aborted"]) request.once(name, () => ends.push(name));
    request.resume();
    stream.push("part");
    stream.push(null);
    await new Promise<void>((resolve) => request.once("close", () => resolve()));
    expect(ends).toStrictEqual(["aborted"]);
  });

  test("a request of which the rest is let go has no end, be it whole", async () => {
    const { request, stream } = requestOn({ state: { remoteClose: 1 } });
    const seenOf: string[] = [];
    request.once("end", () => seenOf.push("end")).once("aborted", () => seenOf.push("aborted"));
    request.on("data", (chunk: Buffer) => seenOf.push(chunk.toString()));
    stream.push("part");
    await waitFor(() => expect(seenOf).toStrictEqual(["part"]));
    expect(request.complete).toBe(true);
    request.discard();
    stream.push("rest");
    stream.push(null);
    await new Promise<void>((resolve) => request.once("close", () => resolve()));
    expect(seenOf).toStrictEqual(["part", "aborted"]);
  });

  test("uploads that nobody reads leave room for others", async () => {
    for (let i = 0; i < 12; i += 1) {
      const early = session.request({ ":method": "POST", ":path": "/early" });
      early.on("error", () => undefined);
      early.write(Buffer.alloc(60_000));
      await new Promise((resolve) => early.once("close", resolve).resume());
    }
    const body = "x".repeat(200_000);
    expect((await requestH2(session, { ":method": "POST" }, body)).body === body).toBe(true);
  });

  test("an answer without content says no length, which clients would wait for", async () => {
    for (const status of [204, 205, 304]) {
      const answer = await requestH2(session, { ":path": `/empty/${status}` });
      expect([answer.status, answer.body]).toStrictEqual([status, ""]);
      expect(answer.headers["content-length"]).toBe(status === 304 ? "5" : undefined);
    }
  });

  test("an upstream that is down is 502 on its stream alone", async () => {
    const down = await startEdge({ certificates, upstream: "unix:/nonexistent/socket" });
    const own = await openH2(down.port, certificates.ca);
    expect((await requestH2(own, {})).status).toBe(502);
    expect((await requestH2(own, {}, "body")).status).toBe(502);
    own.destroy();
    await down.close();
  });
});

const without = (name: string): Fields => GET.filter(([known]) => known !== name);
const withField = (name: string, value: string): Fields => [...GET, [name, value]];
const instead = (name: string, value: string): Fields =>
  GET.map(([known, kept]) => [known, known === name ? value : kept] as const);

describe("a malformed head is refused, and the upstream does not hear of it", () => {
  /** Status 400, or a reset with PROTOCOL_ERROR before any handler saw it. */
  test.each<readonly [string, Fields]>([
    ["Host that is not :authority", withField("host", "b.example")],
    ["Host twice", [...withField("host", "a.example"), ["host", "b.example"]]],
    ["no authority", without(":authority")],
    ["userinfo in :authority", instead(":authority", "u@a.example")],
    ["http as its scheme", instead(":scheme", "http")],
    ["no path", without(":path")],
    ["an empty path", instead(":path", "")],
    ["an absolute path", instead(":path", "https://a.example/")],
    ["a path with a space", instead(":path", "/a b")],
    ["a path with a fragment", instead(":path", "/a#b")],
    ["a path with an encoded NUL", instead(":path", "/a%00")],
    ["an asterisk", instead(":path", "*")],
    ["no method", without(":method")],
    ["a pseudo-header twice", withField(":path", "/b")],
    ["a pseudo-header behind a field", [...GET.slice(0, 3), ["x-a", "1"], [":path", "/"]]],
    ["an unknown pseudo-header", [[":foo", "1"], ...GET]],
    ["a pseudo-header of answers", [[":status", "200"], ...GET]],
    ["TRACE", instead(":method", "TRACE")],
    ["trace, which node:http would send as TRACE", instead(":method", "trace")],
    ["delete, which is no DELETE", instead(":method", "delete")],
    ["connect with a path", instead(":method", "connect")],
    ["a method that HTTP/1.1's parser does not know", instead(":method", "NONE")],
    [
      "plain CONNECT",
      [
        [":method", "CONNECT"],
        [":authority", "a.example:443"],
      ],
    ],
    ["CONNECT with a path", instead(":method", "CONNECT")],
    ["another tunnel", [...instead(":method", "CONNECT"), [":protocol", "connect-udp"]]],
    [":protocol without CONNECT", withField(":protocol", "websocket")],
    ["Connection", withField("connection", "close")],
    ["Keep-Alive", withField("keep-alive", "1")],
    ["Proxy-Connection", withField("proxy-connection", "close")],
    ["Transfer-Encoding", withField("transfer-encoding", "chunked")],
    ["Upgrade", withField("upgrade", "h2c")],
    ["HTTP2-Settings", withField("http2-settings", "AAMAAABk")],
    ["TE for a coding", withField("te", "gzip")],
    ["upper case", withField("X-Upper", "1")],
    ["_ in a name", withField("x_real_ip", "1")],
    ["two lengths", [...withField("content-length", "0"), ["content-length", "0"]]],
    ["a length that is not the content's", withField("content-length", "5")],
    ["a length with a sign", withField("content-length", "+0")],
    ["two tokens", [...withField("authorization", "a"), ["authorization", "b"]]],
    ["an unknown expectation", withField("expect", "200-maybe")],
  ])("%s", async (_name, fields) => {
    const client = await FrameClient.begin(edge.port, certificates.ca);
    client.request(1, fields);
    // Its end, by whichever frame; the connection goes on, or ends as nghttp2 has it.
    client.request(3);
    const [status, next] = [client.status(1), client.status(3)];
    const outcome = await Promise.race([client.resetCode(1), status]);
    expect([NGHTTP2_PROTOCOL_ERROR, "400", undefined]).toContain(outcome);
    expect(await next).toBe("200");
    expect(seen).toHaveLength(1);
    client.socket.destroy();
  });

  test("a field with characters that HTTP does not have goes no further", async () => {
    for (const [name, value] of [
      ["x-a", "a\0b"],
      ["x-a", "a\nb"],
      ["x-a", "a\r\nx-b: 1"],
      ["x a", "1"],
      ["x-a\r\nx-b", "1"],
    ] as const) {
      const client = await FrameClient.begin(edge.port, certificates.ca);
      client.request(1, withField(name, value));
      // nghttp2 leaves the field out, or refuses the request.
      await Promise.race([client.status(1), client.resetCode(1)]);
      client.socket.destroy();
    }
    expect(JSON.stringify(seen.map(({ request }) => fieldsOf(request)))).not.toMatch(
      /x-?.?[ab]"?:/,
    );
  });

  test("a body that is longer or shorter than it says", async () => {
    for (const length of ["3", "9"]) {
      const client = await FrameClient.begin(edge.port, certificates.ca);
      client.request(1, [...POST, ["content-length", length]], 0);
      client.send(FRAME.data, END_STREAM, 1, Buffer.from("12345"));
      // The stream ends, or, as Node has it, the connection.
      const code = (await client.resetCode(1)) ?? client.goawayCode();
      expect([NGHTTP2_PROTOCOL_ERROR, NGHTTP2_INTERNAL_ERROR]).toContain(code);
      client.socket.destroy();
    }
    await waitFor(() => expect(seen.every(({ request }) => request.destroyed)).toBe(true));
    expect(seen.some(({ response }) => response.writableFinished)).toBe(false);
  });

  test("ends its stream, whatever was to follow", async () => {
    const client = await FrameClient.begin(edge.port, certificates.ca);
    client.request(1, [...POST, ["host", "b.example"]], 0);
    expect(await client.status(1)).toBe("400");
    expect(await client.resetCode(1)).toBe(NGHTTP2_NO_ERROR);
    client.request(3);
    expect(await client.status(3)).toBe("200");
    client.socket.destroy();
  });

  test("a head across CONTINUATION frames is one head", async () => {
    const client = await FrameClient.begin(edge.port, certificates.ca);
    client.send(FRAME.headers, END_STREAM, 1, head(GET));
    client.send(FRAME.continuation, END_HEADERS, 1, field("x-own", "1"));
    expect(await client.status(1)).toBe("200");
    expect(seen[0]?.request.headers["x-own"]).toBe("1");
    client.socket.destroy();
  });
});
