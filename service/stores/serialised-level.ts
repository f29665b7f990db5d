/**
 * A {@link Level} that does one piece of work after another, each durable before it is answered: what reads,
 * decides and writes in one piece is atomic. A refusal of one piece is not a failure of the store, nor of the
 * others that share its turn.
 */
import { makeFolderDurably, syncFolder } from "./durable-file.ts";
import { GroupCommit } from "./group-commit.ts";
import { type Level, openClassicLevel, type OpenLevel } from "./level.ts";
import { RecoveringLevel } from "./recovering-level.ts";

export interface SerialisedLevelOptions {
  /** Created where it is missing. */
  readonly folder: string;
  readonly openLevel?: OpenLevel | undefined;
  /** Makes the error that callers see where the store itself fails. */
  readonly unavailable: (message: string, cause?: unknown) => Error;
  /** Whether an error is a refusal of one piece of work; any other closes the level until it is opened anew. */
  readonly isRefusal: (error: unknown) => boolean;
}

export interface SerialisedLevel {
  readonly run: <T>(work: (level: Level) => Promise<T>) => Promise<T>;
  /** Answers what was taken, then closes the database. */
  readonly close: () => Promise<void>;
}

type Work = (level: Level) => Promise<unknown>;

export function createSerialisedLevel(options: SerialisedLevelOptions): SerialisedLevel {
  const { folder, isRefusal, openLevel = openClassicLevel, unavailable } = options;
  const monotonicMs = (): number => performance.now();
  const open = async (): Promise<Level> => {
    await makeFolderDurably(folder);
    const level = await openLevel(folder, { createIfMissing: true });
    await syncFolder(folder);
    return level;
  };
  const recovering = new RecoveringLevel({ open, unavailable, reopenDelayMs: 200, monotonicMs });
  const commits = new GroupCommit<Work, PromiseSettledResult<unknown>>({
    commit: (batch) => recovering.run((level) => settleInOrder(level, batch, isRefusal)),
    refuse: unavailable,
    maxQueued: 4_096,
    maxBatch: 64,
    stallMs: 2_000,
    monotonicMs,
  });
  return {
    run: async <T>(work: (level: Level) => Promise<T>): Promise<T> => {
      const settled = await commits.submit(work);
      if (settled.status === "rejected") throw settled.reason;
      return settled.value as T;
    },
    close: async () => {
      await commits.close();
      await recovering.close();
    },
  };
}

async function settleInOrder(
  level: Level,
  batch: readonly Work[],
  isRefusal: (error: unknown) => boolean,
): Promise<readonly PromiseSettledResult<unknown>[]> {
  const results: PromiseSettledResult<unknown>[] = [];
  for (const work of batch) {
    const [result] = await Promise.allSettled([work(level)]);
    if (result.status === "rejected" && !isRefusal(result.reason)) throw result.reason;
    results.push(result);
  }
  return results;
}
