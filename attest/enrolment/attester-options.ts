/**
 * What an attester may be configured with. These are the operator's own mistakes, so they stop the start:
 * each would otherwise refuse every device, or accept what the policy says is refused.
 */
import { HASH_ROWS } from "../structures/constants.ts";
import type { TpmAppraisalPolicy, TpmAttesterOptions } from "./tpm-attester.ts";

const PSEUDONYM_SECRET_BYTES = 32;
const LAST_PCR = 23;

/** @throws RangeError */
export function checkTpmAttesterOptions(options: TpmAttesterOptions): void {
  check(options.pseudonymSecret.length === PSEUDONYM_SECRET_BYTES, "pseudonymSecret: 32 bytes");
  check(isPositive(options.sessionMs), "sessionMs: a positive number of milliseconds");
  check(isPositive(options.maxSessions), "maxSessions: 1 or more");
  checkBanks(options.policy);
  checkReferenceValues(options.policy);
}

function checkBanks({ allowSha1, pcrBanks }: TpmAppraisalPolicy): void {
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
function checkReferenceValues({ pcrBanks, referenceValues }: TpmAppraisalPolicy): void {
  for (const { hash, pcr, value } of referenceValues) {
    const isQuoted = pcrBanks.some((bank) => bank.hash === hash && bank.pcrs.includes(pcr));
    check(isQuoted, "referenceValues: PCRs that are quoted");
    const row = HASH_ROWS.find(({ name }) => name === hash);
    check(value.length === row?.digestBytes, "referenceValues: values of their bank's size");
  }
  const names = referenceValues.map(({ hash, pcr }) => `${hash} ${pcr}`);
  check(isDistinct(names), "referenceValues: one value for each PCR");
}

function isPositive(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0;
}

function isDistinct(values: readonly (number | string)[]): boolean {
  return new Set(values).size === values.length;
}

function check(holds: boolean, expected: string): void {
  if (!holds) throw new RangeError(`${expected} expected`);
}
