/** Measured-boot logs: parsing, replay against a quote, and what they say (TCG PC Client PFP). */
export type { BootState, LoaderMeasurement, MeasuredImage } from "./boot.ts";
export type { EfiSignature } from "./efi-variable.ts";
export { eventTypeName } from "./event-types.ts";
export { EVENT_LOG_FINDINGS, type EventLogFinding } from "./findings.ts";
export {
  type EventLog,
  type EventLogAlgorithm,
  MAX_EVENT_LOG_BYTES,
  parseEventLog,
  type TcgEvent,
} from "./parse-event-log.ts";
export { replayEventLog } from "./replay.ts";
export type {
  BootAuthority,
  MeasuredDatabase,
  SecureBootState,
  SignatureDatabase,
} from "./secure-boot.ts";
export { type EventLogCheck, type VerifiedEventLog, verifyEventLog } from "./verify-event-log.ts";
export { EVENT_LOG_WORKAROUNDS, type EventLogWorkaround } from "./workarounds.ts";
