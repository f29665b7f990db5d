/** One process for each state folder: an empty LevelDB that is held open for its lock alone. */
import { join } from "node:path";
import { StileError } from "../../wire/index.ts";
import { makeFolderDurably } from "./durable-file.ts";
import { isLevelLocked, openClassicLevel } from "./level.ts";

/**
 * On a disk of this machine: the lock does not span machines.
 * @returns gives the lock back
 * @throws `SERVICE_CONFIG_INVALID` where another process has the folder, or it cannot be used
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  try {
    await makeFolderDurably(folder);
    const lock = await openClassicLevel(join(folder, "lock"), { createIfMissing: true });
    return () => lock.close();
  } catch (cause) {
    const reason = isLevelLocked(cause) ? "another process uses it" : "it cannot be used";
    throw new StileError("SERVICE_CONFIG_INVALID", `stateDir ${folder}: ${reason}`, { cause });
  }
}
