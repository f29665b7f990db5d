/** Ready, draining, stopped: what the operator's probes and the clients see of each. */
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { type AddressInfo, connect as connectTcp } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openRaw, rawGet } from "../support/raw-client.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const held: ServerResponse[] = [];
const upstream = createServer((_request, response) => held.push(response));
let target: TestSidecar;

beforeAll(async () => {
  upstream.listen(0, "127.0.0.1");
  await once(upstream, "listening");
  const { port } = upstream.address() as AddressInfo;
  target = await startTestSidecar({
    upstreamUrl: `http://127.0.0.1:${port}`,
    limits: {
      drainSeconds: 5,
      handshakeSeconds: 1,
      headersSeconds: 1,
      headerBytes: 4_096,
      headers: 20,
      http2Streams: 7,
    },
  });
});
afterAll(async () => {
  await target.stop();
  upstream.close();
});

const probe = async (path: string): Promise<number> =>
  (await fetch(`${target.sidecar.operatorAddress}${path}`)).status;

describe("a sidecar", () => {
  it("answers its probes, and nothing of the operator's on the public listener", async () => {
    expect(await probe("/livez")).toBe(200);
    expect(await probe("/readyz")).toBe(200);
    for (const path of ["/livez", "/readyz", "/metrics", "/keys", "/openapi.json"]) {
      expect((await target.get(path)).status, path).toBe(401);
    }
  });

  it("holds clients to the limits of its configuration", async () => {
    const silent = connectTcp(target.port, "127.0.0.1");
    const silentClosed = once(silent, "close");
    const slow = await openRaw(target);
    slow.write("GET / HTTP/1.1\r\nHost: ");
    const told = slow.toArray();
    const long = await target.get("/", { "x-long": "x".repeat(4_200) });
    expect(long.status).toBe(431);
    const many = Object.fromEntries(Array.from({ length: 21 }, (_, i) => [`x-${i}`, "1"]));
    expect((await target.get("/", many)).status).toBe(431);
    const session = connectHttp2(`https://localhost:${target.port}`, { ca: target.ca });
    await once(session, "remoteSettings");
    expect(session.remoteSettings.maxConcurrentStreams).toBe(7);
    session.destroy();
    expect(Buffer.concat(await told).toString()).toMatch(/^HTTP\/1\.1 408 /);
    await silentClosed;
  });

  it("drains: answers what is under way, takes nothing new, says that it is not ready", async () => {
    const socket = await openRaw(target);
    const idle = await openRaw(target);
    const idleEnded = once(idle, "close");
    socket.write(rawGet(target, "/", { authorization: await target.mint() }));
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const stopping = target.sidecar.stop();
    while ((await probe("/readyz")) !== 503) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await probe("/livez")).toBe(200);
    await idleEnded;
    await expect(openRaw(target)).rejects.toThrow(/ECONNREFUSED|ECONNRESET|closed/);
    held[0]?.end("the last answer");
    const answer = Buffer.concat(await socket.toArray()).toString();
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    expect(answer.toLowerCase()).toContain("connection: close");
    expect(answer.endsWith("the last answer")).toBe(true);
    await stopping;
    await expect(probe("/livez")).rejects.toThrow();
    // Once more is no error.
    await target.sidecar.stop();
  });
});
