/**
 * The service as one process, until SIGTERM or SIGINT: what signals and systemd have to do with it. SIGHUP looks
 * at the certificate files and checks the configuration, but other settings hold from the next start on: with
 * `processes.workers` they can be changed without one.
 */
import type { Config } from "../config/index.ts";
import type { Log } from "../log.ts";
import { type Sidecar, startSidecar } from "../sidecar.ts";
import { changedSettings, reloadFault } from "./settings.ts";
import {
  type ActivatedSockets,
  activatedSockets,
  connectSystemd,
  type Systemd,
} from "./systemd.ts";

export interface SingleOptions {
  readonly config: Config;
  /** Reads the configuration anew; undefined where it came from no file. */
  readonly reload: (() => Config) | undefined;
  readonly log: Log;
  readonly started: (sidecar: Sidecar) => void;
}

export async function runSingle({ config, log, reload, started }: SingleOptions): Promise<void> {
  const systemd = systemdOf(log);
  const sockets = activatedSockets(process.env, process.pid);
  const sidecar = await startSidecar(config, { clock: Date.now, log, ...sockets });
  log.write("info", "started", { port: sidecar.port, ...activatedFields(sockets) });
  started(sidecar);
  const beat = watch(systemd);
  process.on("SIGHUP", () => {
    systemd.reloading();
    sidecar.reloadCertificates();
    if (reload !== undefined) lookAtConfig(config, reload, { log, sidecar });
    systemd.ready();
  });
  systemd.ready();
  await stopSignal();
  log.write("info", "draining");
  systemd.stopping();
  await sidecar.stop();
  clearInterval(beat);
  log.write("info", "stopped");
}

export function systemdOf(log: Log): Systemd {
  return connectSystemd({
    environment: process.env,
    pid: process.pid,
    monotonicNs: () => process.hrtime.bigint(),
    onFailure: () => log.write("warn", "systemd.unreachable"),
  });
}

/** Of the line that says that it has started. */
export function activatedFields({ listenFd, plainFd }: ActivatedSockets): {
  readonly activated: boolean;
  readonly plainActivated: boolean;
} {
  return { activated: listenFd !== undefined, plainActivated: plainFd !== undefined };
}

/** Until the first SIGTERM or SIGINT. */
export async function stopSignal(): Promise<void> {
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve());
  });
}

/** An event loop that turns is the sign of life of one process. */
function watch({ watchdog, watchdogMs }: Systemd): NodeJS.Timeout | undefined {
  // Twice within the time, as sd_watchdog_enabled(3) recommends.
  return watchdogMs === undefined ? undefined : setInterval(watchdog, watchdogMs / 2);
}

function lookAtConfig(
  config: Config,
  reload: () => Config,
  { log, sidecar }: { readonly log: Log; readonly sidecar: Sidecar },
): void {
  const count = (outcome: "ok" | "failed" | "needs-restart"): void =>
    sidecar.metrics.reloads.inc({ outcome });
  try {
    const settings = changedSettings(config, reload());
    if (settings.length === 0) {
      count("ok");
      log.write("info", "reloaded");
      return;
    }
    count("needs-restart");
    log.write("warn", "reload.needs-restart", { settings: settings.join(", ") });
  } catch (error) {
    count("failed");
    log.write("error", "reload.failed", reloadFault(error));
  }
}
