/**
 * Policies that could protect nothing, or that no device could satisfy. These are the operator's own mistakes,
 * so they stop the start.
 */
import { HASH_ROWS } from "../structures/constants.ts";
import type { AppraisalPolicy } from "./appraisal-policy.ts";

const LAST_PCR = 23;
const BOOT_PCRS = [0, 1, 2, 3, 4, 5, 6, 7] as const;

/** @throws RangeError that says what was expected */
export function checkAppraisalPolicy(policy: AppraisalPolicy): void {
  checkBanks(policy);
  checkReferenceValues(policy);
  checkRules(policy);
}

/** Rules that no device could pass, or that nothing would ever be judged by. */
function checkRules({ classes, eventLog, pcrBanks }: AppraisalPolicy): void {
  check(classes.length > 0, "classes: at least one class");
  check(isDistinct(classes.map(({ name }) => name)), "classes: each name once");
  const isBootQuoted = pcrBanks.some(({ pcrs }) => BOOT_PCRS.every((pcr) => pcrs.includes(pcr)));
  check(eventLog.mode === "off" || isBootQuoted, "pcrBanks: PCRs 0 to 7, where logs are judged");
  const isAsked = eventLog.secureBoot === "on" || eventLog.bootApplications !== undefined;
  check(eventLog.mode !== "off" || !isAsked, "eventLog.mode: not off, where its rules ask for it");
  const needLog = classes.some((row) => row.eventLog === true || row.secureBoot !== undefined);
  check(eventLog.mode !== "off" || !needLog, "eventLog.mode: not off, where a class needs a log");
}

function checkBanks({ allowSha1, pcrBanks }: AppraisalPolicy): void {
  check(pcrBanks.length > 0, "pcrBanks: at least one bank");
  check(isDistinct(pcrBanks.map(({ hash }) => hash)), "pcrBanks: each bank once");
  for (const { hash, pcrs } of pcrBanks) {
    // D12
    check(allowSha1 || hash !== "sha1", "pcrBanks: no SHA-1 bank where SHA-1 is not allowed");
    check(pcrs.length > 0 && isDistinct(pcrs), "pcrBanks: PCRs, each once");
    const exist = pcrs.every((pcr) => Number.isInteger(pcr) && pcr >= 0 && pcr <= LAST_PCR);
    check(exist, "pcrBanks: PCRs from 0 to 23");
  }
}

/** A value for a PCR that no quote covers would refuse every device. */
function checkReferenceValues({ pcrBanks, referenceValues }: AppraisalPolicy): void {
  for (const { hash, pcr, value } of referenceValues) {
    const isQuoted = pcrBanks.some((bank) => bank.hash === hash && bank.pcrs.includes(pcr));
    check(isQuoted, "referenceValues: PCRs that are quoted");
    const row = HASH_ROWS.find(({ name }) => name === hash);
    check(value.length === row?.digestBytes, "referenceValues: values of their bank's size");
  }
  const names = referenceValues.map(({ hash, pcr }) => `${hash} ${pcr}`);
  check(isDistinct(names), "referenceValues: one value for each PCR");
}

function isDistinct(values: readonly (number | string)[]): boolean {
  return new Set(values).size === values.length;
}

function check(holds: boolean, expected: string): void {
  if (!holds) throw new RangeError(`${expected} expected`);
}
