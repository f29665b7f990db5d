/** Edges in front of upstreams of one test file; each test's are closed behind it. */
import type { RequestListener } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll } from "vitest";
import {
  type EdgeOptions,
  exchangeRaw,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
} from "./tls-edge.ts";

let certificates: TestCertificates;
const closers: (() => Promise<void>)[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
});
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});
afterAll(() => certificates.remove());

/** Those of this file's edges; they exist within its tests only. */
export function edgeCertificates(): TestCertificates {
  return certificates;
}

/** Runs when the test that calls it is over, before what was opened earlier. */
export function closeAfterTest(close: () => Promise<void>): void {
  closers.push(close);
}

export type Options = Omit<EdgeOptions, "certificates" | "upstream">;

export async function edgeTo(upstream: string, options: Options = {}): Promise<TestEdge> {
  const edge = await startEdge({ certificates, upstream, ...options });
  closers.push(edge.close);
  return edge;
}

export async function edgeBefore(
  handler: RequestListener,
  options: Options = {},
): Promise<TestEdge> {
  const upstream = await startUpstream(handler);
  closers.push(upstream.close);
  return edgeTo(`http://127.0.0.1:${upstream.port}`, options);
}

/** An upstream of raw bytes. */
export async function edgeBeforeRaw(
  onSocket: (socket: Socket, count: number) => void,
  options: Options = {},
): Promise<TestEdge> {
  let count = 0;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => undefined));
    onSocket(socket, (count += 1));
  });
  const port = await listenOn(server);
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(() => resolve()));
  });
  return edgeTo(`http://127.0.0.1:${port}`, options);
}

export function listenOn(server: Server): Promise<number> {
  return new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    }),
  );
}

/** What the edge answers to raw bytes. */
export function talk(edge: TestEdge, text: string): Promise<string> {
  return exchangeRaw(edge.port, certificates.ca, text);
}

export function bodyOf(answer: string): string {
  return answer.slice(answer.indexOf("\r\n\r\n") + 4);
}
