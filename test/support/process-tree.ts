/** The processes that another has started, of a supervisor by what they run. Linux only, as the service. */
import { existsSync, readFileSync } from "node:fs";

export type ChildRole = "keeper" | "worker";

/** @param role of a supervisor's children; without it, all */
export function childrenOf(pid: number, role?: ChildRole): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  const pids = children === "" ? [] : children.split(" ").map(Number);
  if (role === undefined) return pids;
  return pids.filter((child) => commandOf(child).includes(`${role}-process.ts`));
}

export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\s*Z/m.test(statusOf(pid));
}

function commandOf(pid: number): string {
  return readOrNothing(`/proc/${pid}/cmdline`);
}

function statusOf(pid: number): string {
  return readOrNothing(`/proc/${pid}/status`);
}

/** It may be gone by now. */
function readOrNothing(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
