/**
 * Verification of a measured-boot log against quoted PCRs (checklist E). In this order: the log is well
 * formed; every quoted bank is replayed; the PCRs that must replay do; only then facts are read from it,
 * each with what covers it. Facts are for a policy to judge; only a log that is malformed, or is not that
 * of this boot, is refused here.
 */
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { VerifiedQuote } from "../quote/verify-quote.ts";
import { HASH_ROWS, type HashRow } from "../structures/constants.ts";
import { type BootState, bootState } from "./boot.ts";
import { createCoverage } from "./coverage.ts";
import { eventTypeName } from "./event-types.ts";
import type { EventLogFinding } from "./findings.ts";
import { type EventLog, parseEventLog } from "./parse-event-log.ts";
import { replayEventLog } from "./replay.ts";
import { secureBootState, type SecureBootState } from "./secure-boot.ts";
import { findSeparators } from "./separators.ts";
import { EVENT_LOG_WORKAROUNDS, type EventLogWorkaround } from "./workarounds.ts";

export interface EventLogCheck {
  /** As received. */
  readonly log: Uint8Array;
  readonly quote: Pick<VerifiedQuote, "kind" | "pcrValues">;
  readonly crypto: AttestCrypto;
  /** PCRs that must replay where they are quoted; others are reported as uncovered. Default 0 to 7. */
  readonly requiredPcrs?: readonly number[];
  /** Known faults of firmware that may explain a log that does not replay (E9). Default none. */
  readonly workarounds?: readonly EventLogWorkaround[];
}

/** A log of the boot that the quote is of. */
export interface VerifiedEventLog {
  readonly kind: "verified-event-log";
  readonly log: EventLog;
  /** PCRs that replay to their quoted value in every quoted bank. */
  readonly coveredPcrs: readonly number[];
  /** Quoted PCRs that do not: something was extended that is not in the log. */
  readonly uncoveredPcrs: readonly number[];
  readonly workarounds: readonly EventLogWorkaround[];
  readonly secureBoot: SecureBootState;
  readonly boot: BootState;
  readonly findings: readonly EventLogFinding[];
}

const FIRMWARE_PCRS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7];

/** @throws `WIRE_*`, `ATTEST_EVENT_LOG_INVALID`, `ATTEST_EVENT_LOG_MISMATCH` */
export function verifyEventLog(check: EventLogCheck): VerifiedEventLog {
  const parsed = parseEventLog(check.log);
  const banks = HASH_ROWS.filter(({ name }) =>
    check.quote.pcrValues.some(({ hash }) => hash === name),
  );
  if (banks.length === 0) throw mismatch("no PCR was quoted");
  const { log, replay, workarounds } = explain(check, parsed, banks);
  const coverage = createCoverage({
    crypto: check.crypto,
    banks,
    coveredPcrs: new Set(replay.coveredPcrs),
  });
  const separators = findSeparators(log.events, coverage);
  const secureBoot = secureBootState(log.events, coverage, separators.positions.get(7));
  const boot = bootState(log.events, coverage);
  const unknown = log.events
    .filter(({ eventType }) => eventTypeName(eventType).startsWith("0x"))
    .map(({ index }): EventLogFinding => ({ code: "event-type-unknown", eventIndex: index }));
  const findings = [...separators.findings, ...secureBoot.findings, ...boot.findings, ...unknown];
  return { kind: "verified-event-log", log, ...replay, workarounds, secureBoot, boot, findings };
}

interface Replay {
  readonly coveredPcrs: readonly number[];
  readonly uncoveredPcrs: readonly number[];
}

/** Strictly first; each allowed workaround only where that fails (E9). */
function explain(
  check: EventLogCheck,
  parsed: EventLog,
  banks: readonly HashRow[],
): { log: EventLog; replay: Replay; workarounds: readonly EventLogWorkaround[] } {
  const required = check.requiredPcrs ?? FIRMWARE_PCRS;
  const isExplained = ({ uncoveredPcrs }: Replay): boolean =>
    !uncoveredPcrs.some((pcr) => required.includes(pcr));
  const strict = compare(check, parsed, banks);
  if (isExplained(strict)) return { log: parsed, replay: strict, workarounds: [] };
  for (const workaround of check.workarounds ?? []) {
    const log = EVENT_LOG_WORKAROUNDS[workaround].apply(parsed, check.crypto);
    const replay = compare(check, log, banks);
    if (isExplained(replay)) return { log, replay, workarounds: [workaround] };
  }
  const pcrs = strict.uncoveredPcrs.filter((pcr) => required.includes(pcr));
  throw mismatch(`does not replay to the quoted value of PCR ${pcrs.join(", ")}`);
}

function compare(check: EventLogCheck, log: EventLog, banks: readonly HashRow[]): Replay {
  const matching = new Map<number, boolean>();
  for (const bank of banks) {
    const replayed = replayEventLog(log, bank, check.crypto);
    for (const { hash, pcr, value } of check.quote.pcrValues) {
      if (hash !== bank.name) continue;
      const expected = replayed[pcr];
      const matches = expected !== undefined && constantTimeEqual(expected, value);
      matching.set(pcr, matches && (matching.get(pcr) ?? true));
    }
  }
  const pcrs = [...matching.keys()].toSorted((a, b) => a - b);
  return {
    coveredPcrs: pcrs.filter((pcr) => matching.get(pcr) === true),
    uncoveredPcrs: pcrs.filter((pcr) => matching.get(pcr) === false),
  };
}

function mismatch(message: string): StileError {
  return new StileError("ATTEST_EVENT_LOG_MISMATCH", `event log: ${message}`);
}
