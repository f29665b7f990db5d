/**
 * The proxies that Stile's TLS is compared with, as an operator would run them, each on one core: TLS 1.3 only,
 * the same certificate and key exchange, keep-alive on both sides. `/local` is answered by the proxy itself,
 * everything else comes from the upstream, an nginx of its own.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { cpuSecondsOf } from "./servers.ts";

export const RIVALS = ["nginx", "haproxy", "caddy"] as const;
export type RivalName = (typeof RIVALS)[number];

export interface RivalOptions {
  /** For its files. */
  readonly dir: string;
  readonly port: number;
  readonly upstreamPort: number;
  /** PEM files of the certificate and its key. */
  readonly certificateFile: string;
  readonly keyFile: string;
  /** The only core that it may use. */
  readonly core: number;
}

export interface Rival {
  readonly port: number;
  /** Of the first of its processes. */
  readonly pid: number;
  /** Of all its processes. */
  readonly cpuSeconds: () => number;
  readonly stop: () => Promise<void>;
}

/** Writes a file into the program's folder and gives its path. */
type Write = (file: string, content: string) => string;
/** The arguments that a program is started with; its files are written first. */
type Arguments = (options: RivalOptions, write: Write) => readonly string[];

const READY_MS = 10_000;
const KILOBYTE = "x".repeat(1_024);
const MEBIBYTE = Buffer.alloc(1_048_576, "x");

/** Debian keeps servers where the search path of people does not lead. */
const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin` };

export function isInstalled(program: string): boolean {
  return spawnSync("which", [program], { env }).status === 0;
}

const ARGUMENTS: Readonly<Record<RivalName, Arguments>> = {
  nginx: ({ certificateFile, dir, keyFile, port, upstreamPort }, write) =>
    nginxArguments(
      join(dir, "nginx"),
      write,
      `upstream app { server 127.0.0.1:${upstreamPort}; keepalive 64; keepalive_requests 1000000; }
server {
  listen 127.0.0.1:${port} ssl http2;
  ssl_certificate ${certificateFile};
  ssl_certificate_key ${keyFile};
  ssl_protocols TLSv1.3;
  ssl_ecdh_curve X25519:P-256;
  location = /local { return 200 "hello\\n"; }
  location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
}`,
    ),
  haproxy: ({ certificateFile, keyFile, port, upstreamPort }, write) => {
    const pem = [certificateFile, keyFile].map((file) => readFileSync(file, "utf8"));
    const crt = write("server.pem", pem.join("\n"));
    const config = `global
  nbthread 1
  maxconn 10500
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 30s
frontend tls
  bind 127.0.0.1:${port} ssl crt ${crt} ssl-min-ver TLSv1.3 curves X25519:P-256 alpn h2,http/1.1
  http-request return status 200 content-type text/plain string "hello" if { path /local }
  default_backend app
backend app
  server app 127.0.0.1:${upstreamPort}
`;
    return ["-db", "-f", write("haproxy.cfg", config)];
  },
  caddy: ({ certificateFile, keyFile, port, upstreamPort }, write) => {
    const config = `{
	admin off
	auto_https disable_redirects
}
https://localhost:${port} {
	tls ${certificateFile} ${keyFile} {
		protocols tls1.3
		curves x25519 secp256r1
	}
	respond /local "hello"
	reverse_proxy 127.0.0.1:${upstreamPort}
}
`;
    return ["run", "--adapter", "caddyfile", "--config", write("Caddyfile", config)];
  },
};

export function startRival(name: RivalName, options: RivalOptions): Promise<Rival> {
  return start(name, join(options.dir, name), options, (write) => ARGUMENTS[name](options, write));
}

/** Answers with one kilobyte, and at `/mebibyte` with 1 MiB. */
export function startNginxUpstream(dir: string, port: number, core: number): Promise<Rival> {
  const folder = join(dir, "upstream");
  const server = `server {
  listen 127.0.0.1:${port};
  root ${folder};
  location = /mebibyte { sendfile on; }
  location / { return 200 "${KILOBYTE}"; }
}`;
  return start("nginx", folder, { port, core }, (write) => {
    writeFileSync(join(folder, "mebibyte"), MEBIBYTE);
    return nginxArguments(folder, write, server);
  });
}

function nginxArguments(folder: string, write: Write, server: string): readonly string[] {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${join(folder, kind)};`,
  );
  const config = write(
    "nginx.conf",
    `pid ${join(folder, "pid")};
user root;
worker_processes 1;
events { worker_connections 20000; }
http { access_log off; keepalive_requests 10000000; ${temporary.join(" ")}
${server}
}
`,
  );
  return ["-p", folder, "-e", "stderr", "-c", config, "-g", "daemon off;"];
}

async function start(
  program: string,
  folder: string,
  { core, port }: Pick<RivalOptions, "core" | "port">,
  argumentsOf: (write: Write) => readonly string[],
): Promise<Rival> {
  mkdirSync(folder, { recursive: true });
  const args = argumentsOf((file, content) => {
    writeFileSync(join(folder, file), content);
    return join(folder, file);
  });
  const home = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder, GOMAXPROCS: "1" };
  const child = spawn("taskset", ["-c", String(core), program, ...args], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...env, ...home },
  });
  let told = "";
  child.stderr.on("data", (chunk: Buffer) => (told += chunk.toString()));
  const exited = once(child, "exit");
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    await exited;
  };
  await ready(child, port).catch(async (cause: unknown) => {
    if (child.exitCode === null) await stop();
    throw new Error(`${program} did not start: ${told}`, { cause });
  });
  return { port, pid: child.pid ?? 0, stop, cpuSeconds: () => treeCpuSeconds(child.pid ?? 0) };
}

async function ready(child: ChildProcess, port: number): Promise<void> {
  const deadline = Date.now() + READY_MS;
  while (!(await accepts(port))) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error("nobody listens");
    await wait(10);
  }
}

/** Of a process and its children: nginx works in a child. */
function treeCpuSeconds(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
  const pids = [pid, ...children.filter((child) => child !== "").map(Number)];
  return pids.reduce((sum, each) => sum + cpuSecondsOf(each), 0);
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
