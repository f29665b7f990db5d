/** What an attester may be configured with: a mistake here stops the start. */
import { checkAppraisalPolicy } from "../policy/index.ts";
import type { TpmAttesterOptions } from "./tpm-attester.ts";

const PSEUDONYM_SECRET_BYTES = 32;

/** @throws RangeError */
export function checkTpmAttesterOptions(options: TpmAttesterOptions): void {
  check(options.pseudonymSecret.length === PSEUDONYM_SECRET_BYTES, "pseudonymSecret: 32 bytes");
  check(isPositive(options.sessionMs), "sessionMs: a positive number of milliseconds");
  check(isPositive(options.maxSessions), "maxSessions: 1 or more");
  checkAppraisalPolicy(options.policy);
}

function isPositive(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0;
}

function check(holds: boolean, expected: string): void {
  if (!holds) throw new RangeError(`${expected} expected`);
}
