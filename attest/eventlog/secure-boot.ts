/**
 * UEFI Secure Boot as PCR 7 tells it (E7; PFP §3.3.4.8): the configuration before the separator, then who
 * authorised what ran. "on" is said only where every event that it rests on is covered and in its place;
 * where anything contradicts, the state is "unknown", never "on".
 *
 * Types are covered by nothing, and PCR 7 stays open: whoever runs later can extend a second set of
 * variables and a second separator, and relabel the first. So every event before the separator must be
 * one that belongs there (E5), which the true separator, relabelled, can never be.
 */
import { constantTimeEqual, isStileError } from "../../wire/index.ts";
import type { Coverage } from "./coverage.ts";
import {
  type EfiSignature,
  parseSignatureData,
  parseSignatureLists,
  parseUefiVariable,
  type UefiVariable,
} from "./efi-variable.ts";
import {
  EV_EFI_ACTION,
  EV_EFI_VARIABLE_AUTHORITY,
  EV_EFI_VARIABLE_DRIVER_CONFIG,
  EV_SEPARATOR,
} from "./event-types.ts";
import type { EventLogFinding } from "./findings.ts";
import { isText, type TcgEvent } from "./parse-event-log.ts";
import { isExtended } from "./replay.ts";

const SECURE_BOOT_PCR = 7;
const GLOBAL_VARIABLE = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const IMAGE_SECURITY_DATABASE = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
const SHIM_PADDING_BYTES = 6;
const DATABASES = ["PK", "KEK", "db", "dbx"] as const;

export type SignatureDatabase = (typeof DATABASES)[number];

export interface MeasuredDatabase {
  readonly name: SignatureDatabase;
  readonly eventIndex: number;
  readonly covered: boolean;
  readonly signatures: readonly EfiSignature[];
}

/** Something that ran because an entry of a database allows it. */
export interface BootAuthority {
  readonly eventIndex: number;
  readonly covered: boolean;
  /** The database, or another variable such as shim's. */
  readonly variable: string;
  readonly owner: string | undefined;
  readonly data: Uint8Array;
  /** True where the measured db holds exactly this entry. */
  readonly isInDb: boolean;
  /** True for what ran after the firmware's own drivers: boot applications. */
  readonly isAfterSeparator: boolean;
}

export interface SecureBootState {
  readonly state: "on" | "off" | "unknown";
  readonly databases: readonly MeasuredDatabase[];
  readonly authorities: readonly BootAuthority[];
  readonly findings: readonly EventLogFinding[];
}

interface Progress {
  readonly coverage: Coverage;
  /** Index of the separator of PCR 7, where it has a valid one. */
  readonly separator: number | undefined;
  readonly databases: MeasuredDatabase[];
  readonly authorities: BootAuthority[];
  readonly findings: EventLogFinding[];
  secureBoot: "on" | "off" | undefined;
  seen: Set<string>;
}

/** @param separator index of PCR 7's separator, where there is exactly one and it is valid */
export function secureBootState(
  events: readonly TcgEvent[],
  coverage: Coverage,
  separator: number | undefined,
): SecureBootState {
  const progress: Progress = {
    coverage,
    separator,
    databases: [],
    authorities: [],
    findings: [],
    secureBoot: undefined,
    seen: new Set(),
  };
  for (const event of events) {
    if (event.pcrIndex === SECURE_BOOT_PCR) readEvent(progress, event);
  }
  const { findings } = progress;
  const state = isSound(progress) ? (progress.secureBoot ?? "unknown") : "unknown";
  const { authorities, databases } = progress;
  return { state, databases, authorities, findings };
}

/**
 * Off needs no more than its variable; on needs all four databases, too. What follows the separator is
 * not the firmware's word any more, and cannot change what was said before it.
 */
function isSound({ databases, findings, secureBoot, separator }: Progress): boolean {
  if (separator === undefined) return false;
  const isOdd = findings.some(
    ({ code, eventIndex = 0 }) =>
      code === "variable-repeated" || code === "variable-late" || eventIndex < separator,
  );
  if (secureBoot !== "on") return !isOdd || isOnlyEmpty(findings);
  return !isOdd && DATABASES.every((name) => databases.some((known) => known.name === name));
}

function isOnlyEmpty(findings: readonly EventLogFinding[]): boolean {
  return findings.every(({ code }) => code === "secure-boot-variable-empty");
}

function readEvent(progress: Progress, event: TcgEvent): void {
  if (!isExtended(event) || event.eventType === EV_SEPARATOR) return;
  if (event.eventType === EV_EFI_ACTION) {
    readAction(progress, event);
    return;
  }
  const isConfig = event.eventType === EV_EFI_VARIABLE_DRIVER_CONFIG;
  if (!isConfig && event.eventType !== EV_EFI_VARIABLE_AUTHORITY) {
    note(progress, "event-type-unexpected", event);
    return;
  }
  const data = coveredData(progress, event);
  if (data === undefined) {
    note(progress, "data-not-covered", event);
    return;
  }
  try {
    const variable = parseUefiVariable(data);
    if (isConfig) readConfiguration(progress, event, variable);
    else readAuthority(progress, event, variable);
  } catch (error) {
    if (!isStileError(error)) throw error;
    note(progress, "variable-malformed", event);
  }
}

/**
 * shim before 15.3 allotted six bytes too many for its authority and left the last of them out of the
 * digest. The structure before them is covered whole.
 */
function coveredData({ coverage, findings }: Progress, event: TcgEvent): Uint8Array | undefined {
  if (coverage.isDataCovered(event)) return event.event;
  const isAuthority = event.eventType === EV_EFI_VARIABLE_AUTHORITY;
  if (!isAuthority || !coverage.covers(event, event.event.subarray(0, -1))) return undefined;
  findings.push({ code: "authority-padded", eventIndex: event.index });
  return event.event.subarray(0, -SHIM_PADDING_BYTES);
}

/** The texts of PFP §10.4.4 that weaken what follows; another may be a variable in disguise. */
function readAction(progress: Progress, event: TcgEvent): void {
  if (!progress.coverage.isDataCovered(event)) note(progress, "data-not-covered", event);
  else if (isText(event.event, "UEFI Debug Mode")) note(progress, "uefi-debug-mode", event);
  else if (isText(event.event, "DMA Protection Disabled")) {
    note(progress, "dma-protection-disabled", event);
  } else note(progress, "event-type-unexpected", event);
}

function readConfiguration(progress: Progress, event: TcgEvent, variable: UefiVariable): void {
  const name = secureBootVariable(variable);
  if (name === undefined) return;
  if (progress.separator !== undefined && event.index > progress.separator) {
    note(progress, "variable-late", event);
    return;
  }
  if (progress.seen.has(name)) {
    note(progress, "variable-repeated", event);
    return;
  }
  progress.seen.add(name);
  if (name === "SecureBoot") {
    readSwitch(progress, event, variable.data);
    return;
  }
  const signatures = parseSignatureLists(variable.data);
  progress.databases.push({ name, eventIndex: event.index, covered: true, signatures });
}

function readSwitch(progress: Progress, event: TcgEvent, data: Uint8Array): void {
  if (data.length === 0) {
    note(progress, "secure-boot-variable-empty", event);
    progress.secureBoot = "off";
  } else if (data.length === 1 && (data[0] === 0 || data[0] === 1)) {
    progress.secureBoot = data[0] === 1 ? "on" : "off";
  } else note(progress, "variable-malformed", event);
}

function readAuthority(progress: Progress, event: TcgEvent, variable: UefiVariable): void {
  const isDatabase = variable.vendor === IMAGE_SECURITY_DATABASE;
  const signature = isDatabase ? parseSignatureData(variable.data) : undefined;
  const data = signature?.data ?? variable.data;
  const db = progress.databases.find(({ name }) => name === "db");
  progress.authorities.push({
    eventIndex: event.index,
    covered: true,
    variable: variable.name,
    owner: signature?.owner,
    data,
    isInDb:
      isDatabase && (db?.signatures.some((entry) => constantTimeEqual(entry.data, data)) ?? false),
    isAfterSeparator: progress.separator !== undefined && event.index > progress.separator,
  });
}

function secureBootVariable({
  vendor,
  name,
}: UefiVariable): SignatureDatabase | "SecureBoot" | undefined {
  if (vendor === GLOBAL_VARIABLE) {
    return name === "SecureBoot" || name === "PK" || name === "KEK" ? name : undefined;
  }
  if (vendor !== IMAGE_SECURITY_DATABASE) return undefined;
  return name === "db" || name === "dbx" ? name : undefined;
}

function note(progress: Progress, code: EventLogFinding["code"], event: TcgEvent): void {
  progress.findings.push({ code, eventIndex: event.index });
}
