/** The process of a worker: `service/processes/supervisor.ts` starts it with the public socket. */
import type { TicketKeySource } from "../../tls/index.ts";
import { createLog } from "../log.ts";
import { runChild } from "./child-process.ts";
import { SOCKET_FD } from "./messages.ts";
import { logOf } from "./process-log.ts";
import { loadWorker } from "./worker.ts";

/** The supervisor replaces a worker that ends by itself. */
const OUTDATED = 3;

runChild(async ({ config, id, linkKey, ticketKey }) => {
  const log = logOf(createLog(config.log.level), "worker");
  const ticketKeys = ticketKey === undefined ? undefined : toldTicketKeys(ticketKey);
  const worker = await loadWorker(config, {
    clock: Date.now,
    monotonicMs: () => performance.now(),
    log,
    id,
    linkKey,
    ticketKeys,
    onOutdated: () => {
      const drainMs = config.limits.drainSeconds * 1_000;
      void worker.leave(drainMs, drainMs).finally(() => process.exit(OUTDATED));
    },
  });
  return {
    log,
    open: () => worker.open(SOCKET_FD),
    leave: worker.leave,
    hear: (message) => {
      if (message.kind === "reload-files") worker.reloadFiles();
      if (message.kind === "ticket-key") ticketKeys?.take(message.ticketKey);
    },
  };
});

/** One key for all workers: a client's ticket is good at whichever it comes to. */
function toldTicketKeys(first: string): TicketKeySource & { readonly take: (key: string) => void } {
  const listeners: (() => void)[] = [];
  let key = Uint8Array.from(Buffer.from(first, "hex"));
  return {
    current: () => key,
    onChange: (listener) => listeners.push(listener),
    // The supervisor looks at the clock for all.
    reload: () => undefined,
    close: () => undefined,
    take: (next) => {
      key = Uint8Array.from(Buffer.from(next, "hex"));
      for (const listener of listeners) listener();
    },
  };
}
