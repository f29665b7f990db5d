/**
 * The servers that a benchmark compares, each in a process of its own so that its CPU time can be read:
 * the sidecar, a bare TLS server of the same runtime, and a plain HTTP upstream.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** What a server says of itself in its first line of output. */
export interface ServerFacts {
  readonly port: number;
  /** PEM of the CA of its certificate; empty for plain HTTP. */
  readonly ca: string;
  /** Value of the Host header. */
  readonly host: string;
  /** Folder of the development state, for the sidecar. */
  readonly dir: string;
}

export interface BenchServer extends ServerFacts {
  readonly pid: number;
  /** Seconds of CPU, user and system, of the process so far. */
  readonly cpuSeconds: () => number;
  readonly stop: () => Promise<void>;
}

/** What of the sidecar a benchmark sets otherwise. */
export interface SidecarSettings {
  readonly fastPath?: boolean;
  /** A rule opens every path. */
  readonly isOpen?: boolean;
  readonly tokenTypes?: readonly number[];
  /** With a keeper and a supervisor; 0: one process. */
  readonly workers?: number;
}

export type ServerKind = "sidecar" | "bare" | "upstream";

/** USER_HZ: the unit of /proc/PID/stat, fixed at 100 on Linux. */
const TICKS_PER_SECOND = 100;

/**
 * @param core the only one that it may use
 * @param nodeArgs of Node itself
 */
export async function startServer(
  kind: ServerKind,
  args: readonly string[],
  core?: number,
  nodeArgs: readonly string[] = [],
): Promise<BenchServer> {
  const script = new URL("./server-process.ts", import.meta.url).pathname;
  const pinned = core === undefined ? [] : ["taskset", "-c", String(core)];
  const [program = "", ...words] = [
    ...pinned,
    process.execPath,
    ...nodeArgs,
    script,
    kind,
    ...args,
  ];
  const child = spawn(program, words, {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([
    once(lines, "line"),
    exited.then(() => Promise.reject(new Error(`the ${kind} server did not start`))),
  ]);
  const facts = JSON.parse(String(first[0])) as ServerFacts;
  return {
    ...facts,
    pid: child.pid ?? 0,
    cpuSeconds: () => cpuSecondsOf(child.pid ?? 0),
    stop: () => stop(child, exited),
  };
}

/** User and system time of a process so far. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The second field is the command in parentheses and may hold spaces: count from behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Closing its input ends a server: it also ends when this process is killed. */
async function stop(child: ChildProcess, exited: Promise<unknown>): Promise<void> {
  child.stdin?.end();
  await exited;
}
