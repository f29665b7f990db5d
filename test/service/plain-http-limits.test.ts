/** How many connections of plain HTTP one address may hold, and all: who is cut, and who is answered all the same. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { type PlainListener, startPlainListener } from "../../service/http/plain-listener.ts";
import { freePort } from "../support/free-port.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { readAll } from "../support/tls-edge.ts";

const MAX = 12;
const MAX_PER_ADDRESS = 4;
const SHARED = "127.0.0.9";
const HALF = "GET / HTTP/1.1\r\nHost: shop.example\r\n";

let listener: PlainListener;
const cut: string[] = [];
const statusOf = (answer: string): string => answer.split(" ")[1] ?? "none";

/** From an address of this machine; ends with the test. */
async function connectFrom(localAddress: string, port = listener.port): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", localAddress });
  socket.on("error", () => undefined);
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  return socket;
}

async function statusFrom(localAddress: string): Promise<string> {
  const socket = await connectFrom(localAddress);
  const answer = readAll(socket);
  socket.write(`${HALF}\r\n`);
  return statusOf(await answer);
}

describe("plain HTTP", () => {
  beforeEach(async () => {
    cut.splice(0);
    listener = await startPlainListener(
      {
        hosts: ["shop.example"],
        observe: () => undefined,
        onRefused: (limit) => cut.push(limit),
        limits: { maxConnections: MAX, maxConnectionsPerAddress: MAX_PER_ADDRESS },
        isSharedAddress: (address) => address === SHARED,
        // None within a test: what is freed is freed by its end.
        requestMs: 60_000,
        drainMs: 1,
      },
      { host: "127.0.0.1", port: 0 },
    );
  });
  afterEach(() => listener.close());

  async function hold(count: number, from: string): Promise<Socket[]> {
    const held: Socket[] = [];
    for (let i = 0; i < count; i += 1) held.push(await connectFrom(from));
    for (const [i, socket] of held.entries()) if (i % 2 === 0) socket.write(HALF);
    return held;
  }

  it("cuts one address above its limit, half heads and silence alike, and answers the others", async () => {
    const held = await hold(MAX_PER_ADDRESS, "127.0.0.2");
    for (let i = 0; i < 20; i += 1) expect(await statusFrom("127.0.0.2")).toBe("none");
    expect(cut).toEqual(Array(20).fill("address"));
    for (const other of ["127.0.0.1", "127.0.0.3"]) expect(await statusFrom(other)).toBe("308");
    // Who has held a connection and asks on it has an answer, which makes room.
    const answer = readAll(held[0] as Socket);
    held[0]?.write("\r\n");
    expect(statusOf(await answer)).toBe("308");
    await expect.poll(() => statusFrom("127.0.0.2")).toBe("308");
  });

  it("does not count the clients of a proxy as one, and cuts above the limit of all", async () => {
    const held = await hold(MAX, SHARED);
    expect(cut).toEqual([]);
    expect(await statusFrom(SHARED)).toBe("none");
    expect(await statusFrom("127.0.0.1")).toBe("none");
    expect(cut).toEqual(["all", "all"]);
    held[0]?.destroy();
    await expect.poll(() => statusFrom("127.0.0.1")).toBe("308");
  });
});

describe("plain HTTP that ends", () => {
  const startEnding = (drainMs: number): Promise<PlainListener> =>
    startPlainListener(
      {
        hosts: ["shop.example"],
        observe: () => undefined,
        onRefused: () => undefined,
        limits: { maxConnections: MAX, maxConnectionsPerAddress: MAX },
        isSharedAddress: () => false,
        requestMs: 60_000,
        drainMs,
      },
      { host: "127.0.0.1", port: 0 },
    );

  /** One that is accepted: one that came later was answered. */
  async function accepted(port: number): Promise<Socket> {
    const socket = await connectFrom("127.0.0.1", port);
    const later = await connectFrom("127.0.0.1", port);
    const answer = readAll(later);
    later.write(`${HALF}\r\n`);
    expect(statusOf(await answer)).toBe("308");
    return socket;
  }

  it("answers a request that is on its way", async () => {
    const ending = await startEnding(60_000);
    const socket = await accepted(ending.port);
    const answer = readAll(socket);
    socket.write(HALF);
    const closed = ending.close();
    socket.write("\r\n");
    expect(statusOf(await answer)).toBe("308");
    await closed;
  });

  it("cuts who says nothing", async () => {
    const ending = await startEnding(1);
    const answer = readAll(await accepted(ending.port));
    await ending.close();
    expect(await answer).toBe("");
  });
});

describe("the settings of plain HTTP", () => {
  it("bound one address as configured, but for proxies, and what was cut is counted", async () => {
    const start = async (listen: object): Promise<[port: number, target: TestSidecar]> => {
      const port = await freePort();
      const http = { host: "127.0.0.1", port, maxConnections: 50, maxConnectionsPerAddress: 2 };
      const target = await startTestSidecar({ listen: { http, ...listen } });
      onTestFinished(() => target.stop());
      return [port, target];
    };
    const isCut = async (port: number): Promise<boolean> => {
      await connectFrom("127.0.0.1", port);
      await connectFrom("127.0.0.1", port);
      const third = await connectFrom("127.0.0.1", port);
      const answer = readAll(third);
      third.write(`${HALF}\r\n`);
      return statusOf(await answer) === "none";
    };
    const [port, target] = await start({});
    expect(await isCut(port)).toBe(true);
    const text = await target.sidecar.metrics.registry.metrics();
    expect(text).toContain('stile_plain_http_refused_total{limit="address"} 1');
    for (const proxies of ["trustedProxies", "proxyProtocol"]) {
      const [other] = await start({ [proxies]: ["127.0.0.0/8"] });
      expect(await isCut(other), proxies).toBe(false);
    }
  });
});
