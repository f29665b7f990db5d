/** `stile serve`: the sidecar, from a configuration file or in development mode, until it is told to stop. */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Config, loadConfig } from "../config/index.ts";
import { createLog } from "../log.ts";
import { missingFixes } from "../node-version.ts";
import { runSeveral } from "../processes/several.ts";
import { runSingle } from "../processes/single.ts";
import type { Sidecar } from "../sidecar.ts";
import { CliUsageError } from "./usage.ts";

const JOINT_MODE =
  "edge, attester and issuer are one process: its operator could join what they see (RFC 9576 §4.1)";
const DEVELOPMENT_PORT = 8_443;
const DEVELOPMENT_OPERATOR = "127.0.0.1:9443";

export async function serveCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      config: { type: "string" },
      dev: { type: "boolean", default: false },
      state: { type: "string", default: ".stile" },
      port: { type: "string", default: String(DEVELOPMENT_PORT) },
    },
  });
  if (values.dev && values.config !== undefined) {
    throw new CliUsageError("expected --dev or --config, not both");
  }
  if (values.dev) return serveDevelopment(values.state, portOf(values.port));
  const path = values.config ?? process.env["STILE_CONFIG"];
  if (path === undefined) throw new CliUsageError("expected --config FILE or --dev");
  const load = (): Config => loadConfig(path, process.env);
  return run(load(), load, () => undefined);
}

/** The development parts, and the software TPM's with them, are loaded only here. */
async function serveDevelopment(dir: string, port: number): Promise<number> {
  const { startDemoUpstream } = await import("../dev/demo-upstream.ts");
  const { prepareDevelopment } = await import("../dev/development.ts");
  const clock = Date.now;
  const upstream = await startDemoUpstream();
  const operatorListen = port === DEVELOPMENT_PORT ? DEVELOPMENT_OPERATOR : "127.0.0.1:0";
  const development = await prepareDevelopment({
    dir: join(dir, "dev"),
    port,
    operatorListen,
    upstream: upstream.url,
    logLevel: "warn",
    clock,
  });
  const code = await run(development.config, undefined, (sidecar) => {
    process.stdout.write(developmentHelp(development.config, development.caFile, sidecar));
  });
  await upstream.stop();
  return code;
}

/** @param reload reads the configuration anew, where it came from a file */
async function run(
  config: Config,
  reload: (() => Config) | undefined,
  started: (sidecar: Sidecar) => void,
): Promise<number> {
  const log = createLog(config.log.level, reload === undefined ? 2 : 1);
  const warning = missingFixes(process.versions.node);
  if (warning !== undefined) log.write("warn", "node.outdated", { warning });
  if (config.role === "joint") log.write("info", "joint-mode", { warning: JOINT_MODE });
  if (reload !== undefined && config.processes.workers > 0) {
    await runSeveral({ config, reload, log });
  } else await runSingle({ config, reload, log, started });
  log.flush();
  return 0;
}

function portOf(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new CliUsageError("--port: expected 1 to 65535");
  }
  return port;
}

function developmentHelp(config: Config, caFile: string, sidecar: Sidecar): string {
  const url = config.publicUrl;
  return [
    `Stile runs in development mode on ${url} (operator: ${sidecar.operatorAddress}).`,
    "Edge, attester and issuer are one process here, and software TPMs of its own CA are trusted.",
    "",
    "Try, in another terminal:",
    `  curl --cacert ${caFile} -i ${url}/                  challenged: 401 and a PrivateToken challenge`,
    `  npm run stile -- agent fetch ${url}/   a software TPM attests and is let in`,
    `  npm run demo                                          the whole chain, step by step`,
    `  curl http://${sidecar.operatorAddress.replace("http://", "")}/metrics`,
    "",
    "Ctrl-C stops it.",
    "",
  ].join("\n");
}
