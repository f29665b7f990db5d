/** A keeper and workers in the test's own process, each worker at a port of its own: a test says which one is asked. */
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Config } from "../../service/config/index.ts";
import {
  type Development,
  type DevelopmentOverrides,
  prepareDevelopment,
} from "../../service/dev/development.ts";
import type { Log } from "../../service/log.ts";
import { type Keeper, startKeeper } from "../../service/processes/keeper.ts";
import { bindPublicSocket } from "../../service/processes/listening-socket.ts";
import { keeperConfig, workerConfig } from "../../service/processes/process-settings.ts";
import { loadWorker } from "../../service/processes/worker.ts";
import type { OnClose } from "../../service/state.ts";
import { freePort } from "./free-port.ts";

const deps = {
  clock: Date.now,
  log: { write: () => undefined, flush: () => undefined } satisfies Log,
  /** Of workers to their keeper. */
  linkKey: "ab".repeat(32),
};

/** A service with all that is its own in a folder, quiet, at a port that it is told. */
export async function prepareService(
  dir: string,
  upstream: string,
  overrides: DevelopmentOverrides = {},
): Promise<Development & { readonly port: number }> {
  const port = await freePort();
  const development = await prepareDevelopment({
    dir,
    port,
    operatorListen: `unix:${join(dir, "operator.sock")}`,
    upstream,
    logLevel: "silent",
    clock: Date.now,
    overrides,
  });
  return { ...development, port };
}

/** @param onEnd by default it ends with the test */
export async function openKeeper(config: Config, onEnd: OnClose = onTestFinished): Promise<Keeper> {
  const keeper = await startKeeper(keeperConfig(config), deps);
  onEnd(() => keeper.leave(1_000));
  return keeper;
}

/** @returns its port. */
export async function openWorker(
  config: Config,
  id: number,
  port: number,
  onEnd: OnClose = onTestFinished,
): Promise<number> {
  const worker = await loadWorker(workerConfig(config), {
    ...deps,
    monotonicMs: () => performance.now(),
    id,
    ticketKeys: undefined,
    onOutdated: () => undefined,
  });
  onEnd(() => worker.leave(1_000, 0));
  const { host } = config.listen;
  return (await worker.open(await bindPublicSocket({ host, port }))).port;
}
