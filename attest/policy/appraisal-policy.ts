/**
 * What an operator asks of a device beyond genuine hardware: a value, read from a file by `service/`, that
 * the attester appraises verified evidence by (RFC 9334 §8.5). Every weakening is named, and off by default.
 */
import type { EkCertificateOddity, FirmwarePolicy, RevocationPolicy } from "../ek/index.ts";
import type { EventLogFinding, EventLogWorkaround } from "../eventlog/index.ts";
import type { ClockFinding } from "../quote/clock.ts";
import { DEFAULT_REFUSED_CLOCK_FINDINGS } from "../quote/clock.ts";
import type { PcrValue } from "../quote/verify-quote.ts";
import type { HashName } from "../structures/constants.ts";

export interface AppraisalPolicy {
  /** Names the policy and its version in results, a URI. */
  readonly id: string;
  /** SHA-1 as nameAlg, in signatures and as a PCR bank (B3, D12). */
  readonly allowSha1: boolean;
  /** What a quote must cover (D5). */
  readonly pcrBanks: readonly { readonly hash: HashName; readonly pcrs: readonly number[] }[];
  /** `unsafeOff` accepts evidence over any connection, and the result says so (D11). */
  readonly channelBinding: "required" | "unsafeOff";
  /** Values that quoted PCRs must have; a quoted PCR that is not listed may have any. */
  readonly referenceValues: readonly PcrValue[];
  readonly manufacturers: ManufacturerRules;
  /** Deviations of EK certificates that are accepted (A1). */
  readonly acceptOddities: readonly EkCertificateOddity[];
  readonly revocation: RevocationPolicy;
  readonly firmware: FirmwarePolicy;
  /** Findings about the TPM's clock and counters that refuse (D7). */
  readonly refuseClockFindings: readonly ClockFinding[];
  readonly eventLog: EventLogRules;
  /** In order: the first that fits a device is its class; a device that fits none is refused. */
  readonly classes: readonly DeviceClass[];
}

export interface ManufacturerRules {
  /** `id:XXXXXXXX`; undefined: every one that the roots vouch for. */
  readonly allow: readonly string[] | undefined;
  readonly deny: readonly string[];
}

/**
 * Rules about the measured boot. They rest on events and not on final PCR values, so that an update which
 * measures something new elsewhere does not break them.
 */
export interface EventLogRules {
  /** `required` refuses a device without a log; `if-present` judges it where there is one. */
  readonly mode: "required" | "if-present" | "off";
  readonly secureBoot: "on" | "any";
  /** Authenticode digests (SHA-256, hexadecimal) of which every boot application must be one; or any. */
  readonly bootApplications: ReadonlySet<string> | undefined;
  /** Oddities of the log that are put up with; any other refuses. */
  readonly acceptFindings: readonly EventLogFinding["code"][];
  readonly workarounds: readonly EventLogWorkaround[];
}

export interface DeviceClass {
  readonly name: string;
  /** Undefined: any manufacturer. */
  readonly manufacturers?: readonly string[];
  /** True: only with a verified event log. */
  readonly eventLog?: boolean;
  /** Only with Secure Boot on by a verified event log. */
  readonly secureBoot?: "on";
  /** Tokens in one window; undefined: the attester's default. */
  readonly tokens?: number;
}

/** Genuine hardware with current firmware as far as it is known, and nothing more. */
export const DEFAULT_APPRAISAL_POLICY: AppraisalPolicy = {
  id: "urn:stile:policy:tpm-default",
  allowSha1: false,
  pcrBanks: [{ hash: "sha256", pcrs: [0, 1, 2, 3, 4, 5, 6, 7] }],
  channelBinding: "required",
  referenceValues: [],
  manufacturers: { allow: undefined, deny: [] },
  acceptOddities: [],
  revocation: { mode: "when-available", lists: [] },
  firmware: { refuse: "affected" },
  refuseClockFindings: DEFAULT_REFUSED_CLOCK_FINDINGS,
  eventLog: {
    mode: "off",
    secureBoot: "any",
    bootApplications: undefined,
    acceptFindings: [],
    workarounds: [],
  },
  classes: [{ name: "default" }],
};
