/** What attacks on HTTP/2 get (docs/http2.md has the table): an end that is bounded, and an upstream left alone. */
import { once } from "node:events";
import { constants } from "node:http2";
import type { IncomingMessage, ServerResponse } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { ListenerLimits } from "../../../tls/index.ts";
import {
  END_HEADERS,
  END_STREAM,
  field,
  frame,
  FRAME,
  FrameClient,
  GET,
  head,
  POST,
  uint32,
} from "../../support/h2-frames.ts";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import {
  connectTls,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../../support/tls-edge.ts";
import { waitFor } from "../../support/wait-for.ts";

const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = constants;
const LARGE = 1_000_000;
let certificates: TestCertificates;
let upstream: TestUpstream;
const edges: TestEdge[] = [];
const seen: { request: IncomingMessage; response: ServerResponse }[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    seen.push({ request, response });
    if (request.url === "/held") return;
    request.resume();
    if (request.url === "/large") response.end(Buffer.alloc(LARGE));
    else request.once("end", () => response.end("ok"));
  });
});
afterEach(async () => {
  for (const edge of edges.splice(0)) await edge.close();
  seen.length = 0;
});
afterAll(async () => {
  await upstream.close();
  certificates.remove();
});

async function start(limits: Partial<ListenerLimits> = {}): Promise<TestEdge> {
  const edge = await startEdge({
    certificates,
    upstream: `http://127.0.0.1:${upstream.port}`,
    limits,
  });
  edges.push(edge);
  return edge;
}

async function begin(
  limits: Partial<ListenerLimits> = {},
): Promise<{ edge: TestEdge; client: FrameClient }> {
  const edge = await start(limits);
  return { edge, client: await FrameClient.begin(edge.port, certificates.ca) };
}

const path = (value: string): [string, string] => [":path", value];
const HELD = [...GET.slice(0, 3), path("/held")] as const;

describe("time", () => {
  test("lets go of a connection that it has ended, where the client never ends its side", async () => {
    const limits = { keepAliveTimeoutMs: 100, headersTimeoutMs: 100, maxConnectionsPerAddress: 1 };
    const edge = await start(limits);
    const halfOpen = { ALPNProtocols: ["h2"], servername: "localhost", allowHalfOpen: true };
    const client = await connectTls(edge.port, certificates.ca, halfOpen);
    client.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.write(frame(FRAME.settings, 0, 0, new Uint8Array()));
    client.resume();
    await once(client, "end");
    expect(client.destroyed).toBe(false);
    const next = await waitFor(() => connectTls(edge.port, certificates.ca), { timeout: 5_000 });
    next.destroy();
    client.destroy();
  });

  test("cuts a client that reads nothing at all: its streams' resets wait behind what it does not read", async () => {
    const edge = await start({
      idleTimeoutMs: 100,
      keepAliveTimeoutMs: 100,
      maxConnectionsPerAddress: 1,
    });
    const wide = Buffer.concat([Buffer.from([0, 4]), uint32(0x7fffffff)]);
    const client = await FrameClient.begin(edge.port, certificates.ca, wide);
    client.send(FRAME.windowUpdate, 0, 0, uint32(0x70000000));
    client.socket.pause();
    // More than the kernel holds on both sides.
    for (let i = 0; i < 40; i += 1) client.request(2 * i + 1, [...GET.slice(0, 3), path("/large")]);
    await waitFor(() => expect(seen.length).toBe(40), { timeout: 5_000 });
    const next = await waitFor(() => connectTls(edge.port, certificates.ca), { timeout: 8_000 });
    next.destroy();
    client.socket.destroy();
  });

  test("ends a connection on which no preface comes", async () => {
    const edge = await start({ headersTimeoutMs: 100 });
    const client = await FrameClient.open(edge.port, certificates.ca);
    await client.closed;
    expect(edge.events).toContain("h2-timeout");
  });

  test("ends a connection without a request, and one whose head does not end", async () => {
    const { client } = await begin({ headersTimeoutMs: 100 });
    await client.closed;
    expect(client.goawayCode()).toBe(NGHTTP2_NO_ERROR);
    const other = (await begin({ headersTimeoutMs: 100 })).client;
    other.send(FRAME.headers, END_STREAM, 1, head(GET));
    await other.closed;
    expect(seen).toHaveLength(0);
  });

  test("ends a kept connection, whatever PINGs say", async () => {
    const { client } = await begin({ keepAliveTimeoutMs: 50 });
    client.request(1);
    expect(await client.status(1)).toBe("200");
    const pings = setInterval(() => client.send(FRAME.ping, 0, 0, Buffer.alloc(8)), 50);
    await client.closed;
    clearInterval(pings);
    expect(client.goawayCode()).toBe(NGHTTP2_NO_ERROR);
  });

  test("ends bodies that trickle, and their requests at the upstream, on every stream", async () => {
    const { client, edge } = await begin({ headersTimeoutMs: 100, requestTimeoutMs: 200 });
    for (let stream = 1; stream < 40; stream += 2) client.request(stream, POST, 0);
    const trickle = setInterval(() => {
      for (let stream = 1; stream < 40; stream += 2) {
        if (client.ofType(FRAME.rstStream, stream).length === 0)
          client.send(FRAME.data, 0, stream, Buffer.from("x"));
      }
    }, 20);
    for (let stream = 1; stream < 40; stream += 2) {
      expect(await client.status(stream)).toBe("408");
    }
    clearInterval(trickle);
    await waitFor(() => expect(seen.every(({ request }) => request.destroyed)).toBe(true));
    expect(edge.events.filter((event) => event === "h2-timeout")).toHaveLength(20);
    client.socket.destroy();
  });

  test("ends a body that goes silent", async () => {
    const { client } = await begin({ idleTimeoutMs: 100 });
    client.request(1, POST, 0);
    expect(await client.status(1)).toBe("408");
    client.socket.destroy();
  });

  test("ends answers that nobody takes: a window that stays shut holds no upstream", async () => {
    const edge = await start({ idleTimeoutMs: 200 });
    const noWindow = Buffer.concat([Uint8Array.of(0, 4), uint32(0)]);
    const client = await FrameClient.begin(edge.port, certificates.ca, noWindow);
    for (let stream = 1; stream < 20; stream += 2) {
      client.request(stream, [...GET.slice(0, 3), path("/large")]);
    }
    for (let stream = 1; stream < 20; stream += 2) {
      expect(await client.resetCode(stream)).toBeDefined();
      expect(client.ofType(FRAME.data, stream)).toHaveLength(0);
    }
    await waitFor(() => expect(seen.every(({ response }) => response.closed)).toBe(true));
    client.socket.destroy();
  });

  test("is not over for a client that waits for a slow upstream", async () => {
    const { client } = await begin({
      idleTimeoutMs: 50,
      headersTimeoutMs: 50,
      requestTimeoutMs: 50,
      keepAliveTimeoutMs: 50,
    });
    client.request(1, HELD);
    await waitFor(() => expect(seen).toHaveLength(1));
    await new Promise((resolve) => setTimeout(resolve, 200));
    seen[0]?.response.end("late");
    expect(await client.status(1)).toBe("200");
    client.socket.destroy();
  });
});

describe("number", () => {
  test("of streams at once: more are refused, and could be sent anew", async () => {
    const { client } = await begin({ maxStreams: 10 });
    for (let i = 0; i < 15; i += 1) client.request(1 + 2 * i, HELD);
    for (let i = 10; i < 15; i += 1) {
      expect(await client.resetCode(1 + 2 * i)).toBe(NGHTTP2_REFUSED_STREAM);
    }
    await waitFor(() => expect(seen).toHaveLength(10));
    client.socket.destroy();
    await waitFor(() => expect(seen.every(({ request }) => request.destroyed)).toBe(true));
  });

  test.each([
    ["in one segment (CVE-2023-44487)", true],
    ["one by one", false],
  ])("of resets, %s", async (_name, isAtOnce) => {
    const { client, edge } = await begin({ maxAbortedStreams: 50 });
    const pieces: Buffer[] = [];
    for (let i = 0; i < 2_000; i += 1) {
      const stream = 1 + 2 * i;
      const pair = [
        frame(FRAME.headers, END_STREAM | END_HEADERS, stream, head(HELD)),
        frame(FRAME.rstStream, 0, stream, uint32(8)),
      ];
      if (isAtOnce) pieces.push(...pair);
      else {
        client.socket.write(pair[0] ?? "");
        await new Promise((resolve) => setImmediate(resolve));
        if (client.socket.destroyed) break;
        client.socket.write(pair[1] ?? "");
      }
    }
    client.socket.write(Buffer.concat(pieces));
    await client.closed;
    expect(client.goawayCode() ?? NGHTTP2_ENHANCE_YOUR_CALM).toBe(NGHTTP2_ENHANCE_YOUR_CALM);
    expect(edge.events).toContain("h2-calmed");
    expect(seen.length).toBeLessThanOrEqual(51 + 100);
    await waitFor(() => expect(seen.every(({ request }) => request.destroyed)).toBe(true));
  });

  test.each<readonly [string, (client: FrameClient, stream: number) => void]>([
    [
      "a window that overflows",
      (client, stream) => client.send(FRAME.windowUpdate, 0, stream, uint32(0x7fffffff)),
    ],
    [
      "a window of nothing",
      (client, stream) => client.send(FRAME.windowUpdate, 0, stream, uint32(0)),
    ],
    [
      "data behind the end",
      (client, stream) => client.send(FRAME.data, 0, stream, Buffer.from("x")),
    ],
    ["a second head", (client, stream) => client.request(stream, [["x-a", "1"]])],
    [
      "a priority of a wrong size",
      (client, stream) => client.send(FRAME.priority, 0, stream, Buffer.alloc(3)),
    ],
  ])("of resets that the server is made to send, by %s (CVE-2025-8671)", async (_name, provoke) => {
    const { client } = await begin({ maxAbortedStreams: 50 });
    for (let i = 0; i < 1_000 && !client.socket.destroyed; i += 1) {
      const stream = 1 + 2 * i;
      client.request(stream, HELD);
      provoke(client, stream);
      if (i % 20 === 19) await new Promise((resolve) => setImmediate(resolve));
    }
    await client.closed;
    expect(seen.length).toBeLessThanOrEqual(51 + 100);
  });

  test("is not that of a connection on which most streams are answered", async () => {
    const { client, edge } = await begin({ maxAbortedStreams: 10, abortedStreamsPerSecond: 0 });
    for (let i = 0; i < 60; i += 1) {
      client.request(1 + 4 * i);
      expect(await client.status(1 + 4 * i)).toBe("200");
      client.request(3 + 4 * i, HELD);
      client.send(FRAME.rstStream, 0, 3 + 4 * i, uint32(8));
    }
    expect(edge.events).not.toContain("h2-calmed");
    client.socket.destroy();
  });

  test("of heads that are refused", async () => {
    const { client, edge } = await begin({ maxAbortedStreams: 50 });
    for (let i = 0; i < 500 && !client.socket.destroyed; i += 1) {
      client.request(1 + 2 * i, [...GET, ["host", "b.example"]]);
      if (i % 20 === 19) await new Promise((resolve) => setImmediate(resolve));
    }
    await client.closed;
    expect(edge.events).toContain("h2-calmed");
    expect(seen).toHaveLength(0);
  });
});

describe("heads", () => {
  test("CONTINUATION without end is ended (CVE-2024-27316)", async () => {
    const { client } = await begin();
    client.send(FRAME.headers, END_STREAM, 1, head(GET));
    for (let i = 0; i < 100_000 && !client.socket.destroyed; i += 1) {
      client.send(FRAME.continuation, 0, 1, field("x-a", "x".repeat(100)));
      if (i % 100 === 99) await new Promise((resolve) => setImmediate(resolve));
    }
    await client.closed;
    expect(seen).toHaveLength(0);
  });

  const many = (count: number, value: string): Buffer =>
    head(Array.from({ length: count }, (_, i) => [`x-${i}`, value] as const));
  test.each([
    ["more fields than may be", many(150, "1")],
    ["more bytes than may be", many(90, "x".repeat(120))],
    ["a bomb of references to one field", bomb()],
  ])("%s are refused", async (_name, fields) => {
    const { client } = await begin({ maxHeaderBytes: 8_192 });
    const block = Buffer.concat([head(GET), fields]);
    client.send(FRAME.headers, END_STREAM | END_HEADERS, 1, block);
    client.request(3);
    expect([undefined, "431", NGHTTP2_ENHANCE_YOUR_CALM]).toContain(
      await Promise.race([client.status(1), client.resetCode(1)]),
    );
    await Promise.race([client.status(3), client.closed]);
    expect(seen.length).toBeLessThanOrEqual(1);
    client.socket.destroy();
  });
});

/** 4 kB go into the dynamic table (RFC 7541 §6.2.1), and then a byte for each further copy of them. */
function bomb(): Buffer {
  const value = Buffer.alloc(3_900, "x");
  const length = Buffer.from([0x7f, ((3_900 - 127) & 0x7f) | 0x80, (3_900 - 127) >> 7]);
  const literal = Buffer.concat([Uint8Array.of(0x40, 3), Buffer.from("x-a"), length, value]);
  return Buffer.concat([literal, Buffer.alloc(8_000, 0x80 | 62)]);
}

describe("frames that carry no request", () => {
  const idle = { maxOverheadBytes: 1_000 };
  test.each<readonly [string, Buffer]>([
    ["PING", frame(FRAME.ping, 0, 0, Buffer.alloc(8))],
    ["SETTINGS", frame(FRAME.settings, 0, 0, Buffer.alloc(0))],
    ["PRIORITY", frame(FRAME.priority, 0, 1, Buffer.from([0, 0, 0, 0, 1]))],
    ["WINDOW_UPDATE", frame(FRAME.windowUpdate, 0, 0, uint32(1))],
    ["empty DATA", frame(FRAME.data, 0, 1, Buffer.alloc(0))],
    ["frames of an unknown type", frame(0xbb, 0, 0, Buffer.alloc(8))],
    ["padding", frame(FRAME.data, 8, 1, Buffer.concat([Uint8Array.of(200), Buffer.alloc(200)]))],
  ])("%s: a flood ends the connection", async (_name, bytes) => {
    const { client, edge } = await begin(idle);
    client.request(1, [...POST.slice(0, 3), path("/held")], 0);
    const flood = Buffer.concat(
      Array.from({ length: Math.ceil(400_000 / bytes.length) }, () => bytes),
    );
    client.socket.write(flood);
    await client.closed;
    expect(edge.events.some((event) => event === "h2-calmed" || event === "h2-error")).toBe(true);
    await waitFor(() => expect(seen.every(({ request }) => request.destroyed)).toBe(true));
    // Others are served meanwhile, and after.
    const session = await openH2(edge.port, certificates.ca);
    expect((await requestH2(session, {})).status).toBe(200);
    session.destroy();
  });

  test("a client that reads none of the answers to them is cut", async () => {
    const { client } = await begin(idle);
    client.socket.pause();
    const flood = frame(FRAME.ping, 0, 0, Buffer.alloc(8));
    client.socket.write(Buffer.concat(Array.from({ length: 100_000 }, () => flood)));
    client.socket.on("error", () => undefined);
    await waitFor(() => {
      // nghttp2 counts what it has to acknowledge.
      expect(edges[0]?.events).toContain("h2-error");
    });
    client.socket.resume();
    await client.closed;
  });

  test("large bodies and answers are none, and many small frames are neither", async () => {
    const edge = await start({ maxOverheadBytes: 1_000, overheadBytesPerSecond: 0 });
    const session = await openH2(edge.port, certificates.ca);
    for (let i = 0; i < 5; i += 1) {
      expect((await requestH2(session, { ":path": "/large" })).body).toHaveLength(LARGE);
      expect((await requestH2(session, { ":method": "POST" }, Buffer.alloc(LARGE))).body).toBe(
        "ok",
      );
    }
    const stream = session.request({ ":method": "POST", ":path": "/" });
    for (let i = 0; i < 40_000; i += 1) {
      if (!stream.write("x")) await new Promise((resolve) => stream.once("drain", resolve));
    }
    stream.end();
    expect(Buffer.concat(await stream.toArray()).toString()).toBe("ok");
    expect(edge.events).not.toContain("h2-calmed");
    session.destroy();
  });
});

describe("drain", () => {
  test("announces itself, lets streams end, and takes no new ones", async () => {
    const edge = await start();
    const session = await openH2(edge.port, certificates.ca);
    const idle = await openH2(edge.port, certificates.ca);
    const goaways: number[] = [];
    session.on("goaway", (_code, lastStream: number) => goaways.push(lastStream));
    const held = requestH2(session, { ":path": "/held" });
    await waitFor(() => expect(seen).toHaveLength(1));
    const drained = edge.listener.drain(10_000);
    await new Promise((resolve) => idle.once("close", resolve));
    await waitFor(() => expect(session.closed).toBe(true));
    expect(goaways[0]).toBe(2 ** 31 - 1);
    seen[0]?.response.end("whole");
    expect((await held).body).toBe("whole");
    await drained;
  });

  test("cuts what is left at the deadline", async () => {
    const { client, edge } = await begin();
    client.request(1, HELD);
    await waitFor(() => expect(seen).toHaveLength(1));
    await edge.listener.drain(50);
    await client.closed;
    await waitFor(() => expect(seen[0]?.request.destroyed).toBe(true));
  });
});
