/** The service as several processes, until SIGTERM or SIGINT: what signals and systemd have to do with them. */
import type { Config } from "../config/index.ts";
import { StileError } from "../../wire/index.ts";
import type { Log } from "../log.ts";
import { bindPublicSocket } from "./listening-socket.ts";
import { logOf } from "./process-log.ts";
import { activatedFields, stopSignal, systemdOf } from "./single.ts";
import { Supervisor } from "./supervisor.ts";
import { activatedSockets } from "./systemd.ts";

export interface SeveralOptions {
  readonly config: Config;
  /** Reads the configuration anew. */
  readonly reload: () => Config;
  readonly log: Log;
}

/** @throws `SERVICE_PROCESS_FAILED` where no process lives for long any more, and what the first ones fail with */
export async function runSeveral({ config, log: lines, reload }: SeveralOptions): Promise<void> {
  const log = logOf(lines, "supervisor");
  const systemd = systemdOf(log);
  const activated = activatedSockets(process.env, process.pid);
  const listenFd = activated.listenFd ?? (await bindPublicSocket(config.listen));
  const hopeless = Promise.withResolvers<"hopeless">();
  const supervisor = new Supervisor(config, {
    log,
    listenFd,
    plainFd: activated.plainFd,
    clock: Date.now,
    monotonicMs: () => performance.now(),
    onHopeless: () => hopeless.resolve("hopeless"),
  });
  const stopped = stopSignal();
  const port = await supervisor.start();
  log.write("info", "started", { port, ...activatedFields(activated) });
  const replace = async (everything: boolean): Promise<void> => {
    systemd.reloading();
    await supervisor.reload(reload, everything);
    systemd.ready();
  };
  process.on("SIGHUP", () => void replace(false));
  process.on("SIGUSR2", () => void replace(true));
  const { watchdogMs } = systemd;
  const beat =
    watchdogMs && setInterval(() => supervisor.isWell() && systemd.watchdog(), watchdogMs / 2);
  systemd.ready();
  const why = await Promise.race([stopped, hopeless.promise]);
  log.write("info", "draining");
  systemd.stopping();
  await supervisor.stop();
  clearInterval(beat);
  log.write("info", "stopped");
  if (why === "hopeless") {
    throw new StileError("SERVICE_PROCESS_FAILED", "the processes of the service do not stay up");
  }
}
