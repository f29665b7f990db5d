/**
 * Connections of clients and of upstreams that are cut at random bytes, under load, on both paths and over HTTP/2.
 * Whatever ends how: each answer is its own request's, nothing is thrown past a handler (vitest fails on that), and
 * afterwards every count is back at zero, neither above nor below. CHAOS_SECONDS makes it longer.
 */
import type { ServerResponse } from "node:http";
import type { TLSSocket } from "node:tls";
import { setTimeout as wait } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test, vi } from "vitest";
import { startCuttingRelay } from "../support/cutting-relay.ts";
import { createRandom } from "../support/fuzz.ts";
import { askHttp1, askHttp2, createMarked, markedUpstream } from "../support/marked-http.ts";
import {
  connectTls,
  readUntil,
  startUpstream,
  type TestEdge,
  upstreamsTo,
} from "../support/tls-edge.ts";
import { closeAfterTest, edgeCertificates, edgeTo } from "../support/tls-edges.ts";

const SECONDS = Number(process.env["CHAOS_SECONDS"] ?? "3");
/** Where it is long, memory shows as well. */
const LONG_SECONDS = 20;
const MAX_GROWTH_BYTES = 16 * 2 ** 20;
const MAX_UNDER_WAY = 32;
const MAX_CONNECTIONS = MAX_UNDER_WAY + 1;

function heapBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

test.each([
  ["the fast path and HTTP/2", true],
  ["the general path", false],
])(
  "answers stay with their requests, and counts come back to zero: %s",
  async (_name, fastPath) => {
    const random = createRandom(fastPath ? 1 : 2);
    const marked = createMarked();
    const held: ServerResponse[] = [];
    const upstream = await startUpstream(markedUpstream(marked, random, held));
    closeAfterTest(upstream.close);
    const behind = [
      await startCuttingRelay(upstream.port, random, 200_000),
      await startCuttingRelay(upstream.port, random, 200_000),
    ];
    for (const relay of behind) closeAfterTest(relay.close);
    const upstreams = upstreamsTo(
      behind.map(({ port }) => `http://127.0.0.1:${port}`),
      {
        ejection: { failures: 3, baseMs: 20, maxMs: 50 },
      },
    );
    const edge = await edgeTo("", {
      upstreams,
      fastPath,
      forwarder: { maxUnderWay: MAX_UNDER_WAY, idleTimeoutMs: 500, firstByteTimeoutMs: 500 },
      limits: {
        maxConnectionsPerAddress: MAX_CONNECTIONS,
        maxHandshakesPerAddress: MAX_CONNECTIONS,
        headersTimeoutMs: 500,
        idleTimeoutMs: 500,
        requestTimeoutMs: 1_000,
        keepAliveTimeoutMs: 500,
      },
    });
    const before = await startCuttingRelay(edge.port, random, 60_000);
    closeAfterTest(before.close);
    const { ca } = edgeCertificates();

    const heap: number[] = [];
    const end = performance.now() + SECONDS * 1_000;
    const client = async (ask: typeof askHttp1): Promise<void> => {
      while (performance.now() < end) await ask(before.port, ca, marked, random);
    };
    const running = Array.from({ length: 10 }, (_, i) =>
      client(fastPath && i < 3 ? askHttp2 : askHttp1),
    );
    if (SECONDS >= LONG_SECONDS) {
      await wait((SECONDS * 1_000) / 3);
      heap.push(heapBytes());
    }
    await Promise.all(running);
    for (const relay of [before, ...behind]) relay.calm();
    await vi.waitFor(
      () => expect(upstreams.all.map(({ underWay }) => underWay)).toStrictEqual([0, 0]),
      {
        timeout: 3_000,
      },
    );
    if (SECONDS >= LONG_SECONDS) heap.push(heapBytes());

    expect(marked.faults).toStrictEqual([]);
    expect(marked.whole["h1 answered"]).toBeGreaterThan(20 * SECONDS);
    expect(marked.whole["h2 answered"] ?? 0).toBeGreaterThan(fastPath ? 10 * SECONDS : -1);
    const [first = 0, last = 0] = heap;
    expect(last - first).toBeLessThan(MAX_GROWTH_BYTES);
    await expectFullCapacity(edge, held);
  },
  SECONDS * 1_000 + 30_000,
);

/** As many requests and connections fit as if nothing had been there before, and not one more. */
async function expectFullCapacity(edge: TestEdge, held: ServerResponse[]): Promise<void> {
  const { ca } = edgeCertificates();
  const sockets: TLSSocket[] = [];
  const answers: Promise<string>[] = [];
  for (let i = 0; i < MAX_CONNECTIONS; i += 1) sockets.push(await connectTls(edge.port, ca));
  await expect(connectTls(edge.port, ca)).rejects.toThrow();
  for (const socket of sockets.slice(0, MAX_UNDER_WAY)) {
    answers.push(readUntil(socket, "late"));
    socket.write("GET /1/held HTTP/1.1\r\nHost: a.example\r\nX-Id: 1\r\nX-Method: GET\r\n\r\n");
  }
  await vi.waitFor(() => expect(held).toHaveLength(MAX_UNDER_WAY));
  const [last] = sockets.slice(-1);
  const refused = last === undefined ? "" : readUntil(last, "TLS_UPSTREAM_BUSY");
  last?.write("GET /1/held HTTP/1.1\r\nHost: a.example\r\nX-Id: 1\r\nX-Method: GET\r\n\r\n");
  expect(await refused).toContain("TLS_UPSTREAM_BUSY");
  for (const response of held.splice(0)) response.end("late");
  await Promise.all(answers);
  for (const socket of sockets) socket.destroy();
}
