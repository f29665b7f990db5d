/**
 * Durable inserts a second of the embedded spent store at 512 spends in flight, the latency of its
 * batches, and the bytes on disk per entry. Each spend is answered after an fdatasync, so the figures
 * are the disk's as much as ours. Run alone: `node bench/spent-store.ts [entries] [folder]`.
 */
import { randomFillSync } from "node:crypto";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSpentLevelStore } from "../service/stores/index.ts";

export interface SpentStoreFigures {
  readonly entries: number;
  readonly insertsPerSecond: number;
  readonly batchP50Ms: number;
  readonly batchP99Ms: number;
  readonly meanBatchSize: number;
  readonly bytesPerEntry: number;
  /** A repeat of every hundredth nonce that was not answered "spent": must be 0. */
  readonly replaysMissed: number;
}

const IN_FLIGHT = 512;

/**
 * @param entries nonces to insert: 200,000 take some 3 s
 * @param parent where the folder of the store is made; the disk of it is what is measured
 */
export async function benchSpentStore(
  entries = 200_000,
  parent: string = tmpdir(),
): Promise<SpentStoreFigures> {
  const folder = await mkdtemp(join(parent, "stile-bench-"));
  const sizes: number[] = [];
  const durations: number[] = [];
  const observe = {
    batch(size: number, durationMs: number): void {
      sizes.push(size);
      durations.push(durationMs);
    },
  };
  try {
    const store = await openSpentLevelStore({ folder, observe });
    const tokenKeyId = new Uint8Array(32).fill(7);
    const nonces = Array.from({ length: entries }, () => randomFillSync(new Uint8Array(32)));
    const startedMs = performance.now();
    let next = 0;
    const spendOn = async (): Promise<void> => {
      for (let nonce = nonces[next++]; nonce !== undefined; nonce = nonces[next++]) {
        await store.spend({ tokenKeyId, nonce, atMs: 0 });
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, spendOn));
    const seconds = (performance.now() - startedMs) / 1_000;
    const measured = { sizes: [...sizes], durations: durations.toSorted((a, b) => a - b) };
    let replaysMissed = 0;
    for (let i = 0; i < entries; i += 100) {
      const nonce = nonces[i] ?? new Uint8Array(32);
      const { outcome } = await store.spend({ tokenKeyId, nonce, atMs: 0 });
      if (outcome !== "spent") replaysMissed += 1;
    }
    await store.close();
    return {
      entries,
      insertsPerSecond: entries / seconds,
      batchP50Ms: quantile(measured.durations, 0.5),
      batchP99Ms: quantile(measured.durations, 0.99),
      meanBatchSize: entries / measured.sizes.length,
      bytesPerEntry: (await bytesUnder(folder)) / entries,
      replaysMissed,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

async function bytesUnder(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return bytes;
}

if (import.meta.main) {
  const [entries, parent] = process.argv.slice(2);
  console.log(JSON.stringify(await benchSpentStore(Number(entries ?? 200_000), parent), null, 2));
}
