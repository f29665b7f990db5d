/** `stile serve --config` in a process of its own: its log, its signals, and the folder of a development set-up. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import type { Config } from "../../service/config/index.ts";
import { type DevelopmentOverrides, prepareDevelopment } from "../../service/dev/development.ts";
import { freePort } from "./free-port.ts";
import { writtenSettings } from "./written-settings.ts";

export interface ServeFiles {
  readonly dir: string;
  readonly configFile: string;
  readonly config: Config;
  readonly port: number;
  readonly ca: string;
  /** Value of the Host header. */
  readonly host: string;
  /** Writes another configuration; what is not said stays as it was. */
  readonly write: (change: Readonly<Record<string, unknown>>) => void;
  readonly remove: () => void;
}

export interface LogLine {
  readonly event: string;
  readonly [field: string]: unknown;
}

export interface ServeChild {
  readonly process: ChildProcess;
  readonly lines: readonly LogLine[];
  /** The next line with this event from `from` on, which is by default the first line. */
  readonly event: (name: string, from?: number) => Promise<LogLine>;
  /** What it has written to standard error. */
  readonly errors: () => string;
  readonly exited: Promise<number | null>;
  /** SIGTERM, then its exit code. */
  readonly stop: () => Promise<number | null>;
}

const root = join(import.meta.dirname, "..", "..");
const EVENT_MS = 50_000;
/** What steers the tests only: the service would refuse it as a setting that it does not know. */
const NO_SETTINGS = { STILE_GO_INTEROP: undefined, STILE_TEST_GENERAL_PATH: undefined };

export async function prepareServe(
  upstream: string,
  settings: Readonly<Record<string, unknown>> = {},
  overrides: DevelopmentOverrides = {},
): Promise<ServeFiles> {
  const dir = mkdtempSync(join(tmpdir(), "stile-serve-"));
  const port = await freePort();
  const { caFile, config } = await prepareDevelopment({
    dir,
    port,
    operatorListen: `unix:${dir}/operator.sock`,
    upstream,
    logLevel: "info",
    clock: Date.now,
    overrides: {
      ...overrides,
      limits: { requestsPerMinute: 1_000_000, drainSeconds: 5, ...overrides.limits },
    },
  });
  const configFile = join(dir, "stile.yaml");
  const write = (change: Readonly<Record<string, unknown>>): void => {
    writeFileSync(configFile, JSON.stringify(writtenSettings(config, { ...settings, ...change })));
  };
  write({});
  return {
    dir,
    configFile,
    config,
    port,
    ca: readFileSync(caFile, "utf8"),
    host: `localhost:${port}`,
    write,
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/**
 * @param before words of a program that starts it
 * @param listenFds what become its descriptors from 3 on
 */
export function startServe(
  files: ServeFiles,
  environment: Readonly<Record<string, string>> = {},
  before: readonly string[] = [],
  listenFds: readonly number[] = [],
): ServeChild {
  const words = [process.execPath, "service/cli/main.ts", "serve", "--config", files.configFile];
  const [program = "", ...args] = [...before, ...words];
  const child = spawn(program, args, {
    cwd: root,
    env: { ...process.env, ...NO_SETTINGS, ...environment },
    stdio: ["ignore", "pipe", "pipe", ...listenFds],
  });
  let errors = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
    process.stderr.write(chunk);
  });
  const exited = once(child, "exit").then(([code]) => code as number | null);
  const lines: LogLine[] = [];
  const waiting = new Set<() => void>();
  createInterface({ input: child.stdout as Readable }).on("line", (line) => {
    lines.push(JSON.parse(line) as LogLine);
    for (const look of waiting) look();
  });
  const event = (name: string, from = 0): Promise<LogLine> =>
    new Promise((resolve, reject) => {
      const told = (): string => lines.map((line) => line.event).join(", ");
      const timer = setTimeout(
        () => reject(new Error(`no event ${name} among ${told()}`)),
        EVENT_MS,
      );
      const look = (): void => {
        const found = lines.slice(from).find((line) => line.event === name);
        if (found === undefined) return;
        waiting.delete(look);
        clearTimeout(timer);
        resolve(found);
      };
      waiting.add(look);
      look();
    });
  return {
    process: child,
    lines,
    event,
    errors: () => errors,
    exited,
    stop: async () => {
      child.kill("SIGTERM");
      return exited;
    },
  };
}
