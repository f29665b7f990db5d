/** Bodies of HTTP/2 requests on upstream connections: how they are framed, who waits for whom, and what is never whole. */
import { createHash } from "node:crypto";
import type { IncomingMessage, OutgoingHttpHeaders } from "node:http";
import { type ClientHttp2Session, constants } from "node:http2";
import { createServer, type Socket } from "node:net";
import { PassThrough } from "node:stream";
import { describe, expect, test } from "vitest";
import type { Http2Request } from "../../../tls/h2/request.ts";
import { type SentBody, Upload } from "../../../tls/h2/upload.ts";
import { isStileError } from "../../../wire/index.ts";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import { END_STREAM, FRAME, FrameClient, POST, uint32 } from "../../support/h2-frames.ts";
import { type TestEdge, upstreamsTo } from "../../support/tls-edge.ts";
import {
  closeAfterTest,
  edgeBefore,
  edgeBeforeRaw,
  edgeCertificates,
  edgeTo,
  listenOn,
  type Options,
} from "../../support/tls-edges.ts";
import { waitFor } from "../../support/wait-for.ts";

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const MIB = 2 ** 20;

interface Taken {
  readonly socket: Socket;
  text: string;
}

interface Stage {
  readonly edge: TestEdge;
  readonly taken: Taken[];
}

/** @param onText sees all that a connection has brought, with each read */
async function stageOf(
  onText: (socket: Socket, text: string, count: number) => void,
  options: Options = {},
): Promise<Stage> {
  const taken: Taken[] = [];
  const edge = await edgeBeforeRaw((socket, count) => {
    const one: Taken = { socket, text: "" };
    taken.push(one);
    socket.on("data", (chunk: Buffer) => {
      one.text += chunk.toString("latin1");
      onText(socket, one.text, count);
    });
  }, options);
  return { edge, taken };
}

async function sessionTo({ port }: TestEdge): Promise<ClientHttp2Session> {
  const session = await openH2(port, edgeCertificates().ca);
  closeAfterTest(() => Promise.resolve(session.destroy()));
  return session;
}

async function framesTo({ port }: TestEdge): Promise<FrameClient> {
  const client = await FrameClient.begin(port, edgeCertificates().ca);
  closeAfterTest(() => Promise.resolve(void client.socket.destroy()));
  return client;
}

const sized = (length: number): OutgoingHttpHeaders => ({
  ":method": "POST",
  "content-length": String(length),
});
const bodyOf = (text: string): string => text.slice(text.lastIndexOf("\r\n\r\n") + 4);
/** Whether the connection is over, as the upstream sees it. */
const isOver = ({ socket }: Taken): boolean => socket.destroyed || socket.readableEnded;
const answerAt =
  (end: string) =>
  (socket: Socket, text: string): void => {
    if (text.endsWith(end)) socket.write(OK);
  };

/** What the client has sent was read, and could have been passed on. */
async function readBy(client: FrameClient): Promise<void> {
  client.send(FRAME.ping, 0, 0, Buffer.alloc(8));
  await client.next(FRAME.ping, 0);
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

test("a length goes on as it was said, in one write with its head, and connections are used again", async () => {
  const reads: string[] = [];
  const { edge, taken } = await stageOf((socket, text) => {
    reads.push(text);
    answerAt("12345")(socket, text);
  });
  const session = await sessionTo(edge);
  for (let i = 0; i < 3; i += 1) {
    expect((await requestH2(session, sized(5), "12345")).body).toBe("ok");
  }
  expect(taken).toHaveLength(1);
  const heads = (taken[0]?.text ?? "").split("12345");
  expect(heads).toHaveLength(4);
  expect(heads[2]).toMatch(/^POST \/ HTTP\/1\.1\r\n(?:[^\r]+\r\n)*content-length: 5\r\n/);
  expect(heads[2]?.toLowerCase()).not.toContain("transfer-encoding");
  // A client may send its head and its body apart: most do not.
  expect(reads.length).toBeLessThan(6);
});

test("a body without a length is chunks of the same bytes", async () => {
  const { edge, taken } = await stageOf(answerAt("\r\n0\r\n\r\n"));
  const session = await sessionTo(edge);
  const body = Array.from({ length: 100_000 }, (_, i) => String(i % 10)).join("");
  for (const sent of ["x", body, "y"]) {
    const answer = await requestH2(session, { ":method": "PUT" }, sent);
    expect(answer.body).toBe("ok");
  }
  expect(taken).toHaveLength(1);
  const [, ...requests] = (taken[0]?.text ?? "").split("PUT / HTTP/1.1\r\n");
  const read = requests.map((text) => {
    expect(text.toLowerCase()).toContain("\r\ntransfer-encoding: chunked\r\n");
    let content = "";
    for (let at = text.indexOf("\r\n\r\n") + 4; ;) {
      const lineEnd = text.indexOf("\r\n", at);
      const size = Number.parseInt(text.slice(at, lineEnd), 16);
      if (size === 0) return content;
      content += text.slice(lineEnd + 2, lineEnd + 2 + size);
      at = lineEnd + 2 + size + 2;
    }
  });
  expect(read.map((content) => content.length)).toStrictEqual([1, 100_000, 1]);
  expect(read[1] === body).toBe(true);
});

test("a body that is empty after all", async () => {
  const { edge } = await stageOf(answerAt("0\r\n\r\n"));
  const client = await framesTo(edge);
  client.request(1, POST, 0);
  client.send(FRAME.data, END_STREAM, 1);
  expect(await client.status(1)).toBe("200");
});

test.each([
  ["chunked", undefined],
  ["sized", 32 * MIB],
])(
  "an upstream that does not read holds the client back (%s), and gets every byte",
  async (_name, length) => {
    const received = createHash("sha256");
    let bytes = 0;
    let upstream: IncomingMessage | undefined;
    const edge = await edgeBefore((request, response) => {
      upstream = request;
      request.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        received.update(chunk);
      });
      request.pause();
      request.once("end", () => response.end("ok"));
    });
    const session = await sessionTo(edge);
    const sent = createHash("sha256");
    const stream = session.request({
      ":method": "POST",
      ...(length && { "content-length": length }),
    });
    let written = 0;
    const write = (): void => {
      while (written < 32 * MIB) {
        const chunk = Buffer.alloc(65_536, written / 65_536);
        sent.update(chunk);
        written += chunk.length;
        if (!stream.write(chunk)) return;
      }
      stream.off("drain", write).end();
    };
    stream.on("drain", write);
    write();
    let last = -1;
    await waitFor(
      () => {
        const isSame = written === last;
        last = written;
        expect(isSame).toBe(true);
      },
      { interval: 200, timeout: 5_000 },
    );
    // What lies in the kernel's buffers, and 64 KiB in each of ours.
    expect(written / MIB).toBeLessThan(20);
    upstream?.resume();
    expect(Buffer.concat(await stream.toArray()).toString()).toBe("ok");
    expect(bytes).toBe(32 * MIB);
    expect(received.digest("hex")).toBe(sent.digest("hex"));
  },
);

test("a client is told to continue once there is an upstream to send to, and not where there is none", async () => {
  const { edge, taken } = await stageOf(answerAt("body"));
  const session = await sessionTo(edge);
  const stream = session.request({ ...sized(4), expect: "100-continue" });
  await new Promise((resolve) => stream.once("continue", resolve));
  stream.end("body");
  expect(Buffer.concat(await stream.toArray()).toString()).toBe("ok");
  expect(taken[0]?.text.toLowerCase()).not.toContain("expect");

  const upstreams = upstreamsTo(["http://127.0.0.1:1"], { settings: { maxUnderWay: 0 } });
  const full = await edgeTo("", { upstreams });
  const refused = (await sessionTo(full)).request({ ...sized(4), expect: "100-continue" });
  let isContinued = false;
  refused.once("continue", () => (isContinued = true));
  await new Promise((resolve) => refused.once("response", resolve));
  expect(isContinued).toBe(false);
  expect(full.codes).toStrictEqual(["TLS_UPSTREAM_BUSY"]);
  refused.close();
});

test("rejects a body without a length that grows too large, and ends it at the upstream", async () => {
  const { edge, taken } = await stageOf(() => undefined, { forwarder: { maxBodyBytes: 10 } });
  const client = await framesTo(edge);
  client.request(1, POST, 0);
  client.send(FRAME.data, 0, 1, Buffer.from("12345678"));
  await waitFor(() => expect(taken[0]?.text).toContain("12345678"));
  client.send(FRAME.data, END_STREAM, 1, Buffer.from("90a"));
  expect(await client.status(1)).toBe("413");
  expect(edge.codes).toStrictEqual(["TLS_BODY_TOO_LARGE"]);
  await waitFor(() => expect(taken.every(isOver)).toBe(true));
  expect(taken[0]?.text).toMatch(/\r\n\r\n8\r\n12345678\r\n$/);
  const large = await requestH2(await sessionTo(edge), sized(11), "1234567890a");
  expect(large.status).toBe(413);
  expect(taken).toHaveLength(1);
});

test("an early answer passes, the rest is let go, and its connection serves nobody else", async () => {
  const { edge, taken } = await stageOf((socket, text, count) => {
    if (count === 1 && text.includes("part")) socket.write(OK);
    if (count > 1) socket.write(OK);
  });
  const client = await framesTo(edge);
  client.request(1, POST, 0);
  client.send(FRAME.data, 0, 1, Buffer.from("part"));
  expect(await client.resetCode(1)).toBe(constants.NGHTTP2_NO_ERROR);
  expect(Buffer.concat(client.ofType(FRAME.data, 1).map(({ payload }) => payload)).toString()).toBe(
    "ok",
  );
  await waitFor(() => expect(taken.every(isOver)).toBe(true));
  expect(taken[0]?.text).not.toContain("0\r\n\r\n");
  expect((await requestH2(await sessionTo(edge), {})).body).toBe("ok");
  expect(taken).toHaveLength(2);
  expect(edge.codes).toStrictEqual([]);
  // A stream that never closed would hold the connection up to the deadline.
  const begun = performance.now();
  await edge.listener.drain(30_000);
  expect(performance.now() - begun).toBeLessThan(10_000);
});

test("an answer that begins early goes on beside the body", async () => {
  const { edge, taken } = await stageOf((socket, text) => {
    if (text.endsWith("last")) socket.write(OK);
    else if (text.endsWith("0\r\n\r\n")) socket.write("2\r\nok\r\n0\r\n\r\n");
    else if (text.endsWith("one\r\n"))
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  });
  const session = await sessionTo(edge);
  const stream = session.request({ ":method": "POST" });
  const head = new Promise((resolve) => stream.once("response", resolve));
  stream.write("one");
  await head;
  stream.end("two");
  expect(Buffer.concat(await stream.toArray()).toString()).toBe("ok");
  expect(taken[0]?.text).toContain("\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
  expect((await requestH2(session, sized(4), "last")).status).toBe(200);
  expect(taken).toHaveLength(1);
});

test.each(["chunked", "sized"])(
  "a body that its client breaks off is no whole one (%s)",
  async (framing) => {
    const { edge, taken } = await stageOf((socket, _text, count) => {
      if (count > 1) socket.write(OK);
    });
    const client = await framesTo(edge);
    client.request(1, framing === "sized" ? [...POST, ["content-length", "8"]] : POST, 0);
    client.send(FRAME.data, 0, 1, Buffer.from("part"));
    await waitFor(() => expect(taken[0]?.text).toContain("part"));
    client.send(FRAME.rstStream, 0, 1, uint32(constants.NGHTTP2_CANCEL));
    await waitFor(() => expect(taken.every(isOver)).toBe(true));
    expect(taken[0]?.text).toMatch(
      framing === "sized" ? /\r\n\r\npart$/ : /\r\n\r\n4\r\npart\r\n$/,
    );
    expect((await requestH2(await sessionTo(edge), {})).body).toBe("ok");
    expect(taken).toHaveLength(2);
    expect(edge.codes).toStrictEqual([]);
  },
);

describe.each([
  ["past node:http", []],
  ["by the general path", [["te", "trailers"]]],
] as const)("%s", (_name, fields) => {
  test.each([
    ["longer", ["12345", "678"]],
    ["longer in one frame", ["12345678"]],
    ["shorter", ["1234"]],
  ])("a body that is %s than it says is no whole one", async (_way, frames) => {
    const { edge, taken } = await stageOf(() => undefined);
    const client = await framesTo(edge);
    client.request(1, [...POST, ["content-length", "5"], ...fields], 0);
    for (const [i, text] of frames.entries()) {
      // By then an upstream could have had what came so far.
      if (i > 0) await waitFor(() => expect(taken).toHaveLength(1));
      if (i > 0) await readBy(client);
      client.send(FRAME.data, i + 1 === frames.length ? END_STREAM : 0, 1, Buffer.from(text));
    }
    const code = (await client.resetCode(1)) ?? client.goawayCode();
    expect([constants.NGHTTP2_PROTOCOL_ERROR, constants.NGHTTP2_INTERNAL_ERROR]).toContain(code);
    // Node keeps a connection on which nothing was sent.
    const isUsed = ({ text }: Taken): boolean => text !== "";
    await waitFor(() => expect(taken.filter(isUsed).every(isOver)).toBe(true));
    for (const { text } of taken) expect(bodyOf(text).length).toBeLessThan(5);
  });
});

test("the last bytes of a length wait for the client's end of the stream", async () => {
  const { edge, taken } = await stageOf(answerAt("12345678"));
  const client = await framesTo(edge);
  client.request(1, [...POST, ["content-length", "8"]], 0);
  client.send(FRAME.data, 0, 1, Buffer.from("1234"));
  await waitFor(() => expect(taken[0]?.text).toMatch(/\r\n\r\n1234$/));
  client.send(FRAME.data, 0, 1, Buffer.from("5678"));
  await readBy(client);
  expect(bodyOf(taken[0]?.text ?? "")).toBe("1234");
  client.send(FRAME.data, END_STREAM, 1);
  expect(await client.status(1)).toBe("200");
});

test("goes elsewhere, whole, where it was not sent, and nowhere else where it was", async () => {
  const bodies: string[] = [];
  let isBroken = false;
  const server = createServer((socket) => {
    let text = "";
    socket
      .on("error", () => undefined)
      .on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1");
        if (!text.endsWith("end")) return;
        bodies.push(bodyOf(text));
        text = "";
        if (isBroken) socket.destroy();
        else socket.write(OK);
      });
  });
  const port = await listenOn(server);
  closeAfterTest(() => new Promise((resolve) => void server.close(() => resolve())));
  // Nobody listens at the first one.
  const upstreams = upstreamsTo(["unix:/nonexistent/socket", `http://127.0.0.1:${port}`]);
  const edge = await edgeTo("", { upstreams });
  const session = await sessionTo(edge);
  const body = `${"x".repeat(30_000)}end`;
  expect((await requestH2(session, sized(body.length), body)).body).toBe("ok");
  expect(upstreams.all.map(({ outcomes }) => [outcomes.connect, outcomes.answered])).toStrictEqual([
    [1, 0],
    [0, 1],
  ]);
  expect(bodies).toStrictEqual([body]);
  isBroken = true;
  expect((await requestH2(session, sized(3), "end")).status).toBe(502);
  expect(bodies).toStrictEqual([body, "end"]);
  await waitFor(() => expect(upstreams.all.map(({ underWay }) => underWay)).toStrictEqual([0, 0]));
});

const QUICK = { firstByteTimeoutMs: 200, idleTimeoutMs: 200 };

test("a client that sends nothing more is not its upstream's fault", async () => {
  const { edge, taken } = await stageOf(() => undefined, { forwarder: QUICK });
  const client = await framesTo(edge);
  client.request(1, POST, 0);
  client.send(FRAME.data, 0, 1, Buffer.from("part"));
  expect(await client.resetCode(1)).toBe(constants.NGHTTP2_INTERNAL_ERROR);
  expect(edge.codes).toStrictEqual([]);
  await waitFor(() => expect(taken.every(isOver)).toBe(true));
});

test("an upstream that takes nothing more is not its client's fault", async () => {
  const edge = await edgeBeforeRaw((socket) => void socket.pause(), { forwarder: QUICK });
  const session = await sessionTo(edge);
  const stream = session.request({ ":method": "POST" });
  stream.on("error", () => undefined);
  const answered = new Promise((resolve) =>
    stream.once("response", (headers) => resolve(headers[":status"])),
  );
  const write = (): boolean => stream.write(Buffer.alloc(65_536));
  stream.on("drain", write);
  write();
  expect(await answered).toBe(504);
  expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_TIMEOUT"]);
  stream.close();
  // What was read of it, and what was not, is let go.
  const begun = performance.now();
  await edge.listener.drain(30_000);
  expect(performance.now() - begun).toBeLessThan(10_000);
});

test("TE: trailers goes the general way, body and all", async () => {
  const edge = await edgeBefore((request, response) => {
    response.addTrailers([["X-Sum", "1"]]);
    request.pipe(response);
  });
  const answer = await requestH2(
    await sessionTo(edge),
    { ":method": "POST", te: "trailers" },
    "body",
  );
  expect([answer.body, answer.trailers["x-sum"]]).toStrictEqual(["body", "1"]);
});

/** What nghttp2 keeps from us. */
test.each([
  ["shorter than it says", ["12"], "TLS_HEAD_REJECTED"],
  ["longer than it says", ["12345", "6"], "TLS_HEAD_REJECTED"],
  ["what it says", ["123", "45"], "whole"],
])("a body that is %s is seen without nghttp2, too", async (_name, pieces, outcome) => {
  const request = Object.assign(new PassThrough(), { complete: true, rawTrailers: [] });
  const body: SentBody = { kind: "sized", length: 5, maxBytes: 10 };
  const written: string[] = [];
  const result = new Promise<string>((resolve) => {
    const take = (bytes: Buffer): boolean => {
      written.push(bytes.toString());
      return true;
    };
    const upload = new Upload(request as unknown as Http2Request, body, "head", {
      begin: take,
      write: take,
      onFailure: (error) => resolve(isStileError(error) ? error.code : "unknown"),
    });
    request.once("end", () => setImmediate(() => resolve(upload.stop() ? "whole" : "part")));
    upload.start(false);
  });
  for (const piece of pieces) request.write(piece);
  request.end();
  expect(await result).toBe(outcome);
  expect(written).toStrictEqual(outcome === "whole" ? ["head12345"] : []);
});
