/**
 * Writes big-endian structures. Its input is the caller's own, so a value that does not fit is a
 * `RangeError`. It mirrors {@link Reader}: what one writes the other reads.
 */
export class Writer {
  readonly #parts: Uint8Array[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  bytes(value: Uint8Array): this {
    this.#parts.push(value);
    this.#length += value.length;
    return this;
  }

  u8(value: number): this {
    return this.#uint(value, 1);
  }

  u16(value: number): this {
    return this.#uint(value, 2);
  }

  u32(value: number): this {
    return this.#uint(value, 4);
  }

  u64(value: bigint): this {
    if (value < 0n || value > 0xffff_ffff_ffff_ffffn) throw new RangeError("value exceeds 64 bits");
    const out = new Uint8Array(8);
    for (let i = 7, rest = value; i >= 0; i -= 1, rest >>= 8n) out[i] = Number(rest & 0xffn);
    return this.bytes(out);
  }

  /** A byte string behind an 8-bit length. */
  vec8(value: Uint8Array): this {
    return this.#uint(value.length, 1).bytes(value);
  }

  /** A byte string behind a 16-bit length. */
  vec16(value: Uint8Array): this {
    return this.#uint(value.length, 2).bytes(value);
  }

  /** A byte string behind a little-endian 32-bit length. */
  vec32le(value: Uint8Array): this {
    const length = new Writer().u32(value.length).finish().toReversed();
    return this.bytes(length).bytes(value);
  }

  /** A variable-length integer (RFC 9000 §16) in its shortest form. */
  varint(value: number): this {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError("value is no safe integer");
    if (value < 0x40) return this.u8(value);
    if (value < 0x4000) return this.u16(value + 0x4000);
    if (value < 0x4000_0000) return this.u32(value + 0x8000_0000);
    return this.u64(BigInt(value) + 0xc000_0000_0000_0000n);
  }

  /** A byte string behind a {@link varint} length. */
  vecVarint(value: Uint8Array): this {
    return this.varint(value.length).bytes(value);
  }

  /** All that was written, in fresh memory. */
  finish(): Uint8Array<ArrayBuffer> {
    return concatBytes(this.#parts);
  }

  #uint(value: number, width: 1 | 2 | 4): this {
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * width)) {
      throw new RangeError(`value does not fit ${width} bytes`);
    }
    const out = new Uint8Array(width);
    for (let i = width - 1, rest = value; i >= 0; i -= 1, rest = Math.floor(rest / 256)) {
      out[i] = rest % 256;
    }
    return this.bytes(out);
  }
}

/** One byte string of several, in fresh memory. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}
