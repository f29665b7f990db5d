/**
 * A strict reader of DER (ITU-T X.690 §10 and §11): definite lengths in their shortest form, no
 * left-over bytes, bounded depth. asn1js reads BER, where one certificate has many encodings and two
 * parsers can see two contents, so every certificate and extension passes here first.
 */
import { StileError } from "../../wire/index.ts";
import type { OddityRows } from "./oddities.ts";

/** X.690 §8.1.2: identifier octets of the types that X.509 uses. */
export const TAG = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OBJECT_IDENTIFIER: 0x06,
  UTF8_STRING: 0x0c,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
  SET: 0x31,
} as const;

/** [n], constructed. */
export function contextTag(number: number): number {
  return 0xa0 + number;
}

const CONSTRUCTED = 0x20;
/** X.509 certificates nest to about 12; EK certificates' attributes to about 14. */
const MAX_DEPTH = 32;

export interface DerValue {
  readonly tag: number;
  /** Contents octets, a view of the input. */
  readonly content: Uint8Array;
  /** Identifier, length and contents octets, a view of the input. */
  readonly raw: Uint8Array;
}

/** The value at the start of `bytes`; what follows is the caller's. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readFirstDer(bytes: Uint8Array): DerValue {
  const tag = octet(bytes, 0);
  if ((tag & 0x1f) === 0x1f) throw derError("a tag number above 30");
  const first = octet(bytes, 1);
  let start = 2;
  let length = first;
  if (first >= 0x80) {
    const width = first & 0x7f;
    // Four bytes of length are more than any size cap of this folder.
    if (width === 0 || width > 3) throw derError("an indefinite or overlong length");
    length = 0;
    for (let index = 0; index < width; index += 1) length = length * 256 + octet(bytes, 2 + index);
    if (length < 0x80 || length < 2 ** (8 * (width - 1)))
      throw derError("a length that is not in its shortest form");
    start += width;
  }
  if (length > bytes.length - start) throw derError("a length past the end");
  const raw = bytes.subarray(0, start + length);
  return { tag, content: raw.subarray(start), raw };
}

/** Exactly one value of `tag`. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function parseDer(bytes: Uint8Array, tag: number): DerValue {
  const value = readFirstDer(bytes);
  if (value.raw.length !== bytes.length) throw derError("left-over bytes");
  return expectTag(value, tag);
}

/** The values inside a constructed value. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function children(value: DerValue): DerValue[] {
  if ((value.tag & CONSTRUCTED) === 0)
    throw derError("a primitive value where a constructed one belongs");
  const values: DerValue[] = [];
  for (let offset = 0; offset < value.content.length;) {
    const child = readFirstDer(value.content.subarray(offset));
    values.push(child);
    offset += child.raw.length;
  }
  return values;
}

/** @throws `ATTEST_EK_CERTIFICATE_INVALID` unless there is a value and it has this tag */
export function expectTag(value: DerValue | undefined, tag: number): DerValue {
  if (value === undefined || value.tag !== tag) throw derError(`a value other than tag ${tag}`);
  return value;
}

/**
 * Every nested value is DER.
 * @param rows whether a SET OF may be out of order
 * @throws `ATTEST_EK_CERTIFICATE_INVALID`
 */
export function checkDer(value: DerValue, rows: OddityRows, depth = 0): void {
  if (depth > MAX_DEPTH) throw derError("values nested too deeply");
  if ((value.tag & CONSTRUCTED) !== 0) {
    const values = children(value);
    for (const child of values) checkDer(child, rows, depth + 1);
    if (value.tag === TAG.SET && !isAscending(values)) rows.meet("set-of-order");
    return;
  }
  if (value.tag === TAG.BOOLEAN) readBoolean(value);
  if (value.tag === TAG.INTEGER) checkInteger(value);
  if (value.tag === TAG.BIT_STRING) readBitString(value);
}

/** X.690 §11.6: encodings in ascending order, the shorter one padded with zeros at its end. */
function isAscending(values: readonly DerValue[]): boolean {
  return values.every(({ raw }, index) => {
    const before = values[index - 1]?.raw;
    return before === undefined || compareOctets(before, raw) <= 0;
  });
}

function compareOctets(a: Uint8Array, b: Uint8Array): number {
  for (let index = 0; index < Math.max(a.length, b.length); index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** X.690 §11.1: false is 0x00 and true is 0xff. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readBoolean(value: DerValue): boolean {
  const [first] = expectTag(value, TAG.BOOLEAN).content;
  if (value.content.length !== 1 || (first !== 0x00 && first !== 0xff))
    throw derError("a boolean that is neither 0x00 nor 0xff");
  return first === 0xff;
}

function checkInteger(value: DerValue): Uint8Array {
  const [first, second] = expectTag(value, TAG.INTEGER).content;
  if (first === undefined) throw derError("an empty integer");
  const padded =
    second !== undefined &&
    ((first === 0x00 && second < 0x80) || (first === 0xff && second >= 0x80));
  if (padded) throw derError("an integer that is not in its shortest form");
  return value.content;
}

/** An integer of 0 to 2^31-1. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readSmallInteger(value: DerValue): number {
  const bytes = checkInteger(value);
  if (bytes.length > 4 || octet(bytes, 0) >= 0x80) throw derError("an integer out of its range");
  let result = 0;
  for (const byte of bytes) result = result * 256 + byte;
  return result;
}

/** The magnitude of a positive integer, without its leading zero. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readPositiveInteger(value: DerValue): Uint8Array {
  const bytes = checkInteger(value);
  const first = octet(bytes, 0);
  if (first >= 0x80 || (first === 0 && bytes.length === 1))
    throw derError("an integer that is not positive");
  return first === 0 ? bytes.subarray(1) : bytes;
}

export interface BitString {
  /** 0 to 7; these low bits of the last byte are zero (X.690 §11.2.1). */
  readonly unusedBits: number;
  readonly bytes: Uint8Array;
}

/** @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readBitString(value: DerValue): BitString {
  const { content } = expectTag(value, TAG.BIT_STRING);
  const unusedBits = octet(content, 0);
  const bytes = content.subarray(1);
  const last = bytes.at(-1) ?? 0;
  if (unusedBits > 7 || (bytes.length === 0 && unusedBits > 0))
    throw derError("a bit string with a bad count of unused bits");
  if ((last & ((1 << unusedBits) - 1)) !== 0) throw derError("a bit string with unused bits set");
  return { unusedBits, bytes };
}

/** Dotted decimal. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readOid(value: DerValue): string {
  const arcs: number[] = [];
  let arc = 0;
  let inside = false;
  for (const byte of expectTag(value, TAG.OBJECT_IDENTIFIER).content) {
    if (!inside && byte === 0x80)
      throw derError("an object identifier that is not in its shortest form");
    arc = arc * 128 + (byte & 0x7f);
    if (arc > Number.MAX_SAFE_INTEGER) throw derError("an object identifier with an overlong arc");
    inside = byte >= 0x80;
    if (inside) continue;
    if (arcs.length === 0)
      arcs.push(Math.min(2, Math.floor(arc / 40)), arc - 40 * Math.min(2, Math.floor(arc / 40)));
    else arcs.push(arc);
    arc = 0;
  }
  if (inside || arcs.length === 0) throw derError("an object identifier that ends early");
  return arcs.join(".");
}

function octet(bytes: Uint8Array, index: number): number {
  const byte = bytes[index];
  if (byte === undefined) throw derError("a value that ends early");
  return byte;
}

function derError(what: string): StileError {
  return new StileError("ATTEST_EK_CERTIFICATE_INVALID", `certificate: expected DER, got ${what}`);
}
