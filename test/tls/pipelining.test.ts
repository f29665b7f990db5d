/** What one connection, and all of them together, can have done at the upstream at once: the general path. */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect } from "node:tls";
import { describe, expect, test } from "vitest";
import { readAll, startUpstream, upstreamsTo } from "../support/tls-edge.ts";
import { closeAfterTest, edgeBefore, edgeCertificates, edgeTo } from "../support/tls-edges.ts";
import { waitFor } from "../support/wait-for.ts";

const GET = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

async function open(port: number): Promise<ReturnType<typeof connect>> {
  const { ca } = edgeCertificates();
  const socket = connect({ host: "127.0.0.1", port, servername: "localhost", ca });
  await once(socket, "secureConnect");
  return socket.on("error", () => undefined);
}

describe("pipelined requests", () => {
  test("wait where too many of one connection are under way, and all get their answer", async () => {
    let underWay = 0;
    let most = 0;
    const edge = await edgeBefore(
      (_request, response) => {
        underWay += 1;
        most = Math.max(most, underWay);
        setTimeout(() => {
          underWay -= 1;
          response.end("answered.");
        }, 5);
      },
      { fastPath: false, limits: { maxPipelined: 4 } },
    );
    const socket = await open(edge.port);
    const count = 200;
    socket.write(GET.repeat(count));
    let text = "";
    for await (const chunk of socket) {
      text += String(chunk);
      if (text.split("answered.").length - 1 === count) break;
    }
    expect(text.split("HTTP/1.1 200").length - 1).toBe(count);
    expect(most).toBe(4);
  });

  test("are not read without end while the first waits for its answer", async () => {
    const held: ServerResponse[] = [];
    const edge = await edgeBefore((_request, response) => held.push(response), {
      fastPath: false,
      limits: { maxPipelined: 4 },
    });
    let parsed = 0;
    const count = (): void => void (parsed += 1);
    subscribe("http.server.request.start", count);
    const socket = await open(edge.port);
    // A listener that reads on would hold all of them; the rest of 20 MB stays with the client.
    const block = GET.repeat(4_000);
    const blocks = Math.ceil(20_000_000 / block.length);
    for (let sent = 0; sent < blocks; sent += 1) socket.write(block);
    await waitFor(() => expect(held).toHaveLength(4));
    await new Promise((resolve) => setTimeout(resolve, 800));
    expect(held).toHaveLength(4);
    unsubscribe("http.server.request.start", count);
    // One read: 64 KiB are 1,820 of these.
    expect(parsed).toBeLessThan(4_000);
    expect(socket.writableLength).toBeGreaterThan(12_000_000);
    socket.destroy();
  });
});

test("an answer that breaks off before its turn ends the connection behind those before it", async () => {
  const held: ServerResponse[] = [];
  const upstream = await startUpstream((request, response) => {
    if (request.url === "/breaks") {
      response.setHeader("Content-Length", 9);
      response.write("part", () => response.destroy());
    } else held.push(response);
  });
  closeAfterTest(upstream.close);
  const upstreams = upstreamsTo([`http://127.0.0.1:${upstream.port}`]);
  const edge = await edgeTo("", { upstreams, fastPath: false });
  const socket = await open(edge.port);
  socket.write(GET + GET.replace("/", "/breaks") + GET);
  while (edge.codes.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const all = readAll(socket);
  held[0]?.end("first");
  expect((await all).split("\r\n\r\n").slice(1)).toStrictEqual(["first"]);
  // Nor does the third wait for its turn for ever.
  while (upstreams.all[0]?.underWay !== 0) await new Promise((resolve) => setTimeout(resolve, 5));
});

describe("what does not wait its turn", () => {
  const HOST = "Host: localhost\r\n";
  const WEBSOCKET = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
  test.each([
    [
      "a WebSocket",
      `GET /w HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: websocket\r\n${WEBSOCKET}\r\n`,
    ],
    ["another upgrade", `GET /w HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: h2c\r\n\r\n`],
    ["CONNECT", `CONNECT localhost:1 HTTP/1.1\r\n${HOST}\r\n`],
    ["garbage", "garbage\r\n\r\n"],
  ])("%s ends the connection, and its answer is not taken for another's", async (_name, next) => {
    const held: IncomingMessage[] = [];
    const edge = await edgeBefore((request) => held.push(request), { fastPath: false });
    const together = await open(edge.port);
    together.write(GET + next);
    expect(await readAll(together)).toBe("");
    const apart = await open(edge.port);
    apart.write(GET.replace("/", "/apart"));
    while (held.at(-1)?.url !== "/apart") await new Promise((resolve) => setTimeout(resolve, 5));
    apart.write(next);
    expect(await readAll(apart)).toBe("");
    expect(held.map(({ url }) => url)).not.toContain("/w");
  });
});

describe("an upstream with as many requests as it may have", () => {
  test("gets no more; the client is told, and the next one is served", async () => {
    const held: ServerResponse[] = [];
    const edge = await edgeBefore((_request, response) => held.push(response), {
      fastPath: false,
      forwarder: { maxUnderWay: 2 },
    });
    const socket = await open(edge.port);
    socket.write(GET.repeat(3));
    while (edge.codes.length === 0 || held.length < 2)
      await new Promise((resolve) => setTimeout(resolve, 5));
    expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_BUSY"]);
    expect(held).toHaveLength(2);
    for (const response of held.splice(0)) response.end("late");
    const next = await open(edge.port);
    next.write(GET);
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    held[0]?.end("served");
    const [answer] = (await once(next, "data")) as [Buffer];
    expect(answer.toString()).toContain("200");
    socket.destroy();
    next.destroy();
  });
});
