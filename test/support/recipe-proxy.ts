/**
 * A real proxy in front of a test sidecar, with the recipe of deploy/ as it stands but for ports, paths and
 * names. nginx, HAProxy and Caddy are Debian's; Envoy and Traefik are used where somebody has put them on the PATH.
 * Where one is missing, its tests are skipped. Ended by its process id.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

export type ProxyName = "nginx" | "haproxy" | "caddy" | "envoy" | "envoy-grpc" | "traefik";

const root = join(import.meta.dirname, "..", "..");
const RECIPES: Readonly<Record<ProxyName, string>> = {
  nginx: "deploy/nginx/stile.conf",
  haproxy: "deploy/haproxy/haproxy.cfg",
  caddy: "deploy/caddy/Caddyfile",
  envoy: "deploy/envoy/envoy.yaml",
  "envoy-grpc": "deploy/envoy/ext-authz-grpc.yaml",
  traefik: "deploy/traefik/dynamic.yaml",
};
const READY_MS = 10_000;

export function hasProxy(name: ProxyName): boolean {
  return spawnSync("which", [programOf(name)], { env: withSystemPrograms() }).status === 0;
}

/** The recipe's name, without which of several it is. */
function programOf(name: ProxyName): string {
  return name.replace(/-.*/, "");
}

/** Debian keeps servers where the search path of people does not lead. */
function withSystemPrograms(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin` };
}

export interface RecipeOptions {
  /** Holds what the recipe looks for under /etc/stile; the proxy writes here, too. */
  readonly dir: string;
  readonly port: number;
  readonly sidecarPort: number;
  readonly upstreamPort: number;
  /** Of the sidecar's `edge.extAuthz`, for the recipe that asks by gRPC. */
  readonly extAuthzPort?: number;
  /** `publicUrl` of the sidecar. */
  readonly issuer: string;
  /** Of the proxy's own files. Default: below `dir`, by its name. */
  readonly folder?: string;
  /** HAProxy: it reloads on SIGUSR2. */
  readonly reloads?: boolean;
  /** Of the settled recipe. */
  readonly edit?: (recipe: string) => string;
}

export interface RecipeProxy {
  readonly pid: number;
  /** Ends it and waits until it is gone. */
  readonly stop: () => Promise<void>;
}

/** Waits until it accepts connections. */
export async function startRecipe(name: ProxyName, options: RecipeOptions): Promise<RecipeProxy> {
  const folder = options.folder ?? join(options.dir, name);
  mkdirSync(folder, { recursive: true });
  const child = launch(name, folder, options);
  let told = "";
  for (const output of [child.stdout, child.stderr]) {
    output?.on("data", (chunk: Buffer) => (told += chunk.toString()));
  }
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
  return { pid: child.pid ?? 0, stop };
}

type Changes = readonly (readonly [from: string, to: string])[];

function envoyChanges(
  options: Pick<RecipeOptions, "port" | "sidecarPort" | "upstreamPort">,
): Changes {
  const { port, sidecarPort, upstreamPort } = options;
  return [
    ["0.0.0.0, port_value: 443 ", `127.0.0.1, port_value: ${port} `],
    ["port_value: 8080 ", `port_value: ${upstreamPort} `],
    ["port_value: 8443 ", `port_value: ${sidecarPort} `],
    ["domains: [www.example.org]", `domains: ["localhost:${port}"]`],
  ];
}

/** What of each recipe is this machine's own: what it says, and what it is to say here. */
const CHANGES: Readonly<Record<ProxyName, (options: RecipeOptions) => Changes>> = {
  nginx: ({ port }) => [["listen 443 ", `listen 127.0.0.1:${port} `]],
  haproxy: ({ issuer, port }) => [
    ["bind :443 ", `bind 127.0.0.1:${port} `],
    ["str https://www.example.org", `str ${issuer}`],
  ],
  caddy: ({ port }) => [["https://www.example.org {", `https://localhost:${port} {`]],
  traefik: ({ sidecarPort }) => [["www.example.org:8443", `localhost:${sidecarPort}`]],
  "envoy-grpc": (options) => [
    ...envoyChanges(options),
    ["port_value: 8444 ", `port_value: ${options.extAuthzPort} `],
  ],
  envoy: ({ issuer, port, ...options }) => [
    ...envoyChanges({ port, ...options }),
    ["audiences: [www.example.org]", `audiences: ["localhost:${port}"]`],
    ["issuer: https://www.example.org", `issuer: ${issuer}`],
    ["https://www.example.org/.well-known", `https://localhost:${port}/.well-known`],
  ],
};

/** The recipe with this machine's ports and paths. A placeholder that it no longer has is an error. */
function settle(name: ProxyName, options: RecipeOptions): string {
  const { dir, sidecarPort, upstreamPort } = options;
  const recipe = CHANGES[name](options).reduce(
    (text, [from, to]) => {
      if (!text.includes(from)) throw new Error(`${RECIPES[name]} has no ${from}`);
      return text.replaceAll(from, to);
    },
    readFileSync(join(root, RECIPES[name]), "utf8"),
  );
  return recipe
    .replaceAll("/etc/stile/", `${dir}/`)
    .replaceAll("127.0.0.1:8080", `127.0.0.1:${upstreamPort}`)
    .replaceAll("127.0.0.1:8443", `127.0.0.1:${sidecarPort}`)
    .replaceAll("www.example.org", "localhost");
}

interface Launch {
  readonly recipe: string;
  readonly port: number;
  readonly folder: string;
  readonly reloads: boolean;
  /** Writes a file into the folder and gives its path. */
  readonly write: (file: string, content: string) => string;
}

function envoyArguments({ recipe, write }: Launch): readonly string[] {
  const config = write("envoy.yaml", recipe);
  return ["--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c", config];
}

/** The arguments of each program; its files are written first. */
const ARGUMENTS: Readonly<Record<ProxyName, (launch: Launch) => readonly string[]>> = {
  haproxy: ({ recipe, reloads, write }) => [
    ...(reloads ? ["-W"] : []),
    "-db",
    "-f",
    write("haproxy.cfg", recipe),
  ],
  envoy: envoyArguments,
  "envoy-grpc": envoyArguments,
  caddy: ({ recipe, write }) => {
    const local = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n";
    return ["run", "--adapter", "caddyfile", "--config", write("Caddyfile", local + recipe)];
  },
  traefik: ({ port, recipe, write }) => {
    const main = readFileSync(join(root, "deploy/traefik/traefik.yaml"), "utf8")
      .replace('":443"', `"127.0.0.1:${port}"`)
      .replace("/etc/traefik/dynamic.yaml", write("dynamic.yaml", recipe));
    return [`--configFile=${write("traefik.yaml", main)}`];
  },
  nginx: ({ folder, recipe, write }) => {
    write("stile.conf", recipe);
    const main = write("nginx.conf", nginxMain(folder));
    return ["-p", folder, "-e", "stderr", "-c", main, "-g", "daemon off;"];
  },
};

function launch(name: ProxyName, folder: string, options: RecipeOptions): ChildProcess {
  const write = (file: string, content: string): string => {
    writeFileSync(join(folder, file), content);
    return join(folder, file);
  };
  const settled = settle(name, options);
  const recipe = options.edit?.(settled) ?? settled;
  const { port, reloads = false } = options;
  return spawn(programOf(name), ARGUMENTS[name]({ recipe, port, folder, reloads, write }), {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...withSystemPrograms(), HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
  });
}

/** What a distribution's nginx.conf has around the recipe. */
function nginxMain(folder: string): string {
  const at = (file: string): string => join(folder, file);
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
