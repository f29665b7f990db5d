/** A real LevelDB whose reads, writes and opens fail when a test says so. */
import { type Level, openClassicLevel, type OpenLevel } from "../../../service/stores/level.ts";

export interface Faults {
  /** "before": nothing reaches the disk. "after": everything does, and the caller is told it failed. */
  write?: "before" | "after" | undefined;
  read?: boolean;
  open?: boolean;
  /** Writes wait for this. */
  gate?: Promise<void> | undefined;
  opens: number;
  writes: number;
}

export function faultyLevel(): { readonly faults: Faults; readonly openLevel: OpenLevel } {
  const faults: Faults = { opens: 0, writes: 0 };
  const openLevel: OpenLevel = async (folder, options) => {
    if (faults.open === true) throw new Error("injected: open");
    faults.opens += 1;
    return wrap(await openClassicLevel(folder, options), faults);
  };
  return { faults, openLevel };
}

function wrap(level: Level, faults: Faults): Level {
  return {
    async getMany(keys) {
      if (faults.read === true) throw new Error("injected: read");
      return level.getMany(keys);
    },
    keys: (from, to, limit) => level.keys(from, to, limit),
    async writeDurably(writes) {
      await faults.gate;
      faults.writes += 1;
      if (faults.write === "before") throw new Error("injected: write");
      await level.writeDurably(writes);
      if (faults.write === "after") throw new Error("injected: sync");
    },
    close: () => level.close(),
  };
}
