/**
 * Debian's nginx and HAProxy as the application: each answers every request by itself and logs what it took it for,
 * one JSON line a request. Ended by their process ids.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { freePort } from "./free-port.ts";

export const LOGGING_UPSTREAMS = ["nginx", "haproxy"] as const;
export type LoggingUpstreamName = (typeof LOGGING_UPSTREAMS)[number];

/** As the server read it. Empty where there was none. */
export interface LoggedRequest {
  readonly method: string;
  readonly uri: string;
  readonly host: string;
  readonly admission: string;
  readonly forwardedFor: string;
  readonly cookie: string;
}

export interface LoggingUpstream {
  readonly port: number;
  /** All requests so far, of which it has answered the last. */
  readonly requests: () => readonly LoggedRequest[];
  readonly stop: () => Promise<void>;
}

const READY_MS = 10_000;
const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin` };

export function hasUpstream(name: LoggingUpstreamName): boolean {
  return spawnSync("which", [name], { env }).status === 0;
}

function nginxArguments(folder: string, port: number): readonly string[] {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${join(folder, kind)};`,
  );
  const format = {
    method: "$request_method",
    uri: "$request_uri",
    host: "$http_host",
    admission: "$http_stile_admission",
    forwardedFor: "$http_x_forwarded_for",
    cookie: "$http_cookie",
  };
  const config = `pid ${join(folder, "pid")};
error_log stderr crit;
worker_processes 1;
events { worker_connections 1024; }
http {
  ${temporary.join("\n  ")}
  log_format seen escape=json '${JSON.stringify(format)}';
  access_log ${join(folder, "access.log")} seen;
  server { listen 127.0.0.1:${port}; location / { return 200 "the application"; } }
}
`;
  writeFileSync(join(folder, "nginx.conf"), config);
  return ["-p", folder, "-e", "stderr", "-c", join(folder, "nginx.conf"), "-g", "daemon off;"];
}

function haproxyArguments(folder: string, port: number): readonly string[] {
  const captured = ["host", "stile-admission", "x-forwarded-for", "cookie"].map(
    (name) => `  http-request capture req.hdr(${name}) len 512`,
  );
  const fields = ["host", "admission", "forwardedFor", "cookie"].map(
    (name, i) => `"${name}":"%[capture.req.hdr(${i}),json]"`,
  );
  const format = `{"method":"%[capture.req.method]","uri":"%[capture.req.uri,json]",${fields.join(",")}}`;
  const config = `global
  log stdout format raw local0
defaults
  mode http
  log global
  timeout connect 2s
  timeout client 10s
  timeout server 10s
  option http-buffer-request
  option dontlognull
frontend application
  bind 127.0.0.1:${port}
${captured.join("\n")}
  log-format '${format}'
  http-request return status 200 content-type text/plain string "the application"
`;
  writeFileSync(join(folder, "haproxy.cfg"), config);
  return ["-db", "-f", join(folder, "haproxy.cfg")];
}

const ARGUMENTS = { nginx: nginxArguments, haproxy: haproxyArguments } as const;

/** @param dir for its files, in a folder of its own */
export async function startLoggingUpstream(
  name: LoggingUpstreamName,
  dir: string,
): Promise<LoggingUpstream> {
  const folder = join(dir, name);
  mkdirSync(folder, { recursive: true });
  const port = await freePort();
  const child = spawn(name, ARGUMENTS[name](folder, port), {
    stdio: ["ignore", "pipe", "pipe"],
    env,
  });
  let told = "";
  let complaints = "";
  child.stdout.on("data", (chunk: Buffer) => (told += chunk.toString("latin1")));
  child.stderr.on("data", (chunk: Buffer) => (complaints += chunk.toString("latin1")));
  const exited = once(child, "exit");
  await ready(child, port, () => complaints);
  const lines = (): string =>
    name === "nginx" ? readFileSync(join(folder, "access.log"), "latin1") : told;
  return {
    port,
    requests: () =>
      lines()
        .split("\n")
        .filter((line) => line.startsWith("{"))
        // HAProxy writes a dash where there is nothing.
        .map((line) => JSON.parse(line.replaceAll('":"-"', '":""')) as LoggedRequest),
    stop: async () => {
      child.kill("SIGTERM");
      await exited;
    },
  };
}

async function ready(child: ChildProcess, port: number, complaints: () => string): Promise<void> {
  const deadline = Date.now() + READY_MS;
  for (;;) {
    const socket = connect(port, "127.0.0.1");
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    if (child.exitCode !== null || Date.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`the upstream did not start: ${complaints()}`);
    }
    await wait(10);
  }
}
