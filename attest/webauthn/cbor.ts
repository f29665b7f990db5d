/**
 * CBOR of authenticators (RFC 8949, CTAP 2.1 §8 "Message Encoding"; checklist F2, G3): definite lengths
 * in their shortest form, no tags, no duplicate keys, bounded size and depth. cborg does the decoding;
 * a walk over the headers comes first because cborg recurses as deeply as its input asks.
 */
import { decode, decodeFirst, type DecodeOptions } from "cborg";
import { StileError } from "../../wire/index.ts";

/** An attestation object with a chain of five certificates is about 5 KiB. */
const MAX_CBOR_BYTES = 32 * 1024;
/** CTAP 2.1 §8 allows four levels; attestation objects need three. */
const MAX_DEPTH = 4;

const STRICT: DecodeOptions = {
  allowIndefinite: false,
  allowUndefined: false,
  allowNaN: false,
  allowInfinity: false,
  strict: true,
  rejectDuplicateMapKeys: true,
  useMaps: true,
};

export type CborMap = ReadonlyMap<unknown, unknown>;

/** Exactly one map. @throws `ATTEST_WEBAUTHN_CBOR_INVALID` */
export function parseCborMap(bytes: Uint8Array, structure: string): CborMap {
  return attempt(structure, () => {
    checkHeaders(bytes, structure);
    return asMap(decode(bytes, STRICT), structure);
  });
}

/** The map at the start of `bytes`, and how long it is. @throws `ATTEST_WEBAUTHN_CBOR_INVALID` */
export function readCborMap(
  bytes: Uint8Array,
  structure: string,
): { readonly map: CborMap; readonly raw: Uint8Array } {
  return attempt(structure, () => {
    checkHeaders(bytes, structure);
    const [value, rest]: [unknown, Uint8Array] = decodeFirst(bytes, STRICT);
    return { map: asMap(value, structure), raw: bytes.subarray(0, bytes.length - rest.length) };
  });
}

/** The value of a key as a byte string. @throws `ATTEST_WEBAUTHN_CBOR_INVALID` */
export function bytesMember(map: CborMap, key: unknown, structure: string): Uint8Array {
  const value = map.get(key);
  if (!(value instanceof Uint8Array)) throw cborInvalid(structure, "a byte string is missing");
  return value;
}

export function cborInvalid(structure: string, what: string, cause?: unknown): StileError {
  return new StileError("ATTEST_WEBAUTHN_CBOR_INVALID", `${structure}: ${what}`, { cause });
}

function asMap(value: unknown, structure: string): CborMap {
  if (!(value instanceof Map)) throw cborInvalid(structure, "expected a CBOR map");
  return value;
}

function attempt<T>(structure: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof StileError) throw error;
    throw cborInvalid(structure, "expected canonical CBOR", error);
  }
}

/** RFC 8949 §3: the major types. */
const MAJOR = { bytes: 2, text: 3, array: 4, map: 5, tag: 6 } as const;

/** One item with all that it holds: depth, no tags, no indefinite length. Contents are cborg's to judge. */
function checkHeaders(bytes: Uint8Array, structure: string): void {
  if (bytes.length > MAX_CBOR_BYTES) throw cborInvalid(structure, "larger than the limit");
  /** Items that are still to come, level by level. */
  const open = [1];
  for (let offset = 0; open.length > 0;) {
    const level = open.length - 1;
    const due = open[level] ?? 0;
    if (due === 0) {
      open.pop();
      continue;
    }
    open[level] = due - 1;
    const header = readHeader(bytes, offset, structure);
    offset = header.end;
    if (header.major === MAJOR.tag) throw cborInvalid(structure, "a tag");
    if (header.major === MAJOR.bytes || header.major === MAJOR.text) offset += header.argument;
    if (header.major === MAJOR.array || header.major === MAJOR.map) {
      if (open.length > MAX_DEPTH) throw cborInvalid(structure, "nested too deeply");
      open.push(header.argument * (header.major === MAJOR.map ? 2 : 1));
    }
    if (offset > bytes.length) throw cborInvalid(structure, "it ends early");
  }
}

function readHeader(
  bytes: Uint8Array,
  offset: number,
  structure: string,
): { readonly major: number; readonly argument: number; readonly end: number } {
  const initial = bytes[offset];
  if (initial === undefined) throw cborInvalid(structure, "it ends early");
  const minor = initial & 0x1f;
  const major = initial >> 5;
  if (minor < 24) return { major, argument: minor, end: offset + 1 };
  if (minor > 27) throw cborInvalid(structure, "an indefinite length");
  const end = offset + 1 + 2 ** (minor - 24);
  let argument = 0;
  for (const byte of bytes.subarray(offset + 1, end)) argument = argument * 256 + byte;
  return { major, argument, end };
}
