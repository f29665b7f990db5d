/** Several upstreams under load, real ones among them: what a client sees when one dies, comes back, or is slow. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttpServer, type ServerResponse } from "node:http";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort } from "../../support/free-port.ts";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import {
  hasProgram,
  nginxFolders,
  type ProxyProcess,
  startProxy,
} from "../../support/proxy-process.ts";
import { connectTls, readUntil, type TestEdge, upstreamsTo } from "../../support/tls-edge.ts";
import {
  bodyOf,
  closeAfterTest,
  edgeCertificates,
  edgeTo,
  listenOn,
  talk,
} from "../../support/tls-edges.ts";
import { startLoad } from "../../support/upstream-load.ts";
import { EXAMPLE_ACCEPT, EXAMPLE_KEY } from "../../support/websocket-example.ts";

const PATHS = [
  ["the fast path", true],
  ["the general path", false],
] as const;
const HOST = "Host: a.example\r\n";
const GET = `GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`;
const url = (port: number): string => `http://127.0.0.1:${port}`;

/** Five times as fast as the clock: what takes seconds takes the test less. */
const quickClock = (): number => performance.now() * 5;

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await wait(5);
}

/** Closed when the test is over. @returns its port */
async function httpServer(
  handler: (body: string, response: ServerResponse) => void,
): Promise<number> {
  const server = createHttpServer((request, response) => {
    let body = "";
    request.setEncoding("latin1").on("data", (text: string) => (body += text));
    request.once("end", () => handler(body, response));
  });
  closeAfterTest(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return listenOn(server);
}

interface TurnTaking {
  readonly clock: () => number;
  /** @param takesMs by that clock */
  readonly answer: (response: ServerResponse, body: string, takesMs: number) => void;
  readonly onTurn: (listener: () => void) => void;
  /** From now on all are answered at once. */
  readonly end: () => void;
}

/** A clock that goes on where all clients wait, to when the first is answered: however busy the machine is. */
function turnTaking(clients: number): TurnTaking {
  const waiting: { readonly dueMs: number; readonly end: () => void }[] = [];
  let [nowMs, wanted] = [0, clients];
  let listener = (): void => undefined;
  const goOn = (): void => {
    while (waiting.length > 0 && waiting.length >= wanted) {
      const first = waiting.toSorted((a, b) => a.dueMs - b.dueMs)[0];
      if (first === undefined) return;
      waiting.splice(waiting.indexOf(first), 1);
      nowMs = Math.max(nowMs, first.dueMs);
      listener();
      first.end();
    }
  };
  return {
    clock: () => nowMs,
    answer: (response, body, takesMs) => {
      waiting.push({ dueMs: nowMs + takesMs, end: () => response.end(body) });
      goOn();
    },
    onTurn: (next) => {
      listener = next;
    },
    end: () => {
      wanted = 0;
      goOn();
    },
  };
}

async function rawServer(onSocket: (socket: Socket) => void): Promise<number> {
  const server = createServer((socket) => onSocket(socket.on("error", () => undefined)));
  closeAfterTest(() => new Promise((resolve) => server.close(() => resolve())));
  return listenOn(server);
}

describe.skipIf(!hasProgram("nginx"))("two nginx", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "stile-upstreams-"));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  const nginx = (name: string, port: number): Promise<ProxyProcess> => {
    const server = `server { listen 127.0.0.1:${port}; return 200 "${name}"; }`;
    const http = `http { access_log off; ${nginxFolders(dir)} ${server} }`;
    return startProxy("nginx", join(dir, name), http, port);
  };

  test.each(PATHS)("one is killed under load: no GET fails on %s", async (_name, fastPath) => {
    const ports = [await freePort(), await freePort()] as const;
    const [a, b] = [await nginx("a", ports[0]), await nginx("b", ports[1])];
    const events: string[] = [];
    const upstreams = upstreamsTo(ports.map(url), {
      clock: quickClock,
      ejection: { failures: 3, baseMs: 500, maxMs: 2_000 },
      observe: (event, name) => void events.push(`${event} ${name}`),
    });
    const edge = await edgeTo("", { upstreams, fastPath });
    closeAfterTest(a.stop);
    const load = startLoad(edge, 8);
    await until(() => (load.by["a"] ?? 0) > 100 && (load.by["b"] ?? 0) > 100);
    await b.kill();
    // Those that had been answered by it are answered by the other.
    await until(() => events.includes("ejected 1"));
    const before = load.by["a"] ?? 0;
    await until(() => (load.by["a"] ?? 0) > before + 200);
    const again = await nginx("b", ports[1]);
    closeAfterTest(again.stop);
    await until(() => events.includes("readmitted 1"));
    expect((await load.stop()).failures).toStrictEqual([]);
    expect(events.filter((event) => event.endsWith("0"))).toStrictEqual([]);
    expect(upstreams.all.map(({ underWay }) => underWay)).toStrictEqual([0, 0]);
  });
});

describe.each(PATHS)("on %s", (_name, fastPath) => {
  test("a slow one gets little, and connections leave it", async () => {
    const stage = turnTaking(8);
    let slowMs = 50;
    const slow = await httpServer((_body, response) => stage.answer(response, "slow", slowMs));
    const quick = await httpServer((_body, response) => stage.answer(response, "quick", 50));
    const upstreams = upstreamsTo([url(slow), url(quick)], { clock: stage.clock });
    // Real time plays no part, and answers take as long as the others of that time.
    const forwarder = { firstByteTimeoutMs: 60_000, idleTimeoutMs: 60_000 };
    const edge = await edgeTo("", { upstreams, fastPath, forwarder });
    const load = startLoad(edge, 8);
    await until(() => (load.by["slow"] ?? 0) > 50 && (load.by["quick"] ?? 0) > 50);
    slowMs = 2_000;
    // Each of the eight connections chooses again when its answer is there, after two seconds at the soonest.
    const settledMs = stage.clock() + 4_500;
    await until(() => stage.clock() > settledMs);
    const before = { ...load.by };
    let [atSlow, samples] = [0, 0];
    stage.onTurn(() => {
      atSlow += upstreams.all[0]?.underWay ?? 0;
      samples += 1;
    });
    await until(() => stage.clock() > settledMs + 2_000);
    stage.end();
    const { by, failures } = await load.stop();
    const since = (name: string): number => (by[name] ?? 0) - (before[name] ?? 0);
    expect(failures).toStrictEqual([]);
    expect(since("quick")).toBeGreaterThan(4 * since("slow"));
    // Of eight; without the choice, those that began there would stay.
    expect(atSlow / samples).toBeLessThan(3);
  });

  test("one that comes and goes under load fails no GET", async () => {
    const steady = await httpServer((_body, response) => response.end("steady"));
    const port = await freePort();
    const upstreams = upstreamsTo([url(steady), url(port)], {
      clock: quickClock,
      ejection: { failures: 3, baseMs: 100, maxMs: 400 },
    });
    const edge = await edgeTo("", { upstreams, fastPath });
    const load = startLoad(edge, 8);
    let seen = 0;
    for (let i = 0; i < 4; i += 1) {
      const server = createHttpServer((_request, response) => response.end("flapping"));
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
      await until(() => (load.by["flapping"] ?? 0) > seen);
      await wait(20);
      seen = load.by["flapping"] ?? 0;
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
      await wait(20);
    }
    expect((await load.stop()).failures).toStrictEqual([]);
    expect(upstreams.retries.made).toBeGreaterThan(0);
    expect(upstreams.retries.refused).toBe(0);
  });

  test("a POST that never left goes to the next, whole and once", async () => {
    const bodies: string[] = [];
    const alive = await httpServer((body, response) => {
      bodies.push(body);
      response.end("alive");
    });
    const upstreams = upstreamsTo([url(await freePort()), url(alive)]);
    const edge = await edgeTo("", { upstreams, fastPath });
    const body = "b".repeat(300_000);
    const head = `POST / HTTP/1.1\r\n${HOST}Connection: close\r\nContent-Length: ${body.length}\r\n\r\n`;
    expect(bodyOf(await talk(edge, head + body))).toContain("alive");
    expect(bodies).toStrictEqual([body]);
    expect(
      upstreams.all.map(({ outcomes }) => [outcomes.connect, outcomes.answered]),
    ).toStrictEqual([
      [1, 0],
      [0, 1],
    ]);
  });

  test("rejects with 502 a POST that was lost, and no other sees it; a GET is sent once more", async () => {
    let [lost, served] = [0, 0];
    const losing = await rawServer((socket) =>
      socket.once("data", () => {
        lost += 1;
        socket.resetAndDestroy();
      }),
    );
    const alive = await httpServer((_body, response) => {
      served += 1;
      response.end("alive");
    });
    const edge = (): Promise<TestEdge> =>
      edgeTo("", { upstreams: upstreamsTo([url(losing), url(alive)]), fastPath });
    const posted = await edge();
    const post = `POST / HTTP/1.1\r\n${HOST}Connection: close\r\nContent-Length: 1\r\n\r\nx`;
    expect(await talk(posted, post)).toMatch(/^HTTP\/1.1 502 /);
    expect([lost, served]).toStrictEqual([1, 0]);
    expect(posted.codes).toStrictEqual(["TLS_UPSTREAM_UNREACHABLE"]);
    expect(await talk(await edge(), GET)).toContain("alive");
    expect([lost, served]).toStrictEqual([2, 1]);
  });

  test("rejects with 503 where none is left, and tries again by itself", async () => {
    const port = await freePort();
    let nowMs = 0;
    const upstreams = upstreamsTo([url(port), url(await freePort())], {
      clock: () => nowMs,
      ejection: { failures: 1, baseMs: 100, maxMs: 100 },
    });
    const edge = await edgeTo("", { upstreams, fastPath });
    expect(await talk(edge, GET)).toMatch(/^HTTP\/1.1 502 /);
    expect(await talk(edge, GET)).toMatch(/^HTTP\/1.1 503 /);
    expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_UNREACHABLE", "TLS_UPSTREAM_UNHEALTHY"]);
    const server = createHttpServer((_request, response) => response.end("back"));
    closeAfterTest(() => new Promise((resolve) => server.close(() => resolve())));
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    nowMs = 100;
    expect(await talk(edge, GET)).toContain("back");
  });
});

test("an HTTP/2 request that never left goes to the next, whole and once", async () => {
  const bodies: string[] = [];
  const alive = await httpServer((body, response) => {
    bodies.push(body);
    response.end("alive");
  });
  const edge = await edgeTo("", { upstreams: upstreamsTo([url(await freePort()), url(alive)]) });
  const session = await openH2(edge.port, edgeCertificates().ca);
  const body = "b".repeat(300_000);
  const answer = await requestH2(session, { ":method": "POST" }, body);
  session.destroy();
  expect(answer).toMatchObject({ status: 200, body: "alive" });
  expect(bodies).toStrictEqual([body]);
});

test("a WebSocket goes to the next where one cannot be reached", async () => {
  const alive = await rawServer((socket) =>
    socket.once("data", () => {
      socket.write(
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" +
          `Sec-WebSocket-Accept: ${EXAMPLE_ACCEPT}\r\n\r\nhello`,
      );
      socket.on("data", (chunk: Buffer) => socket.end(chunk));
    }),
  );
  const upstreams = upstreamsTo([url(await freePort()), url(alive)]);
  const edge = await edgeTo("", { upstreams });
  const socket = await connectTls(edge.port, edgeCertificates().ca);
  const greeted = readUntil(socket, "hello");
  const key = `Sec-WebSocket-Key: ${EXAMPLE_KEY}\r\n`;
  socket.write(`GET / HTTP/1.1\r\n${HOST}${key}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`);
  expect(await greeted).toMatch(/^HTTP\/1.1 101 /);
  expect(upstreams.all[1]?.underWay).toBe(1);
  const echoed = readUntil(socket, "back");
  socket.write("back");
  await echoed;
  socket.destroy();
  await until(() => upstreams.all[1]?.underWay === 0);
});
