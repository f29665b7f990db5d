/** Durable state of the edge and the attester on this machine's disk. */
export {
  type AllowanceCharge,
  type AllowanceStore,
  type AllowanceStoreOptions,
  openAllowanceStore,
} from "./allowances.ts";
export type { GroupCommitObserver } from "./group-commit.ts";
export {
  openSpentLevelStore,
  type SpentLevelStoreOptions,
  type SpentStoreObserver,
} from "./spent-level.ts";
