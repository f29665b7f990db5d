/**
 * Seeded frames that are mostly wrong, over TLS: whatever comes, the connection ends or goes on, nothing is thrown
 * past the session (vitest fails on that), and the next client is served.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { seededRandom } from "../../support/attester.ts";
import { frame, FrameClient, GET, head, POST } from "../../support/h2-frames.ts";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import {
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../../support/tls-edge.ts";

const CONNECTIONS = Number(process.env["H2_CONNECTIONS"] ?? "60");
const FRAMES = 40;
let certificates: TestCertificates;
let upstream: TestUpstream;
let edge: TestEdge;

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    request.resume();
    response.end(Buffer.alloc(100_000));
  });
  edge = await startEdge({
    certificates,
    upstream: `http://127.0.0.1:${upstream.port}`,
    limits: { headersTimeoutMs: 200, idleTimeoutMs: 200, keepAliveTimeoutMs: 200 },
  });
});
afterAll(async () => {
  await edge.close();
  await upstream.close();
  certificates.remove();
});

/** A sound head, one that is cut or changed, or noise. */
function payloadOf(random: (length: number) => Uint8Array): Uint8Array {
  const [kind = 0, at = 0, length = 0] = random(3);
  if (kind < 90) return head(kind < 45 ? GET : POST);
  if (kind < 160) {
    const block = Uint8Array.from(head(GET));
    block[at % block.length] = length;
    return block.subarray(0, kind < 130 ? block.length : length);
  }
  return random(kind < 220 ? length : ([0, 4, 5, 6, 8][at % 5] ?? 0));
}

test("frames at random end no process and no other connection", async () => {
  for (let seed = 0; seed < CONNECTIONS; seed += 1) {
    const random = seededRandom(`h2 frames ${seed}`);
    const client = await FrameClient.begin(edge.port, certificates.ca);
    for (let i = 0; i < FRAMES && !client.socket.destroyed; i += 1) {
      const [type = 0, flags = 0, stream = 0, cut = 0] = random(4);
      const bytes = frame(type % 12, flags & 0x2d, stream % 24, payloadOf(random));
      client.socket.write(cut < 250 ? bytes : bytes.subarray(0, cut % bytes.length));
      if (i % 8 === 7) await new Promise((resolve) => setImmediate(resolve));
    }
    if (seed % 3 === 0) client.socket.destroy();
    else if (seed % 3 === 1) client.socket.resetAndDestroy();
    else client.socket.end();
  }
  const session = await openH2(edge.port, certificates.ca);
  expect((await requestH2(session, {})).status).toBe(200);
  session.destroy();
  expect(edge.events).toContain("h2-error");
});
