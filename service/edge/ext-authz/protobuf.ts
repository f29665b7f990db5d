/**
 * As much of the Protocol Buffers wire format (protobuf.dev/programming-guides/encoding) as Envoy's messages need:
 * length-delimited fields by number, others skipped, groups refused. Stricter than the format where it allows two
 * spellings: integers have their shortest form, and a field that is read has the wire type that it should.
 */
import { concatBytes, encodeUtf8, Reader } from "../../../wire/index.ts";

const VARINT = 0;
const FIXED64 = 1;
const DELIMITED = 2;
const FIXED32 = 5;
const MAX_UINT32 = 0xffff_ffff;
/** Of a 64-bit integer, seven bits a byte. */
const MAX_VARINT_BYTES = 10;

export interface ReadMessage {
  /** The values of a field, in their order. */
  readonly all: (field: number) => readonly Uint8Array[];
  /** The value of a field that may stand once. @throws `WIRE_VALUE_NOT_ALLOWED` */
  readonly one: (field: number) => Uint8Array | undefined;
}

/**
 * @param structure name of the message, for errors
 * @param fields names of the length-delimited fields that are read, by number
 * @param maxFields of those
 * @throws `WIRE_TOO_SHORT`, `WIRE_BAD_ENCODING`, `WIRE_VALUE_NOT_ALLOWED`, `WIRE_LENGTH_OUT_OF_BOUNDS`
 */
export function readMessage(
  bytes: Uint8Array,
  structure: string,
  fields: Readonly<Record<number, string>>,
  maxFields = 64,
): ReadMessage {
  const reader = new Reader(bytes, structure);
  const values = new Map<number, Uint8Array[]>();
  let count = 0;
  while (reader.remaining > 0) {
    const tag = readUint32(reader, "tag");
    const [number, wireType] = [tag >>> 3, tag & 7];
    if (number === 0) reader.fail("WIRE_VALUE_NOT_ALLOWED", "tag", "expected a field number");
    const name = fields[number];
    if (name === undefined) {
      skip(reader, wireType);
      continue;
    }
    if (wireType !== DELIMITED) {
      reader.fail("WIRE_VALUE_NOT_ALLOWED", name, "expected a length-delimited field");
    }
    count += 1;
    if (count > maxFields) reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", name, "too many fields");
    const value = reader.bytes(name, readUint32(reader, name));
    const before = values.get(number);
    if (before === undefined) values.set(number, [value]);
    else before.push(value);
  }
  const all: ReadMessage["all"] = (field) => values.get(field) ?? [];
  return {
    all,
    one: (field) => {
      const [first, second] = all(field);
      // The format merges repeated messages: a reader that takes the first would decide about another request.
      if (second !== undefined) {
        reader.fail("WIRE_VALUE_NOT_ALLOWED", fields[field] ?? "field", "expected it once");
      }
      return first;
    },
  };
}

function skip(reader: Reader, wireType: number): void {
  switch (wireType) {
    case VARINT:
      skipVarint(reader);
      return;
    case FIXED64:
      reader.bytes("unknown", 8);
      return;
    case DELIMITED:
      reader.bytes("unknown", readUint32(reader, "unknown"));
      return;
    case FIXED32:
      reader.bytes("unknown", 4);
      return;
    default:
      reader.fail("WIRE_VALUE_NOT_ALLOWED", "tag", "expected a wire type that is not a group");
  }
}

function skipVarint(reader: Reader): void {
  for (let i = 0; i < MAX_VARINT_BYTES; i += 1) if (reader.u8("unknown") < 0x80) return;
  reader.fail("WIRE_BAD_ENCODING", "unknown", "expected an integer of ten bytes or fewer");
}

function readUint32(reader: Reader, field: string): number {
  let value = 0;
  for (let i = 0; i < 5; i += 1) {
    const byte = reader.u8(field);
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte >= 0x80) continue;
    if ((i > 0 && byte === 0) || value > MAX_UINT32) break;
    return value;
  }
  return reader.fail("WIRE_BAD_ENCODING", field, "expected the shortest form of 32 bits");
}

/** A field that holds a message or bytes. */
export function delimited(number: number, value: Uint8Array): Uint8Array {
  return concatBytes([uint32(number * 8 + DELIMITED), uint32(value.length), value]);
}

export function textField(number: number, value: string): Uint8Array {
  return delimited(number, encodeUtf8(value));
}

/** A field that holds a number. Zero is not written: it is what a reader takes for a field that is absent. */
export function uintField(number: number, value: number): Uint8Array {
  return value === 0 ? new Uint8Array() : concatBytes([uint32(number * 8), uint32(value)]);
}

function uint32(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 0x80);
  return Uint8Array.from([...bytes, rest]);
}
