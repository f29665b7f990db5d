/**
 * Issuance over HTTPS, with attestation result, proof and allowance, as ratios to native code on the same cores.
 * Floor and figure are measured in turns, since the speed of a shared machine changes by the second. Then the latency under 80% of the rate that was reached.
 */
import { randomBytes } from "node:crypto";
import { availableParallelism } from "node:os";
import {
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_VOPRF_P384,
  TOKEN_TYPE_VOPRF_RISTRETTO255,
} from "../tokens/index.ts";
import { createVoprfEngine, generateVoprfKey } from "../tokens/voprf/index.ts";
import { cpu, type Figure, figureOf, line, ratio } from "./format.ts";
import { runLoad } from "./load.ts";
import { opensslP384, opensslRsaSigns } from "./openssl.ts";
import { batchRequests } from "./requests.ts";
import type { BenchServer } from "./servers.ts";

const BATCH_SIZE = 100;
/** Batches under way at once: the queue of the signing threads is never empty. */
const CONNECTIONS = 8;
const LOAD = 0.8;
const DEADLINE_MS = 60_000;
const FLOOR_MS = 1_000;
const TURNS = 5;

interface Row {
  readonly name: string;
  readonly tokenType: number;
  readonly batches: number;
  readonly floorName: string;
  readonly floor: () => number;
}

const ROWS: readonly Row[] = [
  {
    name: "type 2, generic batches of 100",
    tokenType: TOKEN_TYPE_BLIND_RSA,
    batches: 60,
    floorName: "openssl speed rsa2048",
    floor: opensslRsaSigns,
  },
  {
    name: "type 1, amortized batches of 100",
    tokenType: TOKEN_TYPE_VOPRF_P384,
    batches: 10,
    floorName: "openssl speed ecdhp384",
    floor: opensslP384,
  },
  {
    name: "type 5, amortized batches of 100",
    tokenType: TOKEN_TYPE_VOPRF_RISTRETTO255,
    batches: 40,
    floorName: "libsodium, hash to group and one multiplication",
    floor: sodiumEvaluations,
  },
];

/** @param start a sidecar that issues all three types */
export async function benchIssuance(start: () => Promise<BenchServer>): Promise<void> {
  const sidecar = await start();
  await measure(sidecar, TOKEN_TYPE_BLIND_RSA, 20);
  for (const row of ROWS) {
    const floors: number[] = [];
    const figures: Figure[] = [];
    for (let turn = 0; turn < TURNS; turn += 1) {
      floors.push(row.floor());
      figures.push(await measure(sidecar, row.tokenType, row.batches));
    }
    floors.push(row.floor());
    const floor = mean(floors);
    const perSecond = mean(figures.map((figure) => figure.perSecond));
    const cpuMicros = mean(figures.map((figure) => figure.cpuMicros));
    line(row.floorName, floor);
    const compared = `ratio ${ratio(perSecond, floor)}`;
    line(`issuance: ${row.name}`, perSecond, cpu({ cpuMicros }), compared);
  }
  await measureUnderLoad(sidecar);
}

/** Single requests, as a device makes them that needs one token, at a share of the rate of batches. */
async function measureUnderLoad(sidecar: BenchServer): Promise<void> {
  const full = await measure(sidecar, TOKEN_TYPE_BLIND_RSA, 1_500, 1);
  const rate = LOAD * full.perSecond;
  const paced = await measure(sidecar, TOKEN_TYPE_BLIND_RSA, 1_500, 1, rate);
  line("issuance: type 2, one by one", full.perSecond, cpu(full));
  line("  at 80% of that", paced.perSecond, `p99 ${paced.p99Ms.toFixed(1)} ms`);
}

async function measure(
  sidecar: BenchServer,
  tokenType: number,
  batches: number,
  size: number = BATCH_SIZE,
  ratePerSecond?: number,
): Promise<Figure> {
  const requests = await batchRequests(sidecar, { tokenType, batches, size });
  const before = sidecar.cpuSeconds();
  const result = await runLoad({
    port: sidecar.port,
    ca: sidecar.ca,
    connections: size === 1 ? 64 : CONNECTIONS,
    requests,
    rounds: 1,
    deadlineMs: DEADLINE_MS,
    ...(ratePerSecond === undefined ? {} : { ratePerSecond }),
  });
  return figureOf(result, sidecar.cpuSeconds() - before, "200", size);
}

/** On one thread, for as many as there are cores. */
function sodiumEvaluations(): number {
  const voprf = createVoprfEngine(TOKEN_TYPE_VOPRF_RISTRETTO255, "native");
  const { privateKey } = generateVoprfKey(voprf, (length) => Uint8Array.from(randomBytes(length)));
  const key = privateKey.export();
  const started = performance.now();
  let count = 0;
  for (; performance.now() - started < FLOOR_MS; count += 1) voprf.evaluate(key, key);
  return ((count * 1_000) / (performance.now() - started)) * availableParallelism();
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
