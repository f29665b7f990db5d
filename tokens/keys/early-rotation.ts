/**
 * A rotation before its time, wanted by an operator: a successor now, and an end for the key that signs.
 * Pure, as the plan of `key-schedule.ts`; every invariant of that plan holds here, too.
 */
import { StileError } from "../../wire/index.ts";
import { type IssuerKeyRecord, keyStateAt } from "./issuer-key-record.ts";
import { MAX_LIVE_KEYS } from "./key-ring.ts";
import { type KeySchedule, type PlannedKey, plannedKey } from "./key-schedule.ts";

export interface EarlyRotation {
  readonly generate: PlannedKey;
  /** The keys that sign until then, with the new end of their lives. */
  readonly shortened: readonly IssuerKeyRecord[];
}

/**
 * The successor is listed for one directory lifetime before it signs, so that no cache lacks it then; the keys
 * before it go on signing for the overlap.
 * @throws `TOKEN_KEY_ROTATION_REFUSED` where a successor waits already, or as many keys live as may
 */
export function planEarlyRotation(
  records: readonly IssuerKeyRecord[],
  nowMs: number,
  schedule: KeySchedule,
): EarlyRotation {
  const own = records.filter(({ tokenType }) => tokenType === schedule.tokenType);
  const live = own.filter((record) => keyStateAt(record, nowMs) !== "destroyed");
  const signing = live.filter((record) => keyStateAt(record, nowMs) === "active");
  if (live.some((record) => keyStateAt(record, nowMs) === "published")) {
    throw refused("a successor is published already");
  }
  if (live.length >= MAX_LIVE_KEYS) throw refused(`${MAX_LIVE_KEYS} keys are alive already`);
  const notBeforeMs = nowMs + schedule.directoryLifetimeMs;
  const endMs = notBeforeMs + schedule.overlapMs;
  return {
    generate: plannedKey(nowMs, notBeforeMs, schedule),
    shortened: signing
      .filter(({ retireAtMs }) => retireAtMs > endMs)
      .map((record) => ({
        ...record,
        retireAtMs: endMs,
        destroyAtMs: Math.min(record.destroyAtMs, endMs + schedule.retiredMs),
      })),
  };
}

function refused(message: string): StileError {
  return new StileError("TOKEN_KEY_ROTATION_REFUSED", message);
}
