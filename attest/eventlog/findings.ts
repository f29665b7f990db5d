/** What is odd about a log that replays. Policy decides which of these it puts up with. */

/** Stable codes, each with its meaning for people. */
export const EVENT_LOG_FINDINGS = {
  "separator-missing": "a PCR from 0 to 7 has no separator",
  "separator-repeated": "a PCR from 0 to 7 has more than one separator",
  "separator-error": "the firmware says by its separator that measuring failed",
  "separator-invalid": "a separator has a value that is none, or is not covered",
  "event-after-separator": "firmware or option ROMs were measured after their separator",
  "data-not-covered": "the digest of an event is not of the data that the log gives for it",
  "event-type-unexpected":
    "an event in PCR 2, 4 or 7 has a type or a text that hides what was measured there",
  "variable-malformed": "a measured UEFI variable cannot be read",
  "variable-repeated": "a Secure Boot variable was measured twice",
  "variable-late": "a Secure Boot variable was measured after the separator",
  "secure-boot-variable-empty": "the SecureBoot variable has no value",
  "authority-padded": "an old shim measured its authority with padding",
  "uefi-debug-mode": "the firmware was in debug mode",
  "dma-protection-disabled": "protection against DMA was switched off",
  "boot-application-unexpected":
    "a boot application ran before the firmware said that it calls one",
  "event-type-unknown": "an event has a type that this verifier does not know",
} as const;

export interface EventLogFinding {
  readonly code: keyof typeof EVENT_LOG_FINDINGS;
  /** Where in the log; undefined where something is missing. */
  readonly eventIndex: number | undefined;
}
