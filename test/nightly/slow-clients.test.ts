/**
 * Slow clients, by the real slowhttptest and, for the handshake, by hand: a few hundred connections that dawdle in
 * each part of an exchange are ended by the edge, and all the while a client that does not dawdle is served.
 */
import { spawn, spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exchange } from "../../service/agent/exchange.ts";
import {
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../support/tls-edge.ts";

const CONNECTIONS = 200;
const SECONDS = 30;
/** Of the slowest of a good client's requests, on a machine that does other things. */
const PATIENCE_MS = 2_000;
const isMissing = spawnSync("which", ["slowhttptest"]).status !== 0;
/** More than kernels hold for a connection: what they hold is off the edge's hands. */
const LARGE = Buffer.alloc(8 * 1_048_576, "x");

/** The listener's own, at a fifth of what they are by default or less, so that a night has time for them. */
const LIMITS = {
  handshakeTimeoutMs: 2_000,
  headersTimeoutMs: 3_000,
  requestTimeoutMs: 8_000,
  idleTimeoutMs: 5_000,
};

let certificates: TestCertificates;
let upstream: TestUpstream;
let edge: TestEdge;
let url: string;

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    request.resume().once("end", () => response.end(request.url === "/large" ? LARGE : "ok"));
  });
  edge = await startEdge({
    certificates,
    upstream: `http://127.0.0.1:${upstream.port}`,
    limits: LIMITS,
  });
  url = `https://localhost:${edge.port}`;
});
afterAll(async () => {
  await edge.close();
  await upstream.close();
  certificates.remove();
});

/** Milliseconds of each request of a client that opens a new connection for it, for as long as `attack` goes on. */
async function served(attack: Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  const state = { isOver: false };
  void attack.finally(() => (state.isOver = true));
  while (!state.isOver) {
    const started = performance.now();
    const { ca } = certificates;
    const good = await exchange({ url: `${url}/good`, method: "GET", headers: {}, ca });
    expect(good.status).toBe(200);
    times.push(performance.now() - started);
    await wait(100);
  }
  return times;
}

/** Connections to the edge that its kernel has as open: what a slow client itself believes may be old. */
async function openConnections(): Promise<number> {
  // Local address, remote address, state; 01 is ESTABLISHED.
  const port = edge.port.toString(16).toUpperCase().padStart(4, "0");
  const isOpen = new RegExp(`^ *\\d+: [0-9A-F]{8}:${port} [0-9A-F:]{13} 01 `);
  const lines = (await readFile("/proc/net/tcp", "utf8")).split("\n");
  return lines.filter((line) => isOpen.test(line)).length;
}

/** What the program says; it ends when it has no connection left, or after SECONDS. */
async function slowhttptest(args: readonly string[]): Promise<string> {
  const common = ["-c", String(CONNECTIONS), "-r", String(CONNECTIONS), "-l", String(SECONDS)];
  const child = spawn("slowhttptest", [...common, "-u", `${url}/large`, "-p", "5", ...args], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await new Promise((resolve) => child.once("exit", resolve));
  return text;
}

describe.skipIf(isMissing)("slowhttptest", () => {
  const timeoutMs = (SECONDS + 30) * 1_000;

  it.each([
    ["heads that do not end (slowloris)", ["-H", "-i", "1"]],
    ["bodies that do not come", ["-B", "-i", "1", "-s", "100000"]],
  ])(
    "%s: are ended, and others served",
    async (_what, args) => {
      const attack = slowhttptest(args);
      const times = await served(attack);
      expect(edge.events.filter((event) => event === "handshake").length).toBeGreaterThan(
        CONNECTIONS,
      );
      expect(await attack).toContain("No open connections left");
      expect(times.length).toBeGreaterThan(10);
      expect(Math.max(...times)).toBeLessThan(PATIENCE_MS);
    },
    timeoutMs,
  );

  it(
    "answers that are not read: are ended, and others served",
    async () => {
      const readers = CONNECTIONS / 4;
      const slow = ["-c", String(readers), "-X", "-n", "2", "-z", "16", "-w", "512", "-y", "1024"];
      // It goes on with what its kernel has of an answer when the edge has long given up.
      const open: number[] = [];
      const early = setTimeout(() => void openConnections().then((n) => open.push(n)), 3_000);
      const late = setTimeout(
        () => void openConnections().then((n) => open.push(n)),
        (SECONDS - 3) * 1_000,
      );
      const times = await served(slowhttptest(slow));
      clearTimeout(early);
      clearTimeout(late);
      expect(open[0]).toBeGreaterThan(readers / 4);
      expect(open[1]).toBeLessThan(readers / 4);
      expect(times.length).toBeGreaterThan(10);
      expect(Math.max(...times)).toBeLessThan(PATIENCE_MS);
    },
    timeoutMs,
  );
});

describe("handshakes that do not end", () => {
  it("are ended, and others served", async () => {
    const sockets: Socket[] = [];
    const ends = Array.from({ length: CONNECTIONS }, () => {
      const socket = connect(edge.port, "127.0.0.1");
      sockets.push(socket);
      socket.on("error", () => undefined);
      // A record header that announces 512 bytes of a ClientHello.
      socket.once("connect", () => socket.write(Buffer.from([22, 3, 1, 2, 0, 1, 0])));
      return new Promise((resolve) => socket.resume().once("close", resolve));
    });
    const times = await served(Promise.all(ends));
    expect(times.length).toBeGreaterThan(5);
    expect(Math.max(...times)).toBeLessThan(PATIENCE_MS);
    for (const socket of sockets) socket.destroy();
  }, 40_000);
});
