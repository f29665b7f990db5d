/**
 * Reads big-endian structures (TPM 2.0 Library Part 1 §"Data types", RFC 8446 §3), and little-endian ones
 * (TCG PC Client event logs, UEFI) by the methods that say so, from hostile bytes.
 * This is the only code that touches offsets: each read names its field and checks the length first.
 * Byte strings are returned as views of the input, never copies; the input must not be changed while
 * parsed values are in use. It decodes no text and knows no structure.
 */
import type { ErrorCode } from "./error-codes.ts";
import { StileError } from "./errors.ts";

/** RFC 9000 §16: the largest value of a variable-length integer that fits a safe JavaScript integer. */
const MAX_VARINT = Number.MAX_SAFE_INTEGER;

export class Reader {
  readonly #bytes: Uint8Array;
  readonly #structure: string;
  #offset = 0;

  /** @param structure the specification's name of what is read; it appears in errors. */
  constructor(bytes: Uint8Array, structure: string) {
    if (!(bytes instanceof Uint8Array)) throw new TypeError(`${structure}: expected a Uint8Array`);
    this.#bytes = bytes;
    this.#structure = structure;
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  /** A fixed-length byte string. @throws `WIRE_TOO_SHORT` */
  bytes(field: string, length: number): Uint8Array {
    if (length > this.remaining) {
      this.fail("WIRE_TOO_SHORT", field, `expected ${length} bytes, got ${this.remaining}`);
    }
    const start = this.#offset;
    this.#offset = start + length;
    return this.#bytes.subarray(start, this.#offset);
  }

  /** An unsigned 8-bit integer. @throws `WIRE_TOO_SHORT` */
  u8(field: string): number {
    return this.#uint(field, 1);
  }

  /** An unsigned 16-bit integer. @throws `WIRE_TOO_SHORT` */
  u16(field: string): number {
    return this.#uint(field, 2);
  }

  /** An unsigned 32-bit integer. @throws `WIRE_TOO_SHORT` */
  u32(field: string): number {
    return this.#uint(field, 4);
  }

  /** An unsigned 64-bit integer. @throws `WIRE_TOO_SHORT` */
  u64(field: string): bigint {
    let value = 0n;
    for (const byte of this.bytes(field, 8)) value = (value << 8n) | BigInt(byte);
    return value;
  }

  /** An unsigned little-endian 16-bit integer. @throws `WIRE_TOO_SHORT` */
  u16le(field: string): number {
    return this.#uintLe(field, 2);
  }

  /** An unsigned little-endian 32-bit integer. @throws `WIRE_TOO_SHORT` */
  u32le(field: string): number {
    return this.#uintLe(field, 4);
  }

  /** An unsigned little-endian 64-bit integer. @throws `WIRE_TOO_SHORT` */
  u64le(field: string): bigint {
    let value = 0n;
    for (const byte of this.bytes(field, 8).toReversed()) value = (value << 8n) | BigInt(byte);
    return value;
  }

  /** A byte string behind an 8-bit length. @throws `WIRE_TOO_SHORT`, `WIRE_LENGTH_OUT_OF_BOUNDS` */
  vec8(field: string, min: number, max: number): Uint8Array {
    return this.#vector(field, 1, min, max);
  }

  /** A byte string behind a 16-bit length. @throws `WIRE_TOO_SHORT`, `WIRE_LENGTH_OUT_OF_BOUNDS` */
  vec16(field: string, min: number, max: number): Uint8Array {
    return this.#vector(field, 2, min, max);
  }

  /** A byte string behind a little-endian 32-bit length. @throws as {@link vec16} */
  vec32le(field: string, min: number, max: number): Uint8Array {
    const length = this.u32le(field);
    this.#checkBounds(field, length, min, max, 4);
    return this.bytes(field, length);
  }

  /** A little-endian 32-bit list count within bounds. @throws as {@link count32} */
  count32le(field: string, min: number, max: number): number {
    const count = this.u32le(field);
    this.#checkBounds(field, count, min, max, 4);
    return count;
  }

  /** A 32-bit list count within bounds. @throws `WIRE_TOO_SHORT`, `WIRE_LENGTH_OUT_OF_BOUNDS` */
  count32(field: string, min: number, max: number): number {
    const count = this.u32(field);
    this.#checkBounds(field, count, min, max, 4);
    return count;
  }

  /**
   * A variable-length integer (RFC 9000 §16) in its shortest form.
   * @throws `WIRE_TOO_SHORT`, `WIRE_BAD_ENCODING` for a longer form than needed
   */
  varint(field: string): number {
    const first = this.u8(field);
    const length = 1 << (first >> 6);
    let value = first & 0x3f;
    for (const byte of this.bytes(field, length - 1)) value = value * 256 + byte;
    const shortest = value < 0x40 ? 1 : value < 0x4000 ? 2 : value < 0x4000_0000 ? 4 : 8;
    if (length !== shortest || value > MAX_VARINT) {
      this.fail("WIRE_BAD_ENCODING", field, "expected the shortest form of the integer", -length);
    }
    return value;
  }

  /** A byte string behind a {@link varint} length. @throws `WIRE_TOO_SHORT`, `WIRE_LENGTH_OUT_OF_BOUNDS` */
  vecVarint(field: string, min: number, max: number): Uint8Array {
    const before = this.#offset;
    const length = this.varint(field);
    this.#checkBounds(field, length, min, max, this.#offset - before);
    return this.bytes(field, length);
  }

  /** Everything that is left. */
  rest(field: string): Uint8Array {
    return this.bytes(field, this.remaining);
  }

  /** The received bytes from `start` (an earlier {@link offset}) up to here. */
  since(start: number): Uint8Array {
    if (start < 0 || start > this.#offset) throw new RangeError("start is not an earlier offset");
    return this.#bytes.subarray(start, this.#offset);
  }

  /** Refuses left-over bytes: the last call of every `parseX`. @throws `WIRE_TRAILING_BYTES` */
  end(): void {
    if (this.remaining > 0) {
      this.fail("WIRE_TRAILING_BYTES", "end", `${this.remaining} bytes are left over`);
    }
  }

  /** Raises an error that names this structure, the field and the offset. */
  fail(code: ErrorCode, field: string, message: string, offsetDelta = 0): never {
    const wire = { structure: this.#structure, field, offset: this.#offset + offsetDelta };
    throw new StileError(code, `${this.#structure}.${field}: ${message}`, { wire });
  }

  #uint(field: string, width: 1 | 2 | 4): number {
    let value = 0;
    for (const byte of this.bytes(field, width)) value = value * 256 + byte;
    return value;
  }

  #uintLe(field: string, width: 2 | 4): number {
    return this.bytes(field, width).reduceRight((value, byte) => value * 256 + byte, 0);
  }

  #vector(field: string, width: 1 | 2, min: number, max: number): Uint8Array {
    const length = this.#uint(field, width);
    this.#checkBounds(field, length, min, max, width);
    return this.bytes(field, length);
  }

  #checkBounds(field: string, value: number, min: number, max: number, width: number): void {
    if (value < min || value > max) {
      const message = `expected a length of ${min} to ${max}, got ${value}`;
      this.fail("WIRE_LENGTH_OUT_OF_BOUNDS", field, message, -width);
    }
  }
}
