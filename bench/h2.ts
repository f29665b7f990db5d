/**
 * HTTP/2 beside the same proxies: requests by h2load, which checks every answer. 32 connections with 10 streams
 * each, on one thread of the other core.
 */
import { spawnSync } from "node:child_process";

const REQUESTS = 20_000;

export interface Http2Target {
  readonly port: number;
  readonly cpuSeconds: () => number;
  /** Further headers of each request, `Host` among them. */
  readonly headers: readonly string[];
}

/** Microseconds of CPU for one request. @throws Error where an answer was none of 2xx */
export function http2Load(path: string, core: number): (target: Http2Target) => number {
  return ({ cpuSeconds, headers, port }) => {
    const own = headers.filter((header) => !/^host:/i.test(header));
    const load = ["-n", String(REQUESTS), "-c", "32", "-m", "10", "-t", "1"];
    const words = own.flatMap((header) => ["-H", header]);
    const url = `https://localhost:${port}${path}`;
    const before = cpuSeconds();
    const command = ["-c", String(core), "h2load", ...load, ...words, url];
    const { stdout } = spawnSync("taskset", command, { encoding: "utf8" });
    const spent = cpuSeconds() - before;
    const isWhole = stdout.includes(`status codes: ${REQUESTS} 2xx`);
    if (!isWhole || !stdout.includes("Application protocol: h2")) {
      throw new Error(`h2load at ${path}: ${stdout}`);
    }
    return (spent * 1e6) / REQUESTS;
  };
}
