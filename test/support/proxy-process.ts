/**
 * Debian's nginx and HAProxy with a configuration that the test writes: senders and receivers of the PROXY
 * protocol that are not ours. Ended by its process id. Its tests are skipped where it is missing.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

const PROGRAMS = { nginx: "/usr/sbin/nginx", haproxy: "/usr/sbin/haproxy" } as const;
/** Debian keeps nginx's module for TCP in a package of its own. */
const STREAMS = "/usr/lib/nginx/modules/ngx_stream_module.so";
const READY_MS = 10_000;

export type ProxyProgram = keyof typeof PROGRAMS;

export function hasProgram(name: ProxyProgram): boolean {
  return existsSync(PROGRAMS[name]);
}

export function hasStreams(): boolean {
  return hasProgram("nginx") && existsSync(STREAMS);
}

export interface ProxyProcess {
  /** What it has written so far. */
  readonly told: () => string;
  readonly stop: () => Promise<void>;
  /** Without a word to anybody. */
  readonly kill: () => Promise<void>;
}

/** Waits until it listens at the port. @param dir takes its files */
export async function startProxy(
  name: ProxyProgram,
  dir: string,
  configuration: string,
  port: number,
): Promise<ProxyProcess> {
  mkdirSync(dir, { recursive: true });
  const file = join(dir, `${name}-${port}.conf`);
  writeFileSync(file, `${name === "nginx" ? nginxMain(dir, port) : ""}${configuration}\n`);
  const args = name === "nginx" ? ["-p", dir, "-e", "stderr", "-c", file] : ["-db", "-f", file];
  const child = spawn(PROGRAMS[name], args, { stdio: ["ignore", "pipe", "pipe"] });
  let told = "";
  for (const output of [child.stdout, child.stderr]) {
    output.on("data", (chunk: Buffer) => (told += chunk.toString()));
  }
  const exited = once(child, "exit");
  const endBy = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await exited;
  };
  const stop = (): Promise<void> => endBy("SIGTERM");
  const deadline = Date.now() + READY_MS;
  while (!(await accepts(port))) {
    if (child.exitCode !== null || Date.now() > deadline) {
      if (child.exitCode === null) await stop();
      throw new Error(`${name} did not start: ${told}`);
    }
    await wait(10);
  }
  return { told: () => told, stop, kill: () => endBy("SIGKILL") };
}

function nginxMain(dir: string, port: number): string {
  const main = ["daemon off;", "master_process off;", `pid ${join(dir, `pid-${port}`)};`];
  if (hasStreams()) main.unshift(`load_module ${STREAMS};`);
  return `${main.join(" ")}\nerror_log stderr warn;\nevents { worker_connections 256; }\n`;
}

/** Where nginx keeps bodies: its own folders are root's. */
export function nginxFolders(dir: string): string {
  const kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return kinds.map((kind) => `${kind}_temp_path ${join(dir, kind)};`).join(" ");
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
