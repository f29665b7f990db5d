/**
 * The service as several processes, from outside: what a client sees of it, and what becomes of its requests while
 * it is reloaded and while its processes are killed.
 */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { type DemoUpstream, startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { parseWwwAuthenticate } from "../../tokens/index.ts";
import { type Mint, openMint } from "../support/mint.ts";
import { type LoadCounts, type LoadRequest, startLoad } from "../support/process-load.ts";
import { childrenOf, isAlive } from "../support/process-tree.ts";
import { rawGet, type RawTarget } from "../support/raw-client.ts";
import {
  prepareServe,
  type ServeChild,
  type ServeFiles,
  startServe,
} from "../support/serve-child.ts";

/** `npm run test:nightly` has more, and then also what takes long. */
const ROUNDS = Number(process.env["PROCESS_ROUNDS"] ?? "1");
const IS_LONG = ROUNDS > 1;
const CONNECTIONS = 6;
const WORKERS = 2;

let upstream: DemoUpstream;
let files: ServeFiles;
let service: ServeChild;
let target: RawTarget;
let mint: Mint;
let challenge: Uint8Array;
let cookie: string;

const settings = {
  processes: { workers: WORKERS, hangSeconds: IS_LONG ? 2 : 15, keeperWaitSeconds: 20 },
};

beforeAll(async () => {
  upstream = await startDemoUpstream();
  files = await prepareServe(upstream.url, settings);
  target = { port: files.port, ca: files.ca, host: files.host };
  await start();
  const challenged = await get("/");
  challenge = parseWwwAuthenticate(challenged.headers["www-authenticate"] ?? "")[0]!.challenge;
  mint = await openMint(files.dir);
  const admitted = await get("/", { authorization: mint.authorization(challenge) });
  cookie = String(admitted.headers["set-cookie"]).split(";")[0] ?? "";
});
afterAll(async () => {
  await service.stop();
  files.remove();
  await upstream.stop();
});

async function start(): Promise<void> {
  service = startServe(files);
  await service.event("started");
}

function get(path: string, headers: Record<string, string> = {}): Promise<ExchangeAnswer> {
  return exchange({ url: `https://${files.host}${path}`, method: "GET", headers, ca: files.ca });
}

function askSocket(
  socketPath: string,
  path: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const asked = httpRequest({ socketPath, path, headers }, (response) => {
      void response.toArray().then((parts: Buffer[]) => {
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() });
      }, reject);
    });
    asked.once("error", reject);
    asked.end();
  });
}

const operator = (path: string): ReturnType<typeof askSocket> =>
  askSocket(join(files.dir, "operator.sock"), path);

async function metric(line: string): Promise<number> {
  const { text } = await operator("/metrics");
  const found = text.split("\n").find((one) => one.startsWith(`${line} `));
  return Number(found?.slice(line.length + 1) ?? "NaN");
}

const pid = (): number => service.process.pid ?? 0;
const children = (role: "keeper" | "worker"): number[] => childrenOf(pid(), role);

async function signal(name: "SIGHUP" | "SIGUSR2", event: string): Promise<void> {
  const from = service.lines.length;
  service.process.kill(name);
  await service.event(event, from);
}

/** Requests of clients that are cleared, and each fourth with a token of its own. */
function visits(spent: Map<string, number>): () => LoadRequest {
  let count = 0;
  return () => {
    count += 1;
    if (count % 4 > 0) return { bytes: rawGet(target, "/visit", { cookie }) };
    const authorization = mint.authorization(challenge);
    spent.set(authorization, 0);
    const onAnswer = (status: number): void => {
      if (status === 200) spent.set(authorization, 1);
    };
    return { bytes: rawGet(target, "/visit", { authorization }), onAnswer };
  };
}

async function underLoad(
  tries: number,
  work: () => Promise<void>,
): Promise<LoadCounts & { readonly spent: ReadonlyMap<string, number> }> {
  const spent = new Map<string, number>();
  const load = startLoad(target, {
    connections: CONNECTIONS,
    perConnection: 25,
    tries,
    next: visits(spent),
  });
  await delay(300);
  await work();
  await delay(300);
  return { ...(await load.stop()), spent };
}

/** Each token once more, on another connection and without a key: nobody's retry. */
async function admittedAgain(spent: ReadonlyMap<string, number>): Promise<number> {
  let again = 0;
  const tokens = [...spent].filter(([, times]) => times > 0).map(([token]) => token);
  const { done } = startLoad(target, {
    connections: CONNECTIONS,
    perConnection: 1,
    tries: 3,
    next: () => {
      const authorization = tokens.pop();
      if (authorization === undefined) return undefined;
      const onAnswer = (status: number): void => void (again += status === 200 ? 1 : 0);
      return { bytes: rawGet(target, "/again", { authorization }), onAnswer };
    },
  });
  const { failed, statuses } = await done;
  expect([failed, [...statuses.keys()]]).toEqual([0, [401]]);
  return again;
}

describe("a service of several processes", { timeout: 60_000 * ROUNDS }, () => {
  it("has a keeper and its workers, and is ready", async () => {
    expect(children("keeper")).toHaveLength(1);
    expect(children("worker")).toHaveLength(WORKERS);
    expect((await operator("/readyz")).status).toBe(200);
    expect(await metric("stile_workers_ready")).toBe(WORKERS);
  });

  it("admits a token once, whichever worker it comes to", async () => {
    const before = upstream.hits();
    const authorization = mint.authorization(challenge);
    const statuses = [];
    for (let i = 0; i < 8; i += 1) statuses.push((await get("/", { authorization })).status);
    expect(statuses).toEqual([200, 401, 401, 401, 401, 401, 401, 401]);
    const key = { authorization: mint.authorization(challenge), "idempotency-key": "mine" };
    const repeats = [];
    for (let i = 0; i < 8; i += 1) repeats.push((await get("/", key)).status);
    expect(repeats).toEqual(Array(8).fill(200));
    expect(upstream.hits() - before).toBe(9);
    expect(await metric('stile_spends_total{outcome="repeat"}')).toBe(7);
    expect(await metric('stile_admissions_total{by="repeat"}')).toBe(7);
  });

  it("attests a device over the connection that a worker has, and issues to it", async () => {
    const main = join(import.meta.dirname, "../../service/cli/main.ts");
    const args = [main, "agent", "fetch", `https://${files.host}/hello`, "--dev-state", files.dir];
    args.push("--wallet", join(files.dir, "wallet"), "--count", "2");
    const { out, status } = await new Promise<{ out: string; status: unknown }>((resolve) => {
      execFile(process.execPath, args, (error, stdout, stderr) =>
        resolve({ out: stdout + stderr, status: error?.code ?? 0 }),
      );
    });
    expect([status, out]).toEqual([0, expect.stringContaining("hello")]);
    expect(await metric('stile_attestations_total{step="evidence",outcome="OK"}')).toBe(1);
  });

  it("rejects whoever speaks for a client without being a worker", async () => {
    const socket = join(files.config.stateDir, "processes", "http.sock");
    const claimed = Buffer.from(JSON.stringify({ key: "00".repeat(32), address: "192.0.2.1" }));
    for (const header of [{}, { "stile-peer": claimed.toString("base64url") }]) {
      expect((await askSocket(socket, "/.well-known/jwks.json", header)).status).toBe(403);
    }
    // Through a worker it is a header like any other, and is not passed on.
    const header = { "stile-peer": claimed.toString("base64url") };
    expect((await get("/.well-known/jwks.json", header)).status).toBe(200);
  });

  it("resumes a session at any worker", async () => {
    const resumed: boolean[] = [];
    let session: Buffer | undefined;
    for (let i = 0; i < 8; i += 1) {
      const socket = connect({
        port: files.port,
        host: "127.0.0.1",
        servername: "localhost",
        ca: files.ca,
        ...(session === undefined ? {} : { session }),
      });
      socket.once("session", (ticket: Buffer) => (session = ticket));
      await once(socket, "secureConnect");
      resumed.push(socket.isSessionReused());
      socket.write(rawGet(target, "/", { connection: "close" }));
      socket.resume();
      await once(socket, "close");
    }
    expect(resumed).toEqual([false, ...Array(7).fill(true)]);
  });

  it("says what is wrong with a new configuration, and goes on with the old", async () => {
    const before = children("worker");
    files.write({ edge: { ...files.config.edge, hosts: [] } });
    await signal("SIGHUP", "reload.failed");
    // Only a worker finds out.
    const tls = { ...files.config.tls, keyFile: "/nowhere" };
    files.write({ tls });
    await signal("SIGHUP", "reload.failed");
    files.write({ listen: { ...files.config.listen, port: 1 } });
    await signal("SIGHUP", "reload.needs-restart");
    files.write({ processes: { workers: 0 } });
    await signal("SIGHUP", "reload.needs-restart");
    files.write({});
    expect(children("worker")).toEqual(before);
    expect((await get("/", { authorization: mint.authorization(challenge) })).status).toBe(200);
    expect(await metric('stile_reloads_total{outcome="failed"}')).toBe(2);
    expect(await metric('stile_reloads_total{outcome="needs-restart"}')).toBe(2);
  });

  it.skipIf(!IS_LONG)("puts the keeper back where its successor cannot start", async () => {
    files.write({ attester: { ...files.config.attester, manufacturerRootsFile: "/nowhere" } });
    await signal("SIGHUP", "reload.failed");
    files.write({});
    expect((await get("/", { authorization: mint.authorization(challenge) })).status).toBe(200);
    expect(children("keeper")).toHaveLength(1);
  });

  it("is reloaded and started anew under load without a failed request", async () => {
    const before = [...children("worker"), ...children("keeper")];
    const { failed, spent, statuses } = await underLoad(1, async () => {
      for (let i = 0; i < ROUNDS; i += 1) {
        files.write({ edge: { ...files.config.edge, maxBodyBytes: 1_000 + i } });
        await signal("SIGHUP", "reloaded");
        files.write({});
        await signal("SIGUSR2", "reloaded");
      }
    });
    console.log(`reload and restart: ${JSON.stringify([...statuses])}, ${failed} failed`);
    expect([failed, [...statuses.keys()]]).toEqual([0, [200]]);
    expect([...spent.values()].every((times) => times === 1)).toBe(true);
    expect(await admittedAgain(spent)).toBe(0);
    const after = [...children("worker"), ...children("keeper")];
    expect(after.filter((child) => before.includes(child) && isAlive(child))).toEqual([]);
  });

  it("replaces a worker that is killed; who asks once more has every answer", async () => {
    const { failed, repeated, spent, statuses } = await underLoad(2, async () => {
      for (let i = 0; i < ROUNDS; i += 1) {
        const [first = 0] = children("worker");
        process.kill(first, "SIGKILL");
        // Noticed first, then replaced: two that are killed at once take both tries of a client.
        await expect.poll(() => metric(CRASHES), POLL).toBe(i + 1);
        await expect.poll(() => metric("stile_workers_ready"), POLL).toBe(WORKERS);
      }
    });
    console.log(`killed worker: ${JSON.stringify([...statuses])}, ${repeated} asked again`);
    expect(failed).toBe(0);
    // A token whose answer was lost with its connection is spent: its owner has no key to repeat with.
    expect([...statuses.keys()].every((status) => status === 200 || status === 401)).toBe(true);
    expect(statuses.get(401) ?? 0).toBeLessThanOrEqual(repeated);
    expect(await admittedAgain(spent)).toBe(0);
  });

  it.skipIf(!IS_LONG)("replaces a worker and a keeper that stand still", async () => {
    for (const role of ["worker", "keeper"] as const) {
      const [stopped = 0] = children(role);
      process.kill(stopped, "SIGSTOP");
      await expect.poll(() => isAlive(stopped), POLL).toBe(false);
      const answer = get("/", { authorization: mint.authorization(challenge) });
      expect((await answer).status).toBe(200);
      const line = `stile_process_exits_total{process="${role}",reason="hang"}`;
      await expect.poll(() => metric(line).catch(() => 0), POLL).toBe(1);
    }
  });

  it("admits no token twice while its keeper is killed, and recovers by itself", async () => {
    const { failed, spent, statuses } = await underLoad(1, async () => {
      for (let i = 0; i < ROUNDS; i += 1) {
        const [keeper = 0] = children("keeper");
        process.kill(keeper, "SIGKILL");
        const isReplaced = (): Promise<number> =>
          operator("/readyz").then(
            ({ status }) => status,
            () => 0,
          );
        await expect.poll(isReplaced, POLL).toBe(200);
      }
    });
    console.log(`killed keeper: ${JSON.stringify([...statuses])}, ${failed} failed`);
    // On one connection a token is its own key: what the dead keeper did not answer, the next one does.
    expect([failed, [...statuses.keys()]]).toEqual([0, [200]]);
    expect(await admittedAgain(spent)).toBe(0);
  });

  it("ends with its supervisor", async () => {
    const all = [...children("worker"), ...children("keeper")];
    service.process.kill("SIGKILL");
    await service.exited;
    await expect.poll(() => all.filter(isAlive), POLL).toEqual([]);
    if (!IS_LONG) return;
    await start();
    expect((await get("/", { cookie })).status).toBe(200);
  });
});

describe.skipIf(!IS_LONG)("a service whose workers do not stay up", { timeout: 180_000 }, () => {
  it("rejects to go on, for systemd to see", async () => {
    const app = await startDemoUpstream();
    const broken = await prepareServe(app.url, { processes: { workers: 1 } });
    const child = startServe(broken);
    await child.event("started");
    // Nobody can start any more: the key of the certificate is gone.
    rmSync(broken.config.tls.keyFile ?? "");
    const [worker = 0] = childrenOf(child.process.pid ?? 0, "worker");
    process.kill(worker, "SIGKILL");
    expect(await child.exited).toBe(1);
    expect(child.errors()).toContain("SERVICE_PROCESS_FAILED");
    expect(child.lines.filter(({ event }) => event === "process.ended").length).toBeGreaterThan(7);
    broken.remove();
    await app.stop();
  });
});

const CRASHES = 'stile_process_exits_total{process="worker",reason="crash"}';
const POLL = { timeout: 20_000, interval: 50 };
