/** Limits of one address: what counts as one, what is refused, and that nothing of it is kept. */
import type { Socket } from "node:net";
import { connect } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  type AddressLimits,
  type CountedConnection,
  createAddressCounter,
} from "../../../tls/front/address-limits.ts";
import { encodeProxyHeader, type FrontOptions } from "../../../tls/index.ts";
import {
  connectTls,
  exchangeRaw,
  readAll,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../../support/tls-edge.ts";
import { waitFor } from "../../support/wait-for.ts";

const LIMITS: AddressLimits = {
  maxConnectionsPerAddress: 3,
  maxHandshakesPerAddress: 2,
  maxHandshakes: 5,
};
const nobody = (): boolean => false;

function entered(result: CountedConnection | string): CountedConnection {
  if (typeof result === "string") throw new Error(`refused: ${result}`);
  return result;
}

describe("the counter of connections by address", () => {
  test("rejects one more handshake, and one more connection, than an address may have", () => {
    const counter = createAddressCounter(LIMITS, nobody);
    const [first, second] = [counter.enter("192.0.2.1"), counter.enter("192.0.2.1")].map(entered);
    expect(counter.enter("192.0.2.1")).toBe("address-handshakes-refused");
    entered(counter.enter("192.0.2.2"));
    first?.handshakeOver();
    const third = entered(counter.enter("192.0.2.1"));
    second?.handshakeOver();
    third.handshakeOver();
    expect(counter.enter("192.0.2.1")).toBe("address-connections-refused");
    third.closed();
    entered(counter.enter("192.0.2.1"));
  });

  test("rejects one more handshake than all may have together, of a shared address, too", () => {
    const counter = createAddressCounter(LIMITS, (address) => address === "192.0.2.9");
    for (let i = 0; i < 5; i += 1) entered(counter.enter("192.0.2.9")).handshakeOver();
    const open = Array.from({ length: 5 }, () => entered(counter.enter("192.0.2.9")));
    expect(counter.enter("192.0.2.9")).toBe("handshakes-refused");
    expect(counter.enter("192.0.2.1")).toBe("handshakes-refused");
    open[0]?.closed();
    entered(counter.enter("192.0.2.1"));
  });

  test.each([
    ["192.0.2.1", "::ffff:192.0.2.1", true],
    ["192.0.2.1", "192.0.2.2", false],
    ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true],
    ["2001:db8:1:2::1", "2001:db8:1:3::1", false],
    ["::1", "::ffff:0.0.0.0", false],
    ["not an address", "::", false],
  ])("counts %s and %s as one: %s", (one, other, isOne) => {
    const limits = { ...LIMITS, maxConnectionsPerAddress: 1 };
    const counter = createAddressCounter(limits, nobody);
    entered(counter.enter(one));
    const result = counter.enter(other);
    expect(result === "address-connections-refused").toBe(isOne);
  });

  test("does not count a client without an address apart", () => {
    const counter = createAddressCounter(LIMITS, nobody);
    for (let i = 0; i < 9; i += 1) entered(counter.enter(undefined)).handshakeOver();
    expect(counter.size()).toBe(0);
  });

  test("counts each end once, and keeps nothing of an address without connections", () => {
    const counter = createAddressCounter({ ...LIMITS, maxHandshakes: 10_000 }, nobody);
    const open = Array.from({ length: 5_000 }, (_, i) =>
      entered(counter.enter(`10.0.${i >> 8}.${i & 255}`)),
    );
    expect(counter.size()).toBe(5_000);
    for (const connection of open) {
      connection.handshakeOver();
      connection.handshakeOver();
      connection.closed();
      connection.closed();
    }
    expect(counter.size()).toBe(0);
    // An end that is told twice is not that of the connection after.
    const old = entered(counter.enter("10.0.0.1"));
    old.closed();
    const one = { ...LIMITS, maxConnectionsPerAddress: 1 };
    const single = createAddressCounter(one, nobody);
    const before = entered(single.enter("10.0.0.1"));
    before.closed();
    entered(single.enter("10.0.0.1"));
    before.closed();
    expect(single.enter("10.0.0.1")).toBe("address-connections-refused");
  });
});

describe("a listener", () => {
  const GET = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  let certificates: TestCertificates;
  let upstream: TestUpstream;
  const edges: TestEdge[] = [];
  beforeAll(async () => {
    certificates = await testCertificates();
    upstream = await startUpstream((_request, response) => response.end("ok"));
  });
  afterEach(async () => {
    for (const edge of edges.splice(0)) await edge.close();
  });
  afterAll(async () => {
    await upstream.close();
    certificates.remove();
  });
  async function start(
    limits: Partial<AddressLimits>,
    front: FrontOptions = {},
  ): Promise<TestEdge> {
    const target = `http://127.0.0.1:${upstream.port}`;
    const edge = await startEdge({ certificates, upstream: target, limits, front });
    edges.push(edge);
    return edge;
  }
  /** A TCP connection that says nothing. */
  const halfOpen = (port: number, localAddress: string): Promise<Socket> =>
    new Promise((resolve) => {
      const socket = connect({ port, host: "127.0.0.1", localAddress }, () => resolve(socket));
      socket.on("error", () => undefined);
    });

  test("rejects a flood of half-open connections of one address, and serves others meanwhile", async () => {
    const edge = await start({ maxHandshakesPerAddress: 4 });
    const flood = await Promise.all(
      Array.from({ length: 40 }, () => halfOpen(edge.port, "127.0.0.2")),
    );
    await waitFor(() => expect(edge.events).toHaveLength(36));
    expect(new Set(edge.events)).toStrictEqual(new Set(["address-handshakes-refused"]));
    expect(await exchangeRaw(edge.port, certificates.ca, GET)).toContain("ok");
    const late = connectTls(edge.port, certificates.ca, { localAddress: "127.0.0.2" });
    await expect(late).rejects.toThrow();
    for (const socket of flood) socket.destroy();
    await waitFor(async () => {
      (await connectTls(edge.port, certificates.ca, { localAddress: "127.0.0.2" })).destroy();
    });
  });

  test("rejects more connections of one address than it may have, however well they are", async () => {
    const edge = await start({ maxConnectionsPerAddress: 2 });
    const open = [
      await connectTls(edge.port, certificates.ca),
      await connectTls(edge.port, certificates.ca),
    ];
    await expect(connectTls(edge.port, certificates.ca)).rejects.toThrow();
    const refusal = "address-connections-refused";
    await waitFor(() =>
      expect(edge.events.toSorted()).toStrictEqual([refusal, "handshake", "handshake"]),
    );
    const closed = open.map(readAll);
    for (const socket of open) socket.destroy();
    await Promise.all(closed);
    await waitFor(async () => {
      expect(await exchangeRaw(edge.port, certificates.ca, GET)).toContain("ok");
    });
  });

  test("counts by the address that a proxy tells, and a shared address not at all", async () => {
    const edge = await start(
      { maxHandshakesPerAddress: 1 },
      { sendsProxyHeader: () => true, isSharedAddress: (address) => address === "192.0.2.80" },
    );
    const from = async (address: string): Promise<Socket> => {
      const socket = await halfOpen(edge.port, "127.0.0.1");
      const end = { address, port: 1 };
      socket.write(encodeProxyHeader("v2", { source: end, destination: end }));
      return socket;
    };
    await from("192.0.2.1");
    expect(await readAll(await from("192.0.2.1"))).toBe("");
    for (let i = 0; i < 3; i += 1) await from("192.0.2.80");
    await from("192.0.2.2");
    expect(await readAll(await from("192.0.2.2"))).toBe("");
    expect(edge.events).toStrictEqual(Array(2).fill("address-handshakes-refused"));
  });
});
