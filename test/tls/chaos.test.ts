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
import { expect, test } from "vitest";
import type { Upstreams } from "../../tls/index.ts";
import { type CuttingRelay, startCuttingRelay } from "../support/cutting-relay.ts";
import { createRandom, type Random } from "../support/fuzz.ts";
import {
  askHttp1,
  askHttp2,
  askTunnel,
  createMarked,
  decideAtRandom,
  type Marked,
  markedTunnels,
  markedUpstream,
} from "../support/marked-http.ts";
import {
  connectTls,
  noExtra,
  readUntil,
  startUpstream,
  type TestEdge,
  upstreamsTo,
} from "../support/tls-edge.ts";
import { closeAfterTest, edgeCertificates, edgeTo } from "../support/tls-edges.ts";
import { waitFor } from "../support/wait-for.ts";

const SECONDS = Number(process.env["CHAOS_SECONDS"] ?? "2");
/** Where it is long, memory shows as well. */
const LONG_SECONDS = 20;
const MAX_GROWTH_BYTES = 16 * 2 ** 20;
const MAX_UNDER_WAY = 32;
const MAX_CONNECTIONS = MAX_UNDER_WAY + 1;
const PATIENCE_MS = 20_000;
const KINDS = ["h1 answered", "h2 answered", "tunnel"];
const MIN_SEEN = 5;
const NAMED = { servername: "localhost" };

function heapBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

const LIMITS = {
  maxConnectionsPerAddress: MAX_CONNECTIONS,
  maxHandshakesPerAddress: MAX_CONNECTIONS,
  headersTimeoutMs: 4_000,
  // Longer than it takes a busy machine to open as many connections as there may be.
  idleTimeoutMs: 3_000,
  requestTimeoutMs: 4_000,
  keepAliveTimeoutMs: 500,
};

interface Stage {
  readonly edge: TestEdge;
  readonly upstreams: Upstreams;
  readonly marked: Marked;
  readonly held: ServerResponse[];
  readonly random: Random;
  /** Of the relay in front. */
  readonly port: number;
  /** From now on nothing is cut, and all is forwarded. */
  readonly calm: () => void;
}

type Way = "fast" | "general" | "passed through";

async function stageOf(way: Way): Promise<Stage> {
  const random = createRandom(WAYS.indexOf(way));
  const marked = createMarked();
  const held: ServerResponse[] = [];
  const relays: CuttingRelay[] = [];
  const relayTo = async (port: number, meanBytes: number): Promise<number> => {
    const relay = await startCuttingRelay(port, random, meanBytes);
    closeAfterTest(relay.close);
    relays.push(relay);
    return relay.port;
  };
  const upstream = await startUpstream(markedUpstream(marked, random, held));
  closeAfterTest(upstream.close);
  upstream.server.on("upgrade", markedTunnels(marked, random));
  const ports = [await relayTo(upstream.port, 200_000), await relayTo(upstream.port, 200_000)];
  const upstreams = upstreamsTo(
    ports.map((port) => `http://127.0.0.1:${port}`),
    { ejection: { failures: 3, baseMs: 20, maxMs: 50 } },
  );
  let isCalm = false;
  const last = await edgeTo("", {
    upstreams,
    fastPath: way !== "general",
    decide: (head) =>
      isCalm ? { kind: "forward", extra: noExtra } : decideAtRandom(head, marked, random),
    forwarder: { maxUnderWay: MAX_UNDER_WAY, idleTimeoutMs: 500, firstByteTimeoutMs: 4_000 },
    limits: LIMITS,
  });
  const edge = way === "passed through" ? await passingTo(await relayTo(last.port, 60_000)) : last;
  const port = await relayTo(edge.port, 60_000);
  const calm = (): void => {
    isCalm = true;
    for (const relay of relays) relay.calm();
  };
  return { edge, upstreams, marked, held, random, port, calm };
}

/** An edge that decrypts nothing, before the one that does. */
function passingTo(port: number): Promise<TestEdge> {
  return edgeTo("http://127.0.0.1:1", {
    limits: LIMITS,
    front: {
      passthrough: [
        {
          names: ["localhost"],
          upstream: { kind: "tcp", host: "127.0.0.1", port },
          proxyProtocol: "off",
          maxConnections: MAX_CONNECTIONS,
          connectTimeoutMs: 500,
          idleTimeoutMs: LIMITS.idleTimeoutMs,
        },
      ],
    },
  });
}

const WAYS: readonly Way[] = ["fast", "general", "passed through"];

test.each(WAYS)(
  "answers stay with their requests, and counts come back to zero: %s",
  async (way) => {
    const { calm, edge, held, marked, port, random, upstreams } = await stageOf(way);
    const { ca } = edgeCertificates();
    const heap: number[] = [];
    const end = performance.now() + SECONDS * 1_000;
    const seen = (kind: string): number => marked.whole[kind] ?? 0;
    // On a busy machine it takes longer, up to a limit.
    const isOver = (): boolean =>
      performance.now() > end + PATIENCE_MS ||
      (performance.now() > end && KINDS.every((kind) => seen(kind) >= MIN_SEEN));
    const client = async (ask: typeof askHttp1): Promise<void> => {
      while (!isOver()) await ask(port, ca, marked, random);
    };
    const asks = [askHttp2, askHttp2, askHttp2, askTunnel];
    const running = Array.from({ length: 10 }, (_, i) => client(asks[i] ?? askHttp1));
    if (SECONDS >= LONG_SECONDS) {
      await wait((SECONDS * 1_000) / 3);
      heap.push(heapBytes());
    }
    await Promise.all(running);
    calm();
    const underWay = (): number[] => upstreams.all.map((upstream) => upstream.underWay);
    await waitFor(() => expect(underWay()).toStrictEqual([0, 0]), { timeout: 8_000 });
    if (SECONDS >= LONG_SECONDS) heap.push(heapBytes());

    expect(marked.faults).toStrictEqual([]);
    expect(marked.untold.size).toBe(0);
    for (const kind of KINDS) expect(seen(kind), kind).toBeGreaterThanOrEqual(MIN_SEEN);
    const [first = 0, last = 0] = heap;
    expect(last - first).toBeLessThan(MAX_GROWTH_BYTES);
    await expectFullCapacity(edge, held);
  },
  SECONDS * 1_000 + 2 * PATIENCE_MS,
);

/** As many as there may be, at once, so that the first is not idle for too long by the last. */
async function openAll(port: number, ca: string): Promise<TLSSocket[]> {
  const sockets: TLSSocket[] = [];
  const open = async (): Promise<void> => void sockets.push(await connectTls(port, ca, NAMED));
  try {
    await Promise.all(Array.from({ length: MAX_CONNECTIONS }, open));
    await expect(open()).rejects.toThrow();
    return sockets;
  } catch (error) {
    for (const socket of sockets) socket.destroy();
    throw error;
  }
}

/** As many requests and connections fit as if nothing had been there before, and not one more. */
async function expectFullCapacity(edge: TestEdge, held: ServerResponse[]): Promise<void> {
  const { ca } = edgeCertificates();
  const answers: Promise<string>[] = [];
  // The last of before may be on their way out.
  const sockets = await waitFor(() => openAll(edge.port, ca), { timeout: 8_000 });
  for (const socket of sockets.slice(0, MAX_UNDER_WAY)) {
    answers.push(readUntil(socket, "late"));
    socket.write("GET /1/held HTTP/1.1\r\nHost: a.example\r\nX-Id: 1\r\nX-Method: GET\r\n\r\n");
  }
  await waitFor(() => expect(held).toHaveLength(MAX_UNDER_WAY), { timeout: 8_000 });
  const [last] = sockets.slice(-1);
  const refused = last === undefined ? "" : readUntil(last, "TLS_UPSTREAM_BUSY");
  last?.write("GET /1/held HTTP/1.1\r\nHost: a.example\r\nX-Id: 1\r\nX-Method: GET\r\n\r\n");
  expect(await refused).toContain("TLS_UPSTREAM_BUSY");
  for (const response of held.splice(0)) response.end("late");
  await Promise.all(answers);
  for (const socket of sockets) socket.destroy();
}
