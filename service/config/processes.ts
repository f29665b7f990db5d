/** Settings of the processes that the service is made of (docs/processes.md). */
import { Type } from "typebox";
import { section, text, whole } from "./kinds.ts";
import type { Config } from "./types.ts";

export interface ProcessesConfig {
  readonly workers: number;
  readonly socketDir?: string;
  readonly keeperWaitSeconds: number;
  readonly hangSeconds: number;
}

const settings = Type.Object(
  {
    workers: whole(
      "processes that terminate TLS, judge and forward; 0: one process does everything",
      0,
      256,
      0,
    ),
    socketDir: Type.Optional(
      text("folder of the sockets between them, for them alone; without it, stateDir/processes"),
    ),
    keeperWaitSeconds: whole(
      "how long a redemption waits for the keeper of the state while it is replaced",
      1,
      60,
      10,
    ),
    hangSeconds: whole("silence after which a process is killed and replaced", 2, 600, 15),
  },
  section,
);

/** What would have no effect in so many processes. */
export function processesFault({ processes }: Pick<Config, "processes">): string | undefined {
  const { socketDir, workers } = processes;
  if (workers === 0 && socketDir !== undefined) {
    return "processes.socketDir is for processes.workers of 1 and more";
  }
  return undefined;
}

/** The section `processes`. */
export const processesSettings: Type.TUnsafe<ProcessesConfig> =
  Type.Unsafe<ProcessesConfig>(settings);
