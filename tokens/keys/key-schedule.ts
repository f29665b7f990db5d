/**
 * When keys are made and destroyed: a pure plan from the records, the clock and a schedule
 * (RFC 9578 §4 on caching, RFC 9576 §6.2 on rotation). Carrying the plan out is the caller's.
 *
 * A successor is published one directory lifetime before it becomes active, so that no cache still
 * lacks it then; it becomes active while its predecessor still is. The first key of all, and the key
 * that replaces a wholly lapsed set, is active at once: there is no one to overlap with. So is the key that
 * fills the gap where the one that signed was revoked while its successor waits.
 */
import { MAX_LIVE_KEYS } from "./key-ring.ts";
import { type IssuerKeyRecord, keyStateAt } from "./issuer-key-record.ts";

/** Durations in milliseconds, all above 0. */
export interface KeySchedule {
  readonly tokenType: number;
  /** Longest time a client or edge may use a directory without asking again. */
  readonly directoryLifetimeMs: number;
  /** How long a key signs. */
  readonly activeMs: number;
  /** How long of `activeMs` a key shares with its successor. */
  readonly overlapMs: number;
  /** How long a key redeems after it has stopped signing: the longest life of an unspent token. */
  readonly retiredMs: number;
}

/** The life of a key that is still to be generated. */
export type PlannedKey = Omit<IssuerKeyRecord, "tokenKeyId" | "publicKeySpki">;

export interface RotationPlan {
  /** Keys to generate now, with truncated ids that collide with no live key. */
  readonly generate: readonly PlannedKey[];
  /** Keys to destroy now: erase the private key, then drop the spent-token epoch, then the record. */
  readonly destroy: readonly IssuerKeyRecord[];
  /** Instant of the next plan that can differ from "nothing to do". */
  readonly nextAtMs: number;
}

/** Idempotent for one `nowMs`: carried out, the same call plans nothing. @throws RangeError */
export function planRotation(
  records: readonly IssuerKeyRecord[],
  nowMs: number,
  schedule: KeySchedule,
): RotationPlan {
  checkKeySchedule(schedule);
  const own = records.filter((record) => record.tokenType === schedule.tokenType);
  const destroy = own.filter((record) => keyStateAt(record, nowMs) === "destroyed");
  const live = own.filter((record) => !destroy.includes(record));
  const signing = live.filter((record) => keyStateAt(record, nowMs) !== "retired");
  const newest = signing.toSorted((a, b) => b.notBeforeMs - a.notBeforeMs)[0];

  const generate: PlannedKey[] = [];
  if (newest === undefined) generate.push(plannedKey(nowMs, nowMs, schedule));
  else if (signing.every((record) => keyStateAt(record, nowMs) === "published")) {
    generate.push(bridgeTo(newest, nowMs, schedule));
  } else if (nowMs >= successorDueAt(newest, schedule)) {
    const earliest = nowMs + schedule.directoryLifetimeMs;
    const wanted = newest.retireAtMs - schedule.overlapMs;
    generate.push(plannedKey(nowMs, Math.max(earliest, wanted), schedule));
  }
  const youngest = [...generate, ...signing].toSorted((a, b) => b.notBeforeMs - a.notBeforeMs)[0];
  const instants = live.map((record) => record.destroyAtMs);
  if (youngest !== undefined) instants.push(successorDueAt(youngest, schedule));
  return { generate, destroy, nextAtMs: Math.min(...instants) };
}

/**
 * Refuses a schedule under which keys would have gaps between them or exceed {@link MAX_LIVE_KEYS}.
 * @throws RangeError
 */
export function checkKeySchedule(schedule: KeySchedule): void {
  const { directoryLifetimeMs, activeMs, overlapMs, retiredMs } = schedule;
  for (const [name, value] of Object.entries({
    directoryLifetimeMs,
    activeMs,
    overlapMs,
    retiredMs,
  })) {
    if (!Number.isSafeInteger(value) || value <= 0) {
      throw new RangeError(`${name}: expected a positive number of milliseconds`);
    }
  }
  if (overlapMs + directoryLifetimeMs >= activeMs) {
    throw new RangeError("activeMs: expected more than overlapMs + directoryLifetimeMs");
  }
  // A key is born every (activeMs - overlapMs) and lives this long; one more for uneven ticks.
  const lifeMs = directoryLifetimeMs + activeMs + retiredMs;
  if (Math.ceil(lifeMs / (activeMs - overlapMs)) + 1 > MAX_LIVE_KEYS) {
    throw new RangeError(`retiredMs: more than ${MAX_LIVE_KEYS} keys would be alive at once`);
  }
}

function successorDueAt(
  newest: Pick<IssuerKeyRecord, "retireAtMs">,
  schedule: KeySchedule,
): number {
  return newest.retireAtMs - schedule.overlapMs - schedule.directoryLifetimeMs;
}

/** Signs until the key that waits has taken over. */
function bridgeTo(next: PlannedKey, nowMs: number, schedule: KeySchedule): PlannedKey {
  const retireAtMs = next.notBeforeMs + schedule.overlapMs;
  const destroyAtMs = retireAtMs + schedule.retiredMs;
  return { ...plannedKey(nowMs, nowMs, schedule), retireAtMs, destroyAtMs };
}

/** The life of a key by the schedule, from its two first instants. */
export function plannedKey(
  publishedAtMs: number,
  notBeforeMs: number,
  schedule: KeySchedule,
): PlannedKey {
  const retireAtMs = notBeforeMs + schedule.activeMs;
  const destroyAtMs = retireAtMs + schedule.retiredMs;
  return { tokenType: schedule.tokenType, publishedAtMs, notBeforeMs, retireAtMs, destroyAtMs };
}
