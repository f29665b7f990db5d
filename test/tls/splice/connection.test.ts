/** Connections of the fast path and their upstream's: whose fault an end is, and what is counted as kept. */
import { once } from "node:events";
import { createServer, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import type { FastDecision, UpstreamOutcome } from "../../../tls/index.ts";
import { createReadBuffers } from "../../../tls/splice/read-buffers.ts";
import { createUnderWay } from "../../../tls/splice/splicer.ts";
import { UpstreamSlot } from "../../../tls/splice/upstream-slot.ts";
import { connectTls, noExtra, readAll, readUntil, upstreamsTo } from "../../support/tls-edge.ts";
import { closeAfterTest, edgeCertificates, edgeTo, listenOn } from "../../support/tls-edges.ts";
import { waitFor } from "../../support/wait-for.ts";

const GET = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/** @returns its address, and its connections in order */
async function rawUpstream(onData: (socket: Socket) => void): Promise<[string, Socket[]]> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on("error", () => undefined).on("data", () => onData(socket)));
  });
  const port = await listenOn(server);
  closeAfterTest(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(() => resolve()));
  });
  return [`http://127.0.0.1:${port}`, sockets];
}

test("a kept connection is not counted any more once it has ended, by whatever", async () => {
  const ends: readonly ((socket: Socket | undefined) => void)[] = [
    (socket) => void socket?.end(),
    (socket) => void socket?.resetAndDestroy(),
    (socket) => void socket?.write(OK),
    // By the time that it is kept.
    () => undefined,
  ];
  for (const [i, end] of ends.entries()) {
    const [url, sockets] = await rawUpstream((socket) => socket.write(OK));
    const kept = createUnderWay(1);
    const answered = Promise.withResolvers<void>();
    const slot = new UpstreamSlot(
      {
        kept,
        forwarder: {
          upstreams: upstreamsTo([url]),
          maxBodyBytes: 1,
          maxUnderWay: 1,
          firstByteTimeoutMs: 5_000,
          idleTimeoutMs: 5_000,
          keepMs: i === ends.length - 1 ? 100 : 5_000,
          forwardedHeader: "x-forwarded",
          isSpliced: true,
          readBuffers: createReadBuffers(),
        },
      },
      {
        onPart: (_head, _content, isEnd) => isEnd && answered.resolve(),
        onFailure: answered.reject,
        onSilence: () => undefined,
        onDrain: () => undefined,
      },
    );
    const client = { socket: new Socket(), address: undefined };
    slot.begin({ method: "GET", bytes: Buffer.from(GET), isRepeatable: true, client });
    await answered.promise;
    slot.keep();
    expect(kept.enter()).toBe(false);
    end(sockets[0]);
    await waitFor(() => expect(kept.enter()).toBe(true), { interval: 5 });
    // Nor given back twice.
    slot.destroy();
    expect(kept.enter()).toBe(false);
  }
});

test.each(["the fast path", "the general path"])(
  "clients that do not read put no upstream out, on %s",
  async (path) => {
    const large = Buffer.alloc(8_000_000, "x");
    const head = `HTTP/1.1 200 OK\r\nContent-Length: ${large.length}\r\n\r\n`;
    const closed: Socket[] = [];
    const answer = (socket: Socket): void => {
      socket.once("close", () => closed.push(socket)).write(head);
      socket.write(large);
    };
    const [first] = await rawUpstream(answer);
    const [second] = await rawUpstream(answer);
    const events: string[] = [];
    const upstreams = upstreamsTo([first, second], {
      observe: (event, name) => void events.push(`${event} ${name}`),
    });
    const edge = await edgeTo("", {
      upstreams,
      fastPath: path === "the fast path",
      forwarder: { idleTimeoutMs: 400 },
      limits: { idleTimeoutMs: 1_200 },
    });
    const clients: TLSSocket[] = [];
    for (let i = 0; i < 8; i += 1) {
      const client = await connectTls(edge.port, edgeCertificates().ca);
      clients.push(client);
      client.write(GET);
      client.pause();
    }
    // By their own limit, not by the upstream's.
    await waitFor(() => expect(closed).toHaveLength(8), { timeout: 5_000 });
    expect(edge.codes).toStrictEqual([]);
    expect(events).toStrictEqual([]);
    for (const { outcomes, underWay } of upstreams.all) {
      expect([underWay, outcomes.timeout, outcomes.broken, outcomes.malformed]).toStrictEqual([
        0, 0, 0, 0,
      ]);
    }
    for (const client of clients) client.destroy();
  },
);

test("an upstream that breaks off its answer has answered, and a client can bring that about", async () => {
  const [url] = await rawUpstream((socket) => {
    socket.end("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart");
  });
  const upstreams = upstreamsTo([url]);
  const edge = await edgeTo("", { upstreams });
  const client = await connectTls(edge.port, edgeCertificates().ca);
  client.write(GET);
  await readUntil(client, "part");
  await once(client, "close");
  const [upstream] = upstreams.all;
  expect(upstream?.outcomes).toMatchObject({ answered: 1, malformed: 0, broken: 0, abandoned: 0 });
});

test("a client that leaves before the decision is told of as gone, not waited for", async () => {
  const asked = Promise.withResolvers<TLSSocket>();
  const decided = Promise.withResolvers<FastDecision>();
  const outcomes: UpstreamOutcome[] = [];
  const [url, sockets] = await rawUpstream(() => undefined);
  const edge = await edgeTo(url, {
    decide: (_head, socket) => {
      asked.resolve(socket);
      return decided.promise;
    },
  });
  const client = await connectTls(edge.port, edgeCertificates().ca);
  client.write(GET);
  const socket = await asked.promise;
  client.destroy();
  await once(socket, "close");
  const onOutcome = (outcome: UpstreamOutcome): void => void outcomes.push(outcome);
  decided.resolve({ kind: "forward", extra: { ...noExtra, onOutcome } });
  await waitFor(() => expect(outcomes).toStrictEqual(["gone"]));
  expect(sockets).toHaveLength(0);
});

test.each([
  ["the fast path", true, 401],
  ["the general path", false, 413],
] as const)(
  "a request that was answered is not answered again when its body does not come: %s",
  async (_name, fastPath, status) => {
    const [url] = await rawUpstream(() => undefined);
    const answer = { status: 401, reason: "x", headers: [], body: "", isLast: false };
    const edge = await edgeTo(url, {
      fastPath,
      decide: () => ({ kind: "answer", answer }),
      forwarder: { maxBodyBytes: fastPath ? 9 : 8 },
      limits: { headersTimeoutMs: 100, requestTimeoutMs: 100 },
    });
    const client = await connectTls(edge.port, edgeCertificates().ca);
    const all = readAll(client);
    client.write("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\nbegun");
    expect((await all).match(/HTTP\/1\.1 \d{3}/g)).toStrictEqual([`HTTP/1.1 ${status}`]);
  },
);

test("pipelined requests are answered in their order, decided at once or later", async () => {
  const count = 3_000;
  let asked = 0;
  const edge = await edgeTo("http://127.0.0.1:9", {
    decide: ({ target }) => {
      const answer = { status: 401, reason: "x", headers: [], body: `<${target}>`, isLast: false };
      const decision: FastDecision = { kind: "answer", answer };
      asked += 1;
      return asked % 500 === 1 ? Promise.resolve(decision) : decision;
    },
  });
  const client = await connectTls(edge.port, edgeCertificates().ca);
  const targets = Array.from({ length: count }, (_, i) => `/${i}`);
  client.write(
    targets.map((target) => `GET ${target} HTTP/1.1\r\nHost: a.example\r\n\r\n`).join(""),
  );
  const text = await readUntil(client, `<${targets.at(-1)}>`);
  expect(text.match(/(?<=<)[^>]+/g)).toStrictEqual(targets);
  client.destroy();
});
