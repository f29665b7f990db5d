/**
 * Durable inserts a second of the embedded spent store at 512 spends in flight, the latency of its
 * batches, the bytes on disk per entry, and the time to start again with all of them. Each spend is answered after an fdatasync, so the figures
 * are the disk's as much as ours. Run alone: `node bench/spent-store.ts [entries] [folder]`;
 * ten million take three minutes.
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
  /** From the closed folder to the first answer. */
  readonly startMs: number;
  /** Of the process with the store open, above what it was before, in bytes. */
  readonly residentBytes: number;
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
    // Made as they are needed, and one of a hundred kept: ten million would fill the memory.
    const kept: Uint8Array[] = [];
    const startedMs = performance.now();
    let next = 0;
    const spendOn = async (): Promise<void> => {
      while (next < entries) {
        const nonce = randomFillSync(new Uint8Array(32));
        if (next % 100 === 0) kept.push(nonce);
        next += 1;
        await store.spend({ tokenKeyId, nonce, atMs: 0 });
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, spendOn));
    const seconds = (performance.now() - startedMs) / 1_000;
    const measured = { sizes: [...sizes], durations: durations.toSorted((a, b) => a - b) };
    await store.close();
    const residentBefore = process.memoryUsage.rss();
    const reopenedMs = performance.now();
    const reopened = await openSpentLevelStore({ folder });
    let replaysMissed = 0;
    let startMs = 0;
    for (const nonce of kept) {
      const { outcome } = await reopened.spend({ tokenKeyId, nonce, atMs: 0 });
      if (startMs === 0) startMs = performance.now() - reopenedMs;
      if (outcome !== "spent") replaysMissed += 1;
    }
    const residentBytes = Math.max(0, process.memoryUsage.rss() - residentBefore);
    await reopened.close();
    return {
      entries,
      insertsPerSecond: entries / seconds,
      batchP50Ms: quantile(measured.durations, 0.5),
      batchP99Ms: quantile(measured.durations, 0.99),
      meanBatchSize: entries / measured.sizes.length,
      bytesPerEntry: (await bytesUnder(folder)) / entries,
      startMs,
      residentBytes,
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
