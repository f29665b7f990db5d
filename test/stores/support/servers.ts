/** Real database servers of Debian's packages, each in its own folder on its own port, that tests may kill. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Client } from "pg";
import { freePort } from "../../support/free-port.ts";

const run = promisify(execFile);
const START_MS = 15_000;

export interface DatabaseServer {
  readonly port: number;
  /** SIGKILL, as a crash would end it. */
  readonly kill: () => Promise<void>;
  /** On the same data. Resolves when it takes connections. */
  readonly start: () => Promise<void>;
  /** Keeps a copy of its data as a backup of the machine would. @returns sets it back to that */
  readonly backUp: () => Promise<() => Promise<void>>;
  /** Ends it and removes its data. */
  readonly stop: () => Promise<void>;
}

const postgresBin = newestOf("/usr/lib/postgresql");
export const postgresMissing: boolean = postgresBin === undefined;
const valkeyBin = ["/usr/bin/valkey-server", "/usr/bin/redis-server"].find((path) =>
  existsSync(path),
);
export const valkeyMissing: boolean = valkeyBin === undefined;

function newestOf(folder: string): string | undefined {
  const versions = existsSync(folder) ? readdirSync(folder) : [];
  const newest = versions.map(Number).toSorted((a, b) => b - a)[0];
  return newest === undefined ? undefined : join(folder, String(newest), "bin");
}

export async function startPostgres(settings: readonly string[] = []): Promise<DatabaseServer> {
  const bin = postgresBin ?? "";
  const data = ownFolder("postgres");
  await asUser(data, join(bin, "initdb"), "-D", data, "-U", "stile", "-A", "trust", "--no-sync");
  const port = await freePort();
  const words = settings.flatMap((setting) => ["-c", setting]);
  return serve(data, port, probePostgres, () =>
    spawnAs(data, join(bin, "postgres"), [
      "-D",
      data,
      "-p",
      String(port),
      "-h",
      "127.0.0.1",
      "-k",
      data,
      ...words,
    ]),
  );
}

export async function startValkey(
  settings: readonly string[] = ["--appendonly", "yes", "--appendfsync", "always"],
): Promise<DatabaseServer> {
  const data = ownFolder("valkey");
  const port = await freePort();
  return serve(data, port, probeValkey, () =>
    spawnAs(data, valkeyBin ?? "", [
      "--port",
      String(port),
      "--bind",
      "127.0.0.1",
      "--dir",
      data,
      "--save",
      "",
      "--maxmemory-policy",
      "noeviction",
      ...settings,
    ]),
  );
}

async function serve(
  data: string,
  port: number,
  probe: Probe,
  launch: () => ChildProcess,
): Promise<DatabaseServer> {
  let child: ChildProcess | undefined;
  const start = async (): Promise<void> => {
    child = launch();
    await reachable(port, child, probe);
  };
  const kill = async (): Promise<void> => {
    const running = child;
    child = undefined;
    if (running === undefined || running.exitCode !== null) return;
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGKILL");
    await ended;
    await childrenGone(data);
  };
  await start();
  const copy = `${data}.backup`;
  const backUp: DatabaseServer["backUp"] = async () => {
    await kill();
    rmSync(copy, { recursive: true, force: true });
    await run("cp", ["-a", data, copy]);
    await start();
    return async () => {
      await kill();
      rmSync(data, { recursive: true, force: true });
      await run("cp", ["-a", copy, data]);
      await start();
    };
  };
  const stop = async (): Promise<void> => {
    await kill();
    for (const folder of [data, copy]) rmSync(folder, { recursive: true, force: true });
  };
  return { port, kill, start, backUp, stop };
}

/** PostgreSQL's children end by themselves when their parent is gone; a new parent waits for them. */
async function childrenGone(data: string): Promise<void> {
  const pidFile = join(data, "postmaster.pid");
  if (!existsSync(pidFile)) return;
  const [pid = ""] = readFileSync(pidFile, "utf8").split("\n");
  for (let i = 0; i < 200; i += 1) {
    const { stdout } = await run("pgrep", ["-g", pid]).catch(() => ({ stdout: "" }));
    if (stdout === "") break;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  rmSync(pidFile, { force: true });
}

/** Whether it answers, and not only listens: both servers do the latter while they read their logs. */
type Probe = (port: number) => Promise<boolean>;

async function reachable(port: number, child: ChildProcess, probe: Probe): Promise<void> {
  const endMs = performance.now() + START_MS;
  while (performance.now() < endMs && child.exitCode === null) {
    if (await probe(port)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("the server does not answer");
}

async function probePostgres(port: number): Promise<boolean> {
  const client = new Client({ host: "127.0.0.1", port, user: "stile", database: "postgres" });
  client.on("error", () => undefined);
  try {
    await client.connect();
    await client.end();
    return true;
  } catch {
    return false;
  }
}

function probeValkey(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: "127.0.0.1", port }, () => socket.write("PING\r\n"));
    socket.once("error", () => resolve(false)).once("close", () => resolve(false));
    socket.once("data", (answer) => {
      resolve(answer.toString().startsWith("+PONG"));
      socket.destroy();
    });
  });
}

/** PostgreSQL refuses to run as root. */
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;

function ownFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `stile-${name}-`));
  if (isRoot) chownSync(folder, NOBODY, NOBODY);
  return folder;
}

function commandAs(program: string, words: readonly string[]): [string, string[]] {
  if (!isRoot) return [program, [...words]];
  const user = ["--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups"];
  return ["setpriv", [...user, program, ...words]];
}

function spawnAs(cwd: string, program: string, words: readonly string[]): ChildProcess {
  const [file, args] = commandAs(program, words);
  return spawn(file, args, { cwd, stdio: "ignore", detached: true });
}

async function asUser(cwd: string, program: string, ...words: string[]): Promise<void> {
  const [file, args] = commandAs(program, words);
  await run(file, args, { cwd });
}
