/** What is no request: its connection gets one word, in time to be read, and ends whatever its client does. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  connectTls,
  startEdge,
  testCertificates,
  type TestCertificates,
  type TestEdge,
} from "../support/tls-edge.ts";

let certificates: TestCertificates;
let edge: TestEdge | undefined;

beforeAll(async () => {
  certificates = await testCertificates();
});
afterEach(async () => {
  await edge?.close();
});
afterAll(() => certificates.remove());

async function start(fastPath: boolean): Promise<TestEdge> {
  edge = await startEdge({ certificates, upstream: "http://127.0.0.1:9", fastPath, http2: false });
  return edge;
}

interface Ending {
  readonly answer: string;
  readonly error: string | undefined;
}

/** What a client reads that has sent all this by then. */
async function endingOf(port: number, sent: string, isEndless = false): Promise<Ending> {
  const socket = await connectTls(port, certificates.ca);
  socket.allowHalfOpen = isEndless;
  let answer = "";
  let error: string | undefined;
  socket.on("data", (chunk: Buffer) => (answer += chunk.toString("latin1")));
  socket.on("error", (cause: NodeJS.ErrnoException) => (error = cause.code));
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(sent);
  const more = isEndless ? setInterval(() => socket.write("y"), 20) : undefined;
  await closed;
  clearInterval(more);
  return { answer, error };
}

const CASES: readonly (readonly [name: string, sent: string, status: string])[] = [
  ["garbage", "garbage\r\n\r\n", "400 Bad Request"],
  ["CONNECT", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", "400 Bad Request"],
  [
    "a head that is too large",
    `GET / HTTP/1.1\r\nHost: a.example\r\nX: ${"x".repeat(20_000)}`,
    "431 Request Header Fields Too Large",
  ],
];

describe.each([true, false])("with fastPath %s", (fastPath) => {
  it.each(CASES)(
    "%s is answered, and all that comes behind it is read",
    async (_, sent, status) => {
      const { events, port } = await start(fastPath);
      const { answer, error } = await endingOf(port, sent + "y".repeat(2 ** 20));
      expect(error).toBeUndefined();
      expect(answer).toBe(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
      expect(events.filter((event) => event === "client-error")).toHaveLength(1);
    },
  );

  it.each(CASES)("%s of a client that ends nothing is cut", async (_, sent) => {
    const { port } = await start(fastPath);
    const begunMs = performance.now();
    expect((await endingOf(port, sent, true)).answer).toMatch(/^HTTP\/1.1 4/);
    expect(performance.now() - begunMs).toBeLessThan(4_000);
  });
});
