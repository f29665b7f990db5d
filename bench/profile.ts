/**
 * Where the sidecar's CPU goes: V8's own sampling (`node --cpu-prof`) while a load lasts, and the functions with the
 * most samples of their own. What OpenSSL, the kernel and the event loop do is in the rows of their callers or in
 * "(program)"; worker threads are left out.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchServer } from "./servers.ts";

const TOP = 12;
/** Of the main thread: CPU.date.time.pid.thread.count.cpuprofile. */
const MAIN_THREAD = /^CPU\.\d+\.\d+\.\d+\.0\.\d+\.cpuprofile$/;

/** The parts of the format that are read (Chrome DevTools Protocol, Profiler.Profile). Times in microseconds. */
interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
  }[];
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

export interface ProfiledServer {
  readonly server: BenchServer;
  /** Samples from here on count. */
  readonly mark: () => void;
}

/**
 * @param start starts the server with these arguments of Node
 * @param load what is profiled; it calls `mark` when it has warmed up
 */
export async function printProfile(
  title: string,
  start: (nodeArgs: readonly string[]) => Promise<BenchServer>,
  load: (profiled: ProfiledServer) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "stile-bench-profile-"));
  try {
    const server = await start(["--cpu-prof", `--cpu-prof-dir=${dir}`]);
    let from = 0;
    let to = 0;
    try {
      await load({ server, mark: () => (from = monotonicMicros()) });
      to = monotonicMicros();
    } finally {
      await server.stop();
    }
    const file = readdirSync(dir).find((name) => MAIN_THREAD.test(name));
    if (file === undefined) throw new Error("the server wrote no profile");
    const profile = JSON.parse(readFileSync(join(dir, file), "utf8")) as CpuProfile;
    print(title, selfTimes(profile, from, to));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The clock that V8 samples by. */
function monotonicMicros(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}

/** Microseconds by function, without idle time. */
function selfTimes(profile: CpuProfile, from: number, to: number): Map<string, number> {
  const names = new Map(profile.nodes.map((node) => [node.id, nameOf(node.callFrame)]));
  const times = new Map<string, number>();
  let at = profile.startTime;
  for (const [i, id] of profile.samples.entries()) {
    const delta = profile.timeDeltas[i] ?? 0;
    at += delta;
    const name = names.get(id) ?? "";
    if (at < from || at > to || name === "(idle)") continue;
    times.set(name, (times.get(name) ?? 0) + delta);
  }
  return times;
}

function nameOf({
  functionName,
  lineNumber,
  url,
}: CpuProfile["nodes"][number]["callFrame"]): string {
  const name = functionName === "" ? "(anonymous)" : functionName;
  if (url === "") return name;
  const file = url.replace(/^.*?\/(?=(?:tls|service|tokens|wire|node_modules)\/)/, "");
  return `${name}  ${file}:${lineNumber + 1}`;
}

function print(title: string, times: ReadonlyMap<string, number>): void {
  const all = [...times.values()].reduce((sum, time) => sum + time, 0);
  console.log(`${title}: share of the main thread's busy time`);
  for (const [name, time] of [...times].toSorted(([, a], [, b]) => b - a).slice(0, TOP)) {
    console.log(`  ${((100 * time) / all).toFixed(1).padStart(5)} %  ${name}`);
  }
}
