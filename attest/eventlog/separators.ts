/**
 * Separators (E6; PFP §3.3.2.2, §10.4.1 EV_SEPARATOR): one in each PCR from 0 to 7 marks the end of what
 * the platform's firmware measures there before it tries to boot. After it, anything that runs can extend.
 */
import type { Coverage } from "./coverage.ts";
import { EV_SEPARATOR } from "./event-types.ts";
import type { EventLogFinding } from "./findings.ts";
import type { TcgEvent } from "./parse-event-log.ts";
import { isExtended } from "./replay.ts";

const FIRMWARE_PCRS = [0, 1, 2, 3, 4, 5, 6, 7] as const;
/** Code and its configuration that must all be measured before. PCR 1 gets boot variables later. */
const CLOSED_BY_SEPARATOR: ReadonlySet<number> = new Set([0, 2, 3, 6]);

type SeparatorValue = "separator" | "error" | "invalid";

/** Index of the valid separator of each PCR that has exactly one. */
export interface Separators {
  readonly positions: ReadonlyMap<number, number>;
  readonly findings: readonly EventLogFinding[];
}

export function findSeparators(events: readonly TcgEvent[], coverage: Coverage): Separators {
  const positions = new Map<number, number>();
  const findings: EventLogFinding[] = [];
  for (const pcr of FIRMWARE_PCRS) {
    const own = events.filter((event) => event.pcrIndex === pcr && isExtended(event));
    const separators = own.filter(({ eventType }) => eventType === EV_SEPARATOR);
    const [first, second] = separators;
    if (first === undefined) {
      findings.push({ code: "separator-missing", eventIndex: undefined });
      continue;
    }
    const value = coverage.isDataCovered(first) ? separatorValue(first.event) : "invalid";
    if (second !== undefined) {
      findings.push({ code: "separator-repeated", eventIndex: second.index });
    } else if (value === "separator") {
      positions.set(pcr, first.index);
      findings.push(...eventsAfter(own, pcr, first.index));
    } else findings.push({ code: `separator-${value}`, eventIndex: first.index });
  }
  return { positions, findings };
}

function eventsAfter(own: readonly TcgEvent[], pcr: number, position: number): EventLogFinding[] {
  if (!CLOSED_BY_SEPARATOR.has(pcr)) return [];
  return own
    .filter(({ index }) => index > position)
    .map(({ index }) => ({ code: "event-after-separator", eventIndex: index }));
}

/** 0 or all ones; 1 where the firmware could not measure. */
function separatorValue(data: Uint8Array): SeparatorValue {
  if (data.length !== 4) return "invalid";
  if (data.every((byte) => byte === 0) || data.every((byte) => byte === 0xff)) return "separator";
  const isOne = data[0] === 1 && data.subarray(1).every((byte) => byte === 0);
  return isOne ? "error" : "invalid";
}
