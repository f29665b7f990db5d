/** The lines of several processes go to one place: each says which kind of process it is from. */
import type { Log } from "../log.ts";

export function logOf(log: Log, process: "supervisor" | "keeper" | "worker"): Log {
  return {
    write: (level, event, fields = {}) => log.write(level, event, { process, ...fields }),
    flush: log.flush,
  };
}
