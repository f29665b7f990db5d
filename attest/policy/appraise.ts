/**
 * Appraisal (RFC 9334 §8.5): verified facts against a policy, rule by rule, with the reasons. It believes
 * its input and knows no evidence; nothing that names a device goes into a reason.
 */
import { constantTimeEqual, isStileError } from "../../wire/index.ts";
import { checkFirmware, type TpmFirmware } from "../ek/index.ts";
import type { EventLogFinding } from "../eventlog/index.ts";
import type { ClockFinding } from "../quote/clock.ts";
import type { PcrValue } from "../quote/verify-quote.ts";
import type { TrustworthinessVector } from "../result/trustworthiness.ts";
import type { AppraisalPolicy, DeviceClass } from "./appraisal-policy.ts";

/** What verification found out about a device. */
export interface DeviceFacts {
  readonly firmware: TpmFirmware;
  readonly clockFindings: readonly ClockFinding[];
  readonly pcrValues: readonly PcrValue[];
  /** Undefined where no log was sent. */
  readonly eventLog: EventLogFacts | undefined;
}

export interface EventLogFacts {
  readonly secureBoot: "on" | "off" | "unknown";
  readonly findings: readonly EventLogFinding["code"][];
  /** Of all images that ran, SHA-256 digests in hexadecimal; undefined where the log has no SHA-256 bank. */
  readonly bootApplications: readonly string[] | undefined;
}

/** In the order in which they are judged. */
export const APPRAISAL_RULES = [
  "manufacturers",
  "firmware",
  "clock",
  "referenceValues",
  "eventLog.mode",
  "eventLog.secureBoot",
  "eventLog.bootApplications",
  "eventLog.acceptFindings",
  "classes",
] as const;

export interface AppraisalReason {
  readonly rule: (typeof APPRAISAL_RULES)[number];
  readonly outcome: "satisfied" | "not-asked" | "refused";
  /** Public words of the policy and of specifications. */
  readonly detail?: string;
}

export type Appraisal = {
  readonly policyId: string;
  /** Up to the rule that refused, or all. */
  readonly reasons: readonly AppraisalReason[];
} & (
  | { readonly decision: "refused"; readonly decidedBy: AppraisalReason }
  | {
      readonly decision: "affirmed";
      readonly deviceClass: DeviceClass;
      readonly trustworthiness: TrustworthinessVector;
    }
);

type Judge = (policy: AppraisalPolicy, facts: DeviceFacts) => Omit<AppraisalReason, "rule">;

const satisfied = { outcome: "satisfied" } as const;
const notAsked = { outcome: "not-asked" } as const;
const refused = (detail: string): { outcome: "refused"; detail: string } => ({
  outcome: "refused",
  detail,
});

const JUDGES: Readonly<Record<AppraisalReason["rule"], Judge>> = {
  manufacturers: ({ manufacturers }, { firmware: { manufacturer } }) => {
    if (manufacturers.deny.includes(manufacturer)) return refused(`${manufacturer} is denied`);
    if (manufacturers.allow === undefined) return notAsked;
    return manufacturers.allow.includes(manufacturer)
      ? satisfied
      : refused(`${manufacturer} is not allowed`);
  },
  firmware: ({ firmware: rules }, { firmware }) => {
    try {
      const findings = checkFirmware(firmware, rules);
      const noted = findings.map(({ certainty, cve }) => `${cve} ${certainty}`).join(", ");
      return noted === "" ? satisfied : { ...satisfied, detail: noted };
    } catch (error) {
      if (isStileError(error, "ATTEST_FIRMWARE_REFUSED")) return refused(error.message);
      throw error;
    }
  },
  clock: ({ refuseClockFindings }, { clockFindings }) => {
    const finding = clockFindings.find((name) => refuseClockFindings.includes(name));
    return finding === undefined ? satisfied : refused(finding);
  },
  referenceValues: ({ referenceValues }, { pcrValues }) => {
    if (referenceValues.length === 0) return notAsked;
    const other = referenceValues.find((reference) => !isQuoted(reference, pcrValues));
    return other === undefined
      ? satisfied
      : refused(`${other.hash}:${other.pcr} does not have its reference value`);
  },
  "eventLog.mode": ({ eventLog: { mode } }, { eventLog }) => {
    if (mode === "off") return notAsked;
    if (eventLog !== undefined) return satisfied;
    return mode === "required" ? refused("no event log was sent") : notAsked;
  },
  "eventLog.secureBoot": ({ eventLog: rules }, { eventLog }) => {
    if (rules.secureBoot === "any" || eventLog === undefined) return notAsked;
    return eventLog.secureBoot === "on"
      ? satisfied
      : refused(`Secure Boot is ${eventLog.secureBoot}`);
  },
  "eventLog.bootApplications": ({ eventLog: rules }, { eventLog }) => {
    const { bootApplications: known } = rules;
    if (known === undefined || eventLog === undefined) return notAsked;
    const { bootApplications } = eventLog;
    if (bootApplications === undefined) return refused("the event log has no SHA-256 digests");
    return bootApplications.every((digest) => known.has(digest))
      ? satisfied
      : refused("an unknown boot application ran");
  },
  "eventLog.acceptFindings": ({ eventLog: rules }, { eventLog }) => {
    if (rules.mode === "off" || eventLog === undefined) return notAsked;
    const finding = eventLog.findings.find((code) => !rules.acceptFindings.includes(code));
    return finding === undefined ? satisfied : refused(finding);
  },
  classes: ({ classes }, facts) => {
    const fitting = classes.find((deviceClass) => fits(deviceClass, facts));
    return fitting === undefined
      ? refused("the device fits no class")
      : { ...satisfied, detail: fitting.name };
  },
};

export function appraise(policy: AppraisalPolicy, facts: DeviceFacts): Appraisal {
  const reasons: AppraisalReason[] = [];
  for (const rule of APPRAISAL_RULES) {
    const reason = { rule, ...JUDGES[rule](policy, facts) };
    reasons.push(reason);
    if (reason.outcome === "refused") {
      return { decision: "refused", decidedBy: reason, policyId: policy.id, reasons };
    }
  }
  const deviceClass = policy.classes.find((candidate) => fits(candidate, facts));
  if (deviceClass === undefined) throw new TypeError("a class was found before");
  return {
    decision: "affirmed",
    deviceClass,
    policyId: policy.id,
    reasons,
    trustworthiness: trustworthinessOf(policy, facts),
  };
}

function fits(deviceClass: DeviceClass, { eventLog, firmware }: DeviceFacts): boolean {
  const { manufacturers, secureBoot } = deviceClass;
  if (manufacturers !== undefined && !manufacturers.includes(firmware.manufacturer)) return false;
  if (deviceClass.eventLog === true && eventLog === undefined) return false;
  return secureBoot === undefined || eventLog?.secureBoot === secureBoot;
}

function isQuoted(reference: PcrValue, pcrValues: readonly PcrValue[]): boolean {
  const quoted = pcrValues.find(
    ({ hash, pcr }) => hash === reference.hash && pcr === reference.pcr,
  );
  return quoted !== undefined && constantTimeEqual(quoted.value, reference.value);
}

/** AR4SI §2.3: what was looked at is claimed, everything else stays 0. */
function trustworthinessOf(policy: AppraisalPolicy, facts: DeviceFacts): TrustworthinessVector {
  const isBootJudged = policy.eventLog.mode !== "off" && facts.eventLog !== undefined;
  const isPcrJudged = policy.referenceValues.length > 0;
  const areImagesJudged = isBootJudged && policy.eventLog.bootApplications !== undefined;
  return {
    // The EK chains to a manufacturer, and the AK lives in the same TPM.
    instanceIdentity: AFFIRMING,
    hardware: AFFIRMING,
    configuration: isPcrJudged || isBootJudged ? AFFIRMING : NONE,
    executables: areImagesJudged ? AFFIRMING : NONE,
    fileSystem: NONE,
    runtimeOpaque: NONE,
    storageOpaque: NONE,
    sourcedData: NONE,
  };
}

/** AR4SI §2.3.1: 2 is the lowest affirming value. */
const AFFIRMING = 2;
const NONE = 0;
