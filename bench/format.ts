/** What every part of the benchmark measures, and how it is printed. */
import type { LoadResult } from "./load.ts";

export interface Figure {
  readonly perSecond: number;
  /** CPU of the server process for one operation, microseconds. */
  readonly cpuMicros: number;
  readonly p99Ms: number;
}

/** A figure counts only where every answer was the expected one. */
export function figureOf(
  result: LoadResult,
  cpuSeconds: number,
  expected: string,
  each: number,
): Figure {
  const answered = result.byStatus[expected] ?? 0;
  const all = Object.values(result.byStatus).reduce((sum, count) => sum + count, 0);
  if (answered === 0 || answered !== all) {
    throw new Error(`expected only ${expected}, got ${JSON.stringify(result.byStatus)}`);
  }
  const operations = answered * each;
  return {
    perSecond: operations / result.seconds,
    cpuMicros: (cpuSeconds * 1e6) / operations,
    p99Ms: result.p99Ms,
  };
}

/** A name, a rate, and what there is to say of it. */
export function line(name: string, perSecond: number, ...more: readonly string[]): void {
  console.log([`${name.padEnd(44)}${perSecond.toFixed(0).padStart(8)} /s`, ...more].join("  "));
}

export function cpu({ cpuMicros }: Pick<Figure, "cpuMicros">): string {
  return `${cpuMicros.toFixed(0).padStart(6)} us CPU`;
}

export function ratio(value: number, floor: number): string {
  return (value / floor).toFixed(2);
}
