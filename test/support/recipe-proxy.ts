/**
 * A real proxy in front of a test sidecar, with the recipe of deploy/ as it stands but for ports, paths and
 * names. Debian's programs; where one is missing its tests are skipped. Ended by its process id.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

export type ProxyName = "nginx" | "haproxy" | "caddy";

const root = join(import.meta.dirname, "..", "..");
const RECIPES: Readonly<Record<ProxyName, string>> = {
  nginx: "deploy/nginx/stile.conf",
  haproxy: "deploy/haproxy/haproxy.cfg",
  caddy: "deploy/caddy/Caddyfile",
};
const READY_MS = 10_000;

export function hasProxy(name: ProxyName): boolean {
  return spawnSync(name, [name === "caddy" ? "version" : "-v"]).error === undefined;
}

export interface RecipeOptions {
  /** Holds what the recipe looks for under /etc/stile; the proxy writes here, too. */
  readonly dir: string;
  readonly port: number;
  readonly sidecarPort: number;
  readonly upstreamPort: number;
  /** `publicUrl` of the sidecar. */
  readonly issuer: string;
}

export interface RecipeProxy {
  /** Ends it and waits until it is gone. */
  readonly stop: () => Promise<void>;
}

/** Waits until it accepts connections. */
export async function startRecipe(name: ProxyName, options: RecipeOptions): Promise<RecipeProxy> {
  const folder = join(options.dir, name);
  mkdirSync(folder, { recursive: true });
  const recipe = settle(name, readFileSync(join(root, RECIPES[name]), "utf8"), options);
  const child = launch(name, recipe, folder);
  let told = "";
  child.stderr?.on("data", (chunk: Buffer) => (told += chunk.toString()));
  const exited = once(child, "exit");
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    await exited;
  };
  const deadline = Date.now() + READY_MS;
  while (!(await accepts(options.port))) {
    if (child.exitCode !== null || Date.now() > deadline) {
      if (child.exitCode === null) await stop();
      throw new Error(`${name} did not start: ${told}`);
    }
    await wait(10);
  }
  return { stop };
}

/** The recipe with this machine's ports and paths. A placeholder that it no longer has is an error. */
function settle(name: ProxyName, recipe: string, options: RecipeOptions): string {
  const { dir, issuer, port, sidecarPort, upstreamPort } = options;
  const listens: Record<ProxyName, readonly [string, string]> = {
    nginx: ["listen 443 ", `listen 127.0.0.1:${port} `],
    haproxy: ["bind :443 ", `bind 127.0.0.1:${port} `],
    caddy: ["https://www.example.org {", `https://localhost:${port} {`],
  };
  const changes: (readonly [string, string])[] = [
    listens[name],
    ["/etc/stile/", `${dir}/`],
    ["127.0.0.1:8443", `127.0.0.1:${sidecarPort}`],
    ["127.0.0.1:8080", `127.0.0.1:${upstreamPort}`],
    ...(name === "haproxy" ? [["str https://www.example.org", `str ${issuer}`] as const] : []),
    ["www.example.org", "localhost"],
  ];
  return changes.reduce((text, [from, to]) => {
    if (!text.includes(from)) throw new Error(`${RECIPES[name]} has no ${from}`);
    return text.replaceAll(from, to);
  }, recipe);
}

function launch(name: ProxyName, recipe: string, folder: string): ChildProcess {
  const at = (file: string): string => join(folder, file);
  const run = (args: readonly string[], env: Record<string, string> = {}): ChildProcess =>
    spawn(name, args, {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, ...env },
    });
  if (name === "haproxy") {
    writeFileSync(at("haproxy.cfg"), recipe);
    return run(["-db", "-f", at("haproxy.cfg")]);
  }
  if (name === "caddy") {
    writeFileSync(at("Caddyfile"), `{\n\tadmin off\n\tauto_https disable_redirects\n}\n${recipe}`);
    const home = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
    return run(["run", "--adapter", "caddyfile", "--config", at("Caddyfile")], home);
  }
  writeFileSync(at("stile.conf"), recipe);
  writeFileSync(at("nginx.conf"), nginxMain(at));
  return run(["-p", folder, "-e", "stderr", "-c", at("nginx.conf"), "-g", "daemon off;"]);
}

/** What a distribution's nginx.conf has around the recipe. */
function nginxMain(at: (file: string) => string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${at(kind)};`,
  );
  return [
    `pid ${at("pid")};`,
    "error_log stderr warn;",
    "worker_processes 1;",
    "events { worker_connections 256; }",
    "http {",
    "access_log off;",
    ...temporary,
    `include ${at("stile.conf")};`,
    "}",
    "",
  ].join("\n");
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
