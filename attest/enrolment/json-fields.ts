/**
 * Strict reading of JSON objects from the network: every key named, none unknown, every value of its
 * form, sizes capped on the text before anything is decoded.
 */
import { decodeBase64Url, encodeBase64Url, StileError } from "../../wire/index.ts";

/** @throws `ATTEST_MESSAGE_INVALID` */
export function invalidMessage(field: string, expected: string): never {
  throw new StileError("ATTEST_MESSAGE_INVALID", `${field}: expected ${expected}`);
}

/** An object with exactly these keys, and no more than the optional ones. @throws `ATTEST_MESSAGE_INVALID` */
export function readObject<const K extends string, const O extends string = never>(
  json: unknown,
  field: string,
  keys: readonly K[],
  optional: readonly O[] = [],
): Readonly<Record<K, unknown> & Partial<Record<O, unknown>>> {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    return invalidMessage(field, "an object");
  }
  const allowed = optional.filter((key) => Object.hasOwn(json, key)).length;
  const isWhole = keys.every((key) => Object.hasOwn(json, key));
  // The unknown name is the sender's: it is not repeated.
  if (!isWhole || Object.keys(json).length !== keys.length + allowed) {
    return invalidMessage(field, `exactly the keys ${keys.join(", ")}`);
  }
  return json as Record<K, unknown> & Partial<Record<O, unknown>>;
}

/** A list within bounds. @throws `ATTEST_MESSAGE_INVALID` */
export function readList<T>(
  json: unknown,
  field: string,
  bounds: { readonly min: number; readonly max: number },
  read: (item: unknown) => T,
): T[] {
  if (!Array.isArray(json) || json.length < bounds.min || json.length > bounds.max) {
    return invalidMessage(field, `a list of ${bounds.min} to ${bounds.max}`);
  }
  return json.map((item) => read(item));
}

/** Base64url without padding, of at most `maxBytes`. @throws `ATTEST_MESSAGE_INVALID` */
export function readBytes(json: unknown, field: string, maxBytes: number): Uint8Array {
  const maxLetters = Math.ceil((maxBytes * 4) / 3);
  if (typeof json !== "string" || json.length > maxLetters || json.endsWith("=")) {
    return invalidMessage(field, `base64url of at most ${maxBytes} bytes`);
  }
  try {
    return decodeBase64Url(json, field);
  } catch (cause) {
    throw new StileError("ATTEST_MESSAGE_INVALID", `${field}: expected base64url`, { cause });
  }
}

/** A text of a closed form. @throws `ATTEST_MESSAGE_INVALID` */
export function readText(json: unknown, field: string, form: RegExp): string {
  if (typeof json !== "string" || !form.test(json)) return invalidMessage(field, "another text");
  return json;
}

/** One of several words. @throws `ATTEST_MESSAGE_INVALID` */
export function readWord<const T extends string>(
  json: unknown,
  field: string,
  words: readonly T[],
): T {
  return words.find((word) => word === json) ?? invalidMessage(field, words.join(" or "));
}

/** A whole number within bounds. @throws `ATTEST_MESSAGE_INVALID` */
export function readWhole(json: unknown, field: string, max: number): number {
  if (typeof json !== "number" || !Number.isInteger(json) || json < 0 || json > max) {
    return invalidMessage(field, `a whole number up to ${max}`);
  }
  return json;
}

/** How binary values are written. */
export function writeBytes(bytes: Uint8Array): string {
  return encodeBase64Url(bytes);
}
