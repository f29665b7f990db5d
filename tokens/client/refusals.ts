/** What the clients of all token types refuse in the same words. */
import { isStileError, StileError } from "../../wire/index.ts";
import type { IssuanceResponse } from "./token-client.ts";

/** @throws `TOKEN_ISSUANCE_REFUSED` unless the response has one of the statuses, and what was asked for */
export function checkIssued(
  { mediaType, status }: IssuanceResponse,
  accept: string,
  statuses: readonly number[] = [200],
): void {
  if (statuses.includes(status) && mediaType === accept) return;
  throw new StileError("TOKEN_ISSUANCE_REFUSED", `the issuer answered with status ${status}`);
}

/** What is malformed is so in the challenge. @throws `TOKEN_CHALLENGE_INVALID`, `TOKEN_METADATA_REFUSED` */
export function refusing<T>(parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    throw malformed(cause);
  }
}

/** The same. */
export async function refusingAsync<T>(parse: () => Promise<T>): Promise<T> {
  try {
    return await parse();
  } catch (cause) {
    throw malformed(cause);
  }
}

function malformed(cause: unknown): unknown {
  if (!isStileError(cause) || cause.code === "TOKEN_METADATA_REFUSED") return cause;
  return new StileError("TOKEN_CHALLENGE_INVALID", cause.message, { cause });
}
