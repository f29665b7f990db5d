/**
 * TPMS_CLOCK_INFO of two attestations of one device (checklist D7; TPM 2.0 Library Part 1 §36, Part 2
 * §10.11). A pure comparison: the last accepted record is kept elsewhere, and only after the whole
 * evidence has been accepted.
 */
import { constantTimeEqual, type ErrorCode, StileError } from "../../wire/index.ts";
import type { TpmsClockInfo } from "../structures/attest.ts";

/** Of a verified attestation. */
export interface ClockRecord {
  readonly clockInfo: TpmsClockInfo;
  readonly firmwareVersion: bigint;
  readonly qualifiedSigner: Uint8Array;
}

/**
 * - `clock-went-back`: less time on the clock than before, and no reset that explains it;
 * - `reset-count-went-back`: cleared by its owner, restored from an image, or another TPM;
 * - `restart-count-went-back`: likewise, without a reset in between;
 * - `firmware-went-back`, `firmware-changed`: as far as it can be told under this AK;
 * - `reset`: TPM Reset, powered off and on;
 * - `restart`: TPM Restart or Resume, out of hibernation or sleep;
 * - `clock-not-safe`: power was lost without an orderly shutdown, so the same time may be shown again;
 * - `counters-not-comparable`: another AK blurs the counters by another value.
 */
export type ClockFinding =
  | "clock-went-back"
  | "reset-count-went-back"
  | "restart-count-went-back"
  | "firmware-went-back"
  | "firmware-changed"
  | "reset"
  | "restart"
  | "clock-not-safe"
  | "counters-not-comparable";

/** Of the refusal, where the policy refuses the finding. */
export const CLOCK_REFUSALS: Readonly<Record<ClockFinding, ErrorCode>> = {
  "clock-went-back": "ATTEST_CLOCK_WENT_BACK",
  "reset-count-went-back": "ATTEST_CLOCK_WENT_BACK",
  "restart-count-went-back": "ATTEST_CLOCK_WENT_BACK",
  "firmware-went-back": "ATTEST_FIRMWARE_REFUSED",
  "firmware-changed": "ATTEST_POLICY_REFUSED",
  reset: "ATTEST_POLICY_REFUSED",
  restart: "ATTEST_POLICY_REFUSED",
  "clock-not-safe": "ATTEST_POLICY_REFUSED",
  "counters-not-comparable": "ATTEST_POLICY_REFUSED",
};

export interface ClockComparison {
  readonly findings: readonly ClockFinding[];
  /** Resets since the previous record; undefined where they cannot be counted. */
  readonly resets: number | undefined;
  /** Restarts and resumes since the previous record or the last reset; undefined likewise. */
  readonly restarts: number | undefined;
}

/** What no honest TPM does, unless its owner cleared it. */
export const DEFAULT_REFUSED_CLOCK_FINDINGS: readonly ClockFinding[] = [
  "clock-went-back",
  "reset-count-went-back",
  "restart-count-went-back",
  "firmware-went-back",
];

/** Part 1 §36.3.2: the clock is written to NV at least every 2^22 ms; so much can a power loss undo. */
const MAX_LOST_MS = 1n << 22n;

/**
 * @param counters `plain` where both AKs are in the endorsement or platform hierarchy
 * (`hierarchyOfSigner`); `blurred` counters are compared only under one and the same AK
 */
export function compareClockInfo(
  previous: ClockRecord,
  current: ClockRecord,
  counters: "plain" | "blurred" = "blurred",
): ClockComparison {
  const findings: ClockFinding[] = [];
  const isComparable =
    counters === "plain" || constantTimeEqual(previous.qualifiedSigner, current.qualifiedSigner);
  const counted = isComparable ? compareCounters(previous, current, findings) : undefined;
  if (!isComparable) findings.push("counters-not-comparable");
  const mayHaveReset = counted === undefined || counted.resets !== 0;
  if (hasClockGoneBack(previous.clockInfo, current.clockInfo, mayHaveReset)) {
    findings.push("clock-went-back");
  }
  if (!current.clockInfo.safe) findings.push("clock-not-safe");
  return { findings, resets: counted?.resets, restarts: counted?.restarts };
}

/**
 * @param previous undefined for the first evidence of a device
 * @param refused by default {@link DEFAULT_REFUSED_CLOCK_FINDINGS}
 * @throws `ATTEST_CLOCK_WENT_BACK`, `ATTEST_FIRMWARE_REFUSED`, `ATTEST_POLICY_REFUSED` by the first finding
 * that is refused
 */
export function checkClockInfo(
  previous: ClockRecord | undefined,
  current: ClockRecord,
  counters: "plain" | "blurred",
  refused: readonly ClockFinding[] = DEFAULT_REFUSED_CLOCK_FINDINGS,
): ClockComparison {
  const comparison =
    previous === undefined ? firstOf(current) : compareClockInfo(previous, current, counters);
  const finding = comparison.findings.find((name) => refused.includes(name));
  if (finding !== undefined) throw new StileError(CLOCK_REFUSALS[finding], `clockInfo: ${finding}`);
  return comparison;
}

function firstOf({ clockInfo }: ClockRecord): ClockComparison {
  const findings: ClockFinding[] = clockInfo.safe ? [] : ["clock-not-safe"];
  return { findings, resets: undefined, restarts: undefined };
}

interface Counted {
  readonly resets: number | undefined;
  readonly restarts: number | undefined;
}

/** Differences cancel the blur, which is added modulo the width of the field. */
function compareCounters(
  previous: ClockRecord,
  current: ClockRecord,
  findings: ClockFinding[],
): Counted {
  const firmware = BigInt.asIntN(64, current.firmwareVersion - previous.firmwareVersion);
  if (firmware !== 0n) findings.push(firmware < 0n ? "firmware-went-back" : "firmware-changed");
  const resets = (current.clockInfo.resetCount - previous.clockInfo.resetCount) | 0;
  if (resets < 0) {
    findings.push("reset-count-went-back");
    return { resets: undefined, restarts: undefined };
  }
  if (resets > 0) {
    findings.push("reset");
    // A reset sets restartCount to 0, and the blur hides how far it has come since.
    return { resets, restarts: undefined };
  }
  const restarts = (current.clockInfo.restartCount - previous.clockInfo.restartCount) | 0;
  if (restarts !== 0) findings.push(restarts < 0 ? "restart-count-went-back" : "restart");
  return { resets, restarts: restarts < 0 ? undefined : restarts };
}

function hasClockGoneBack(
  previous: TpmsClockInfo,
  current: TpmsClockInfo,
  mayHaveReset: boolean,
): boolean {
  // After a loss of power the clock starts from NV, and says that it is not safe until it has caught up.
  const tolerance = mayHaveReset && !current.safe ? MAX_LOST_MS : 0n;
  return current.clock + tolerance < previous.clock;
}
