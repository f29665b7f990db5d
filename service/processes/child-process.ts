/**
 * The child's side of the channel to its supervisor, the same for keeper and workers: it says that it lives, does
 * what it is told, and ends when the supervisor has. Signals are the supervisor's to handle: a terminal sends them
 * to all of a group.
 */
import { errorFields, type Log } from "../log.ts";
import { failureOf } from "./child.ts";
import type { FromChild, StartMessage, ToChild } from "./messages.ts";

/** A part of the service that has read what it needs and holds nothing yet. */
export interface LoadedPart {
  readonly log: Log;
  /** From here on it serves. */
  readonly open: () => Promise<{ readonly port?: number }>;
  /** With what is under way. */
  readonly leave: (deadlineMs: number, idleMs: number) => Promise<void>;
  readonly hear: (message: ToChild) => void;
}

const BEAT_MS = 500;

export function runChild(load: (start: StartMessage) => Promise<LoadedPart>): void {
  let part: LoadedPart | undefined;

  async function hear(message: ToChild): Promise<void> {
    switch (message.kind) {
      case "start":
        part = await load(message);
        tell({ kind: "loaded" });
        return;
      case "open":
        tell({ kind: "ready", ...(await part?.open()) });
        return;
      case "drain":
        await part?.leave(message.deadlineMs, message.idleMs);
        end(0);
        return;
      case "reload-files":
      case "status":
      case "ticket-key":
        part?.hear(message);
    }
  }

  function end(code: number): void {
    part?.log.flush();
    process.exit(code);
  }

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"] as const) {
    process.on(signal, () => undefined);
  }
  process.on("disconnect", () => end(1));
  process.on("message", (message: ToChild) => {
    hear(message).catch((error: unknown) => {
      part?.log.write("error", "process.failed", errorFields(error));
      process.send?.(failureOf(error), () => end(1));
    });
  });
  setInterval(() => tell({ kind: "beat" }), BEAT_MS);
}

function tell(message: FromChild): void {
  // The supervisor may be gone, which 'disconnect' says.
  if (process.connected) process.send?.(message, () => undefined);
}
