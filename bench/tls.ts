/**
 * What TLS and forwarding cost next to nginx, HAProxy and Caddy: CPU of the server for each operation, on one
 * core, in turns, with the same certificate, key exchange (X25519), upstream and load. The load has the other
 * core. A bare server of node:https stands beside them: what of the cost is Node's own TLS. CPU is what an operator pays for; rates would show whichever side of this machine is slower.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { freePort } from "../test/support/free-port.ts";
import { ratio } from "./format.ts";
import { http2Load } from "./h2.ts";
import { idleBytes } from "./idle.ts";
import { printProfile } from "./profile.ts";
import { clearanceHeader } from "./requests.ts";
import { isInstalled, type Rival, RIVALS, startNginxUpstream, startRival } from "./rivals.ts";
import { type BenchServer, type SidecarSettings, startServer } from "./servers.ts";

const TURNS = 3;
const SECONDS = 2;
const HANDSHAKES = 1_200;
const SERVER_CORE = 0;
const OTHER_CORE = 1;

interface Target {
  readonly name: string;
  readonly port: number;
  readonly ca: string;
  readonly cpuSeconds: () => number;
  readonly pid: number;
  /** Further headers of each request. */
  readonly headers: readonly string[];
  /** It answers everything itself. */
  readonly isLocal?: boolean;
}

/** Microseconds of CPU for one operation. */
type Measure = (target: Target) => Promise<number>;

interface Setup {
  readonly open: Target;
  readonly cleared: Target;
  readonly rivals: readonly Target[];
}

export async function benchTls(): Promise<void> {
  const missing = ["wrk", "h2load", "taskset", "nginx"].find((program) => !isInstalled(program));
  if (missing !== undefined) {
    console.log(`TLS beside other proxies                  skipped: ${missing} is not installed`);
    return;
  }
  const dir = mkdtempSync(join(tmpdir(), "stile-bench-tls-"));
  const stops: (() => Promise<void>)[] = [];
  try {
    await printTable(await setUp(dir, (stop) => void stops.push(stop)));
  } finally {
    for (const stop of stops.toReversed()) await stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function setUp(dir: string, onStop: (stop: () => Promise<void>) => void): Promise<Setup> {
  const upstreamPort = await freePort();
  const upstream = await startNginxUpstream(dir, upstreamPort, OTHER_CORE);
  onStop(upstream.stop);
  const sidecar = async (settings: SidecarSettings): Promise<BenchServer> => {
    const args = [`http://127.0.0.1:${upstreamPort}`, JSON.stringify(settings)];
    const server = await startServer("sidecar", args, SERVER_CORE);
    onStop(server.stop);
    return server;
  };
  const [open, cleared] = [await sidecar({ isOpen: true }), await sidecar({})];
  const { ca } = open;
  const tls = join(open.dir, "tls");
  const files = { certificateFile: join(tls, "server.pem"), keyFile: join(tls, "server.key") };
  const rivals: Target[] = [];
  for (const name of RIVALS.filter((rival) => isInstalled(rival))) {
    const port = await freePort();
    const rival: Rival = await startRival(name, {
      dir,
      port,
      upstreamPort,
      core: SERVER_CORE,
      ...files,
    });
    onStop(rival.stop);
    rivals.push({ name, ca, headers: [], port, pid: rival.pid, cpuSeconds: rival.cpuSeconds });
  }
  const bare = await startServer("bare", [join(dir, "bare")], SERVER_CORE);
  onStop(bare.stop);
  rivals.push({ ...targetOf("node:https", bare, []), isLocal: true });
  return {
    open: targetOf("Stile", open, []),
    cleared: targetOf("Stile", cleared, [await clearanceHeader(cleared)]),
    rivals,
  };
}

function targetOf(
  name: string,
  { ca, cpuSeconds, host, pid, port }: BenchServer,
  headers: readonly string[],
): Target {
  return { name, ca, cpuSeconds, pid, port, headers: [`Host: ${host}`, ...headers] };
}

async function printTable({ cleared, open, rivals }: Setup): Promise<void> {
  const names = rivals.map(({ name }) => `${name.padStart(11)}  ratio`);
  console.log(
    `${"CPU of one core, microseconds".padEnd(36)}${"Stile".padStart(9)}${names.join("")}`,
  );
  const row = async (title: string, stile: Target, own: Measure, theirs = own): Promise<void> => {
    const costs = await inTurns([[stile, own], ...rivals.map((rival) => [rival, theirs] as const)]);
    const [cost = Number.NaN, ...others] = costs;
    const columns = others.map((other) =>
      Number.isNaN(other)
        ? "".padStart(18)
        : `${other.toFixed(1).padStart(11)}  ${ratio(cost, other).padStart(5)}`,
    );
    console.log(`${title.padEnd(36)}${cost.toFixed(1).padStart(9)}${columns.join("")}`);
  };
  await row("full handshake", open, handshakes(false));
  await row("resumed handshake", open, handshakes(true));
  await row("answered locally: 200", open, load("/.well-known/jwks.json"), load("/local"));
  const challenged = { ...cleared, headers: cleared.headers.slice(0, 1) };
  await row("answered locally: 401, challenge", challenged, load("/", "401"), load("/local"));
  for (const [size, path] of [
    ["1 kB", "/"],
    ["1 MiB", "/mebibyte"],
  ] as const) {
    await row(`forwarded, ${size}, open`, open, forwarding(path));
    await row(`forwarded, ${size}, by clearance`, cleared, forwarding(path));
  }
  await row("HTTP/2: answered locally", open, http2("/.well-known/jwks.json"), http2("/local"));
  await row("HTTP/2: forwarded, 1 kB, open", open, http2("/"));
  await row("HTTP/2: forwarded, by clearance", cleared, http2("/"));
  await printIdle([open, ...rivals]);
}

/** Once each: what is counted is not time. */
async function printIdle(targets: readonly Target[]): Promise<void> {
  console.log("10,000 idle keep-alive connections held, kB of memory each");
  for (const target of targets) {
    const host = target.headers[0]?.slice("Host: ".length) ?? "localhost";
    const path = target === targets[0] ? "/.well-known/jwks.json" : "/local";
    const bytes = await idleBytes({ ...target, host, path });
    const said = Number.isNaN(bytes)
      ? "skipped: this process may not open as many files (ulimit -Hn)"
      : (bytes / 1_024).toFixed(1).padStart(6);
    console.log(`  ${target.name.padEnd(12)}${said}`);
  }
}

const PROFILE_ROUNDS = 4;

/** `npm run bench -- tls --profile`: full handshakes, and requests with a clearance forwarded. */
export async function profileTls(): Promise<void> {
  const missing = ["wrk", "taskset", "nginx"].find((program) => !isInstalled(program));
  if (missing !== undefined) {
    console.log(`where the CPU goes                      skipped: ${missing} is not installed`);
    return;
  }
  const dir = mkdtempSync(join(tmpdir(), "stile-bench-tls-"));
  const port = await freePort();
  const upstream = await startNginxUpstream(dir, port, OTHER_CORE);
  const start = (nodeArgs: readonly string[]): Promise<BenchServer> =>
    startServer("sidecar", [`http://127.0.0.1:${port}`], SERVER_CORE, nodeArgs);
  const profile = async (title: string, measure: Measure): Promise<void> =>
    printProfile(title, start, async ({ mark, server }) => {
      const target = targetOf("Stile", server, [await clearanceHeader(server)]);
      await measure(target);
      mark();
      for (let round = 0; round < PROFILE_ROUNDS; round += 1) await measure(target);
    });
  try {
    await profile("full handshakes", handshakes(false));
    await profile("forwarded, 1 kB, by clearance", load("/"));
    await profile("forwarded, 1 MiB, by clearance", load("/mebibyte"));
  } finally {
    await upstream.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** NaN for a server that does not forward. */
function forwarding(path: string): Measure {
  const measure = load(path);
  return (target) => (target.isLocal === true ? Promise.resolve(Number.NaN) : measure(target));
}

/** NaN for a server that speaks HTTP/1.1 alone. */
function http2(path: string): Measure {
  const measure = http2Load(path, OTHER_CORE);
  return (target) => Promise.resolve(target.isLocal === true ? Number.NaN : measure(target));
}

/** The means of several turns, without a first one that warms up. */
async function inTurns(pairs: readonly (readonly [Target, Measure])[]): Promise<number[]> {
  const sums = pairs.map(() => 0);
  for (let turn = 0; turn <= TURNS; turn += 1) {
    for (const [i, [target, measure]] of pairs.entries()) {
      const cost = await measure(target);
      if (turn > 0) sums[i] = (sums[i] ?? 0) + cost;
    }
  }
  return sums.map((sum) => sum / TURNS);
}

/** @throws Error where an answer was another than the expected one */
function load(path: string, expected: "200" | "401" = "200"): Measure {
  return ({ cpuSeconds, headers, port }) => {
    const words = headers.flatMap((header) => ["-H", header]);
    const url = `https://localhost:${port}${path}`;
    const command = [
      "-c",
      String(OTHER_CORE),
      "wrk",
      "-t1",
      "-c32",
      `-d${SECONDS}s`,
      ...words,
      url,
    ];
    const before = cpuSeconds();
    const { stdout } = spawnSync("taskset", command, { encoding: "utf8" });
    const spent = cpuSeconds() - before;
    const requests = Number(/^ *(\d+) requests in/m.exec(stdout)?.[1] ?? "0");
    const refused = Number(/^ *Non-2xx or 3xx responses: (\d+)/m.exec(stdout)?.[1] ?? "0");
    const isExpected = refused === (expected === "401" ? requests : 0);
    if (requests === 0 || !isExpected || stdout.includes("Socket errors")) {
      throw new Error(`wrk at ${path}: ${stdout}`);
    }
    return Promise.resolve((spent * 1e6) / requests);
  };
}

/** Eight at a time. A resumed one brings the ticket of a connection before. */
function handshakes(isResumed: boolean): Measure {
  return async (target) => {
    const session = isResumed ? await ticketOf(target) : undefined;
    const before = target.cpuSeconds();
    let left = HANDSHAKES;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        while (left > 0) {
          left -= 1;
          await handshake(target, session);
        }
      }),
    );
    return ((target.cpuSeconds() - before) * 1e6) / HANDSHAKES;
  };
}

function open({ ca, port }: Target, session?: Buffer): TLSSocket {
  const ours = { ca, ecdhCurve: "X25519", servername: "localhost", ALPNProtocols: ["http/1.1"] };
  return connect({ host: "127.0.0.1", port, ...ours, ...(session && { session }) });
}

function ticketOf(target: Target): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = open(target);
    socket.once("session", (session) => {
      socket.destroy();
      resolve(session);
    });
    socket.once("error", reject);
    // Some send their tickets with the first bytes of an answer.
    socket.once("secureConnect", () =>
      socket.write("GET /local HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    );
  });
}

function handshake(target: Target, session: Buffer | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = open(target, session);
    socket.once("secureConnect", () => {
      if (socket.isSessionReused() !== (session !== undefined)) {
        reject(new Error(`${target.name} resumed where it should not, or did not`));
      }
      socket.destroy();
    });
    socket.once("close", () => resolve());
    socket.once("error", reject);
  });
}
