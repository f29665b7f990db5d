/**
 * `npm run bench`: what Stile costs, as ratios to what the machine can do, all in one run. The floors are
 * `openssl speed`, a bare server of the same runtime, and node:crypto alone. Bounded: about two minutes.
 * `edge`, `issuance`, `store`, `haproxy`, `tls`, `attest`, `page` or `processes` as an argument runs one part, and so does
 * `--only PART`; `tls --profile` says where the CPU of a handshake and of a forwarded request goes instead.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { parseArgs } from "node:util";
import { benchAttestation } from "./attestation.ts";
import { type Figure, figureOf, line, ratio } from "./format.ts";
import { benchHaproxy } from "./haproxy.ts";
import { benchIssuance } from "./issuance.ts";
import { runLoad } from "./load.ts";
import { clearanceHeader, getRequest, tokenHeaders } from "./requests.ts";
import { type BenchServer, startServer } from "./servers.ts";
import { benchPage } from "./page.ts";
import { benchProcesses } from "./processes.ts";
import { benchSpentStore } from "./spent-store.ts";
import { benchTls, profileTls } from "./tls.ts";

const CONNECTIONS = 32;
const REQUESTS = 20_000;
const TOKENS = 12_000;
const HANDSHAKES = 1_500;
const LOAD = 0.8;
const DEADLINE_MS = 60_000;

const PARTS = {
  edge: runEdge,
  issuance: runIssuance,
  store: runStore,
  haproxy: runHaproxy,
  tls: runTls,
  attest: runAttest,
  page: runPage,
  processes: benchProcesses,
} as const;

const argument = parseArgs({
  options: { only: { type: "string" }, profile: { type: "boolean" } },
  allowPositionals: true,
});
const dir = mkdtempSync(join(tmpdir(), "stile-bench-bare-"));
const servers: BenchServer[] = [];
try {
  await main();
} finally {
  for (const server of servers.toReversed()) await server.stop();
  rmSync(dir, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const only = argument.values.only ?? argument.positionals[0];
  const names = Object.keys(PARTS).filter((name) => only === undefined || name === only);
  if (names.length === 0) {
    console.error(`${only}: expected ${Object.keys(PARTS).join(" or ")}`);
    process.exitCode = 2;
    return;
  }
  console.log(
    `${cpus()[0]?.model ?? "unknown CPU"}, ${availableParallelism()} cores, Node ${process.versions.node}`,
  );
  for (const [name, part] of Object.entries(PARTS)) if (names.includes(name)) await part();
}

async function runTls(): Promise<void> {
  await (argument.values.profile === true ? profileTls() : benchTls());
}

async function runPage(): Promise<void> {
  const figures = await benchPage();
  if (figures === undefined) {
    console.log("page in Chromium                        skipped: Chromium is not installed");
    return;
  }
  const { admittedMs, interactiveMs, visits, worstAdmittedMs } = figures;
  console.log(
    `page in Chromium, ${visits} first visits          interactive after ${interactiveMs.toFixed(0)} ms, from the touch to the site ${admittedMs.toFixed(0)} ms (medians; worst ${worstAdmittedMs.toFixed(0)} ms)`,
  );
}

async function runAttest(): Promise<void> {
  for (const { name, perSecond, floorPerSecond } of await benchAttestation()) {
    console.log(
      `${name.padEnd(50)}${perSecond.toFixed(0).padStart(6)} /s and core  ` +
        `${(1e6 / perSecond).toFixed(0).padStart(6)} us CPU  ` +
        `ratio to node:crypto ${ratio(perSecond, floorPerSecond)} of the rate`,
    );
  }
}

async function runEdge(): Promise<void> {
  const upstream = await start("upstream", []);
  const bare = await start("bare", [dir]);
  const sidecar = await start("sidecar", [`http://127.0.0.1:${upstream.port}`]);

  await warmUp(bare, sidecar);
  const hello = await measureGets(bare, [getRequest(bare, [])], REQUESTS);
  print("bare TLS server, keep-alive GET", hello);

  const tokens = await tokenHeaders(sidecar, TOKENS);
  const redeemed = await measureGets(
    sidecar,
    tokens.map((header) => getRequest(sidecar, [header])),
    TOKENS,
  );
  print("redemption: token, durable spend, forward", redeemed, hello);

  const cookie = await clearanceHeader(sidecar);
  const forwarded = await measureGets(sidecar, [getRequest(sidecar, [cookie])], REQUESTS);
  print("forwarding: clearance, upstream round trip", forwarded, hello);
  print("the same without the fast path", await measureGeneralPath(upstream), hello);

  const challenged = await measureGets(sidecar, [getRequest(sidecar, [])], REQUESTS, "401");
  print("challenge: 401", challenged, hello);

  const bareHandshakes = await measureHandshakes(bare);
  print("bare TLS server, full handshakes", bareHandshakes);
  print("full handshakes", await measureHandshakes(sidecar), bareHandshakes);
  await measureUnderLoad(sidecar, redeemed.perSecond);
}

/** Redemption with requests that come at their own pace. */
async function measureUnderLoad(sidecar: BenchServer, fullRate: number): Promise<void> {
  const tokens = await tokenHeaders(sidecar, TOKENS / 2);
  const requests = tokens.map((header) => getRequest(sidecar, [header]));
  const ratePerSecond = LOAD * fullRate;
  const { p99Ms, perSecond } = await measureGets(
    sidecar,
    requests,
    tokens.length,
    "200",
    ratePerSecond,
  );
  line("redemption at 80% of that", perSecond, `p99 ${p99Ms.toFixed(1)} ms`);
}

async function runIssuance(): Promise<void> {
  const upstream = await start("upstream", []);
  const settings = JSON.stringify({ tokenTypes: [2, 1, 5] });
  await benchIssuance(() => start("sidecar", [`http://127.0.0.1:${upstream.port}`, settings]));
}

async function runHaproxy(): Promise<void> {
  const upstream = await start("upstream", []);
  const sidecar = await start("sidecar", [`http://127.0.0.1:${upstream.port}`]);
  await benchHaproxy(sidecar, upstream);
}

async function runStore(): Promise<void> {
  const store = await benchSpentStore();
  line(
    "spent store: durable inserts",
    store.insertsPerSecond,
    `${store.bytesPerEntry.toFixed(0)} bytes an entry, batch p99 ${store.batchP99Ms.toFixed(1)} ms`,
    `started again in ${store.startMs.toFixed(0)} ms`,
  );
}

/** Forwarding where `edge.fastPath` is off: through node:http on both sides. */
async function measureGeneralPath(upstream: BenchServer): Promise<Figure> {
  const general = await start("sidecar", [
    `http://127.0.0.1:${upstream.port}`,
    JSON.stringify({ fastPath: false }),
  ]);
  const request = getRequest(general, [await clearanceHeader(general)]);
  await measureGets(general, [request], 4_000);
  return measureGets(general, [request], REQUESTS);
}

async function start(kind: "upstream" | "bare" | "sidecar", args: string[]): Promise<BenchServer> {
  const server = await startServer(kind, args);
  servers.push(server);
  return server;
}

/** The JIT and the connection pools of both servers, before anything counts. */
async function warmUp(bare: BenchServer, sidecar: BenchServer): Promise<void> {
  await measureGets(bare, [getRequest(bare, [])], 4_000);
  const tokens = await tokenHeaders(sidecar, 1_000);
  await measureGets(
    sidecar,
    tokens.map((header) => getRequest(sidecar, [header])),
    1_000,
  );
}

async function measureGets(
  server: BenchServer,
  requests: readonly Uint8Array[],
  total: number,
  expected = "200",
  ratePerSecond?: number,
): Promise<Figure> {
  const before = server.cpuSeconds();
  const result = await runLoad({
    port: server.port,
    ca: server.ca,
    connections: CONNECTIONS,
    requests,
    rounds: total / requests.length,
    deadlineMs: DEADLINE_MS,
    ...(ratePerSecond === undefined ? {} : { ratePerSecond }),
  });
  return figureOf(result, server.cpuSeconds() - before, expected, 1);
}

/** Full handshakes, eight at a time: a connection without a session of before. */
async function measureHandshakes(server: BenchServer): Promise<Figure> {
  const before = server.cpuSeconds();
  const started = performance.now();
  let left = HANDSHAKES;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (left > 0) {
        left -= 1;
        await handshake(server);
      }
    }),
  );
  const seconds = (performance.now() - started) / 1_000;
  const cpuMicros = ((server.cpuSeconds() - before) * 1e6) / HANDSHAKES;
  return { perSecond: HANDSHAKES / seconds, cpuMicros, p99Ms: Number.NaN };
}

function handshake(server: BenchServer): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      { host: "127.0.0.1", port: server.port, servername: "localhost", ca: server.ca },
      () => socket.destroy(),
    );
    socket.once("close", () => resolve());
    socket.once("error", reject);
  });
}

function print(name: string, figure: Figure, floor?: Figure): void {
  const p99 = Number.isNaN(figure.p99Ms) ? "" : `  p99 ${figure.p99Ms.toFixed(1)} ms`;
  const ratios =
    floor === undefined
      ? ""
      : `  ratio to bare ${ratio(figure.perSecond, floor.perSecond)} of the rate, ` +
        `${ratio(figure.cpuMicros, floor.cpuMicros)} times the CPU`;
  console.log(
    `${name.padEnd(42)}${figure.perSecond.toFixed(0).padStart(8)} /s  ` +
      `${figure.cpuMicros.toFixed(0).padStart(6)} us CPU${p99}${ratios}`,
  );
}
