/** Settings of the processes that the service is made of (docs/processes.md). */
import { Type } from "typebox";
import { isSet } from "./given.ts";
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

/** Of several processes alone. */
const OF_SEVERAL = ["socketDir", "keeperWaitSeconds", "hangSeconds"] as const;

/**
 * What would have no effect in so many processes.
 * @param raw as it was written, before defaults
 */
export function processesFault(
  { processes }: Pick<Config, "processes">,
  raw: unknown,
): string | undefined {
  const { properties } = settings;
  const idle = OF_SEVERAL.find((name) => isSet(raw, `processes.${name}`, properties[name]));
  return processes.workers === 0 && idle !== undefined
    ? `processes.${idle} is for processes.workers of 1 and more`
    : undefined;
}

/** The section `processes`. */
export const processesSettings: Type.TUnsafe<ProcessesConfig> =
  Type.Unsafe<ProcessesConfig>(settings);
