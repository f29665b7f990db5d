/**
 * One process against two workers with their keeper, on this machine: forwarding on connections that are kept, on
 * one for each request, and redemption. The load shares the cores with what it measures, so on two cores the
 * ratio cannot come near two; with more cores than workers and load need it says what a worker adds.
 */
import { spawnSync } from "node:child_process";
import { line, ratio } from "./format.ts";
import { runLoad } from "./load.ts";
import { clearanceHeader, getRequest, tokenHeaders } from "./requests.ts";
import { isInstalled } from "./rivals.ts";
import { type BenchServer, startServer } from "./servers.ts";

const WORKERS = 2;
const CONNECTIONS = 32;
const SECONDS = 4;
/** In turns, so that what else the machine does meets both. */
const ROUNDS = 3;
const TOKENS = 3_000;
const DEADLINE_MS = 30_000;

type Measure = (server: BenchServer) => Promise<number>;

export async function benchProcesses(): Promise<void> {
  if (!isInstalled("wrk")) {
    console.log("workers                                   skipped: wrk is not installed");
    return;
  }
  const servers: BenchServer[] = [];
  const start = async (...words: Parameters<typeof startServer>): Promise<BenchServer> => {
    const server = await startServer(...words);
    servers.push(server);
    return server;
  };
  try {
    const upstream = `http://127.0.0.1:${(await start("upstream", [])).port}`;
    const one = await start("sidecar", [upstream]);
    const several = await start("sidecar", [upstream, JSON.stringify({ workers: WORKERS })]);
    await compare("forwarding, connections kept", one, several, (server) => wrk(server, []));
    await compare("forwarding, a connection for each", one, several, (server) =>
      wrk(server, ["-H", "Connection: close"]),
    );
    await compare("redemption", one, several, redeem);
  } finally {
    for (const server of servers.toReversed()) await server.stop();
  }
}

async function compare(
  name: string,
  one: BenchServer,
  several: BenchServer,
  measure: Measure,
): Promise<void> {
  const rates: { readonly one: number; readonly several: number }[] = [];
  for (let i = 0; i < ROUNDS; i += 1) {
    rates.push({ one: await measure(one), several: await measure(several) });
  }
  const before = median(rates.map((rate) => rate.one));
  const after = median(rates.map((rate) => rate.several));
  line(
    `${WORKERS} workers: ${name}`,
    after,
    `ratio to one process ${ratio(after, before)} of the rate`,
  );
}

async function wrk(server: BenchServer, words: readonly string[]): Promise<number> {
  const cookie = await clearanceHeader(server);
  const args = ["-t1", `-c${CONNECTIONS}`, `-d${SECONDS}s`];
  args.push("-H", cookie, ...words, `https://localhost:${server.port}/`);
  const { stdout } = spawnSync("wrk", args, { encoding: "utf8" });
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? "0");
  if (rate === 0 || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`wrk: ${stdout}`);
  return rate;
}

async function redeem(server: BenchServer): Promise<number> {
  const headers = await tokenHeaders(server, TOKENS);
  const { byStatus, seconds } = await runLoad({
    port: server.port,
    ca: server.ca,
    connections: CONNECTIONS,
    requests: headers.map((header) => getRequest(server, [header])),
    rounds: 1,
    deadlineMs: DEADLINE_MS,
  });
  if (byStatus["200"] !== TOKENS) throw new Error(`redemption: ${JSON.stringify(byStatus)}`);
  return TOKENS / seconds;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}
