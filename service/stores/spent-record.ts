/**
 * What one spend leaves in the database: nothing but the nonce where there is no binding, else
 * `tag[16] || firstAtMs[6]`. The tag is the first half of the binding, which is a digest of nonce and
 * caller already ({@link SpendRequest}): 128 bits that say nothing of two spends by one caller.
 */
import { timingSafeEqual } from "node:crypto";
import type { SpendOutcome, SpendRequest } from "../../tokens/index.ts";

const TAG_BYTES = 16;
const TIME_BYTES = 6;
/** Of a token key id, a nonce and a binding alike. */
const IDENTIFIER_BYTES = 32;
const MAX_TIME_MS = 2 ** (8 * TIME_BYTES) - 1;

/** @throws RangeError where a length or the time is not what {@link SpendRequest} says. */
export function checkSpendRequest(request: SpendRequest): void {
  checkIdentifier("tokenKeyId", request.tokenKeyId);
  checkIdentifier("nonce", request.nonce);
  if (request.binding !== undefined) checkIdentifier("binding", request.binding);
  const { atMs } = request;
  if (!Number.isSafeInteger(atMs) || atMs < 0 || atMs > MAX_TIME_MS) {
    throw new RangeError("atMs is not a time in Unix milliseconds");
  }
}

/** @throws RangeError unless the value has 32 bytes. */
export function checkIdentifier(name: string, value: Uint8Array): void {
  if (value.length !== IDENTIFIER_BYTES) throw new RangeError(`${name} is not 32 bytes`);
}

/** @throws RangeError unless the value is one in milliseconds. */
export function checkDuration(name: string, ms: number): void {
  if (!Number.isSafeInteger(ms) || ms < 0) throw new RangeError(`${name} is not in milliseconds`);
}

/** The value that is stored for a first spend. */
export function encodeSpentRecord({ binding, atMs }: SpendRequest): Uint8Array {
  if (binding === undefined) return new Uint8Array(0);
  const value = Buffer.alloc(TAG_BYTES + TIME_BYTES);
  value.set(binding.subarray(0, TAG_BYTES));
  value.writeUIntBE(atMs, TAG_BYTES, TIME_BYTES);
  return value;
}

/**
 * What a later spend of the same nonce gets. A record without a binding, and one of any other length
 * (damage, or a future version), fits no binding: the answer is "spent".
 */
export function outcomeOfLaterSpend(stored: Uint8Array, request: SpendRequest): SpendOutcome {
  if (request.binding === undefined || stored.length !== TAG_BYTES + TIME_BYTES) {
    return { outcome: "spent" };
  }
  const record = Buffer.from(stored.buffer, stored.byteOffset, stored.length);
  const tag = request.binding.subarray(0, TAG_BYTES);
  if (!timingSafeEqual(record.subarray(0, TAG_BYTES), tag)) return { outcome: "spent" };
  return { outcome: "repeat", firstAtMs: record.readUIntBE(TAG_BYTES, TIME_BYTES) };
}
