/**
 * What an idle keep-alive connection costs in memory: ten thousand are held, after one answered request each, from
 * two other processes, and the growth of the server's resident memory is divided by them. Beside Stile stand the
 * proxies of the comparison and a bare server of node:https.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";

const CONNECTIONS = 10_000;
const CLIENTS = 2;
/** Before anything counts: what a process sets up for its first connections is not theirs. */
const WARM_UP = 500;
/** For collectors of garbage, and what else comes after the last handshake. */
const SETTLE_MS = 2_000;
/** For the connections of one server to be there. */
const DEADLINE_MS = 180_000;
/** Files of a process: its connections, and what it has open anyway. */
const SPARE_FILES = 500;

export interface IdleTarget {
  readonly port: number;
  readonly ca: string;
  /** The root of the server's processes. */
  readonly pid: number;
  readonly host: string;
  /** Answered by the server itself. */
  readonly path: string;
}

/** Bytes for each connection; NaN where this process may not open as many. */
export async function idleBytes(target: IdleTarget): Promise<number> {
  if (openFilesLimit(target.pid) < CONNECTIONS + SPARE_FILES) return Number.NaN;
  await (
    await hold(target, WARM_UP)
  )();
  await wait(SETTLE_MS);
  const before = residentBytes(target.pid);
  const release = await hold(target, CONNECTIONS);
  await wait(SETTLE_MS);
  const after = residentBytes(target.pid);
  await release();
  return (after - before) / CONNECTIONS;
}

/** Node raises its own soft limit to the hard one at its start, and hands it on to what it starts. */
function openFilesLimit(pid: number): number {
  const soft = /^Max open files +(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, "utf8"))?.[1];
  return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
}

/** Opens connections and gives what closes them; fails where one is refused, or closed before that. */
async function hold(target: IdleTarget, connections: number): Promise<() => Promise<void>> {
  const script = new URL("./idle-clients.ts", import.meta.url).pathname;
  const each = Math.ceil(connections / CLIENTS);
  const clients = Array.from({ length: CLIENTS }, () => {
    const { host, path, port } = target;
    const words = [String(port), host, path, String(each)];
    const child = spawn(process.execPath, [script, ...words], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    child.stdin.write(`${JSON.stringify(target.ca)}\n`);
    return { child, exited: once(child, "exit") as Promise<[number | null]> };
  });
  const end = (): void => {
    for (const { child } of clients) child.stdin.end();
  };
  try {
    await Promise.all(clients.map(({ child, exited }) => held(child, exited)));
  } catch (error) {
    end();
    throw error;
  }
  return async () => {
    end();
    const codes = await Promise.all(clients.map(({ exited }) => exited));
    if (codes.some(([code]) => code !== 0))
      throw new Error("connections were closed by the server");
  };
}

async function held(child: ChildProcess, exited: Promise<unknown>): Promise<void> {
  if (child.stdout === null) throw new TypeError("expected a pipe");
  const signal = AbortSignal.timeout(DEADLINE_MS);
  await Promise.race([
    once(createInterface({ input: child.stdout }), "line", { signal }),
    exited.then(() => Promise.reject(new Error("connections were refused"))),
  ]);
}

/** Of a process and its children. */
function residentBytes(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
  const pids = [pid, ...children.filter((child) => child !== "").map(Number)];
  return pids.reduce((sum, each) => {
    const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${each}/status`, "utf8"))?.[1];
    return sum + Number(kilobytes) * 1_024;
  }, 0);
}
