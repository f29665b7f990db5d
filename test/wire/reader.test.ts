import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isStileError, Reader, Writer } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));

describe("Reader", () => {
  it("reads big-endian integers", () => {
    const reader = new Reader(hex("01" + "0203" + "04050607" + "fffefdfcfbfaf9f8"), "Test");
    expect([reader.u8("a"), reader.u16("b"), reader.u32("c"), reader.u64("d")]).toEqual([
      1,
      0x0203,
      0x04050607,
      0xfffefdfcfbfaf9f8n,
    ]);
    reader.end();
  });

  it("reads little-endian integers, lengths and counts", () => {
    const reader = new Reader(hex("0302" + "07060504" + "f8f9fafbfcfdfeff" + "02000000"), "Test");
    expect([reader.u16le("b"), reader.u32le("c"), reader.u64le("d")]).toEqual([
      0x0203,
      0x04050607,
      0xfffefdfcfbfaf9f8n,
    ]);
    expect(reader.count32le("e", 2, 2)).toBe(2);
    reader.end();
    const bytes = new Writer().vec32le(hex("aabb")).finish();
    expect(bytes).toEqual(hex("02000000aabb"));
    expect(new Reader(bytes, "Test").vec32le("v", 0, 2)).toEqual(hex("aabb"));
    for (const [bad, code] of [
      ["03000000aabb", "WIRE_TOO_SHORT"],
      ["00000001aabb", "WIRE_LENGTH_OUT_OF_BOUNDS"],
      ["0200", "WIRE_TOO_SHORT"],
    ] as const) {
      expect(codeOf(() => new Reader(hex(bad), "Test").vec32le("v", 0, 16))).toBe(code);
    }
  });

  it("reads every little-endian integer as a DataView does", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 14, maxLength: 14 }), (bytes) => {
        const reader = new Reader(bytes, "Test");
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        expect(reader.u16le("a")).toBe(view.getUint16(0, true));
        expect(reader.u32le("b")).toBe(view.getUint32(2, true));
        expect(reader.u64le("c")).toBe(view.getBigUint64(6, true));
        reader.end();
      }),
      { seed: 20_261_123 },
    );
  });

  it("reads the varints of RFC 9000 appendix A.1", () => {
    const cases: [string, number][] = [
      ["9d7f3e7d", 494_878_333],
      ["7bbd", 15_293],
      ["25", 37],
    ];
    for (const [bytes, value] of cases) {
      expect(new Reader(hex(bytes), "Test").varint("v")).toBe(value);
      expect(Buffer.from(new Writer().varint(value).finish()).toString("hex")).toBe(bytes);
    }
    // 0xc2197c5eff14e88c is 151,288,809,941,952,652: over what a JavaScript integer holds exactly.
    expect(codeOf(() => new Reader(hex("c2197c5eff14e88c"), "Test").varint("v"))).toBe(
      "WIRE_BAD_ENCODING",
    );
  });

  it("rejects a varint that is longer than needed", () => {
    expect(codeOf(() => new Reader(hex("4025"), "Test").varint("v"))).toBe("WIRE_BAD_ENCODING");
  });

  it("rejects a field past the end and says where", () => {
    const reader = new Reader(hex("0001"), "TpmtPublic");
    reader.u8("type");
    try {
      reader.u16("nameAlg");
      expect.unreachable();
    } catch (error) {
      expect(isStileError(error, "WIRE_TOO_SHORT")).toBe(true);
      expect(isStileError(error) && error.wire).toEqual({
        structure: "TpmtPublic",
        field: "nameAlg",
        offset: 1,
      });
    }
  });

  it("rejects a vector outside its bounds, before and after its length", () => {
    expect(codeOf(() => new Reader(hex("00"), "Test").vec8("v", 1, 4))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
    expect(codeOf(() => new Reader(hex("0005aabbccddee"), "Test").vec16("v", 0, 4))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
    expect(codeOf(() => new Reader(hex("0004aabb"), "Test").vec16("v", 0, 4))).toBe(
      "WIRE_TOO_SHORT",
    );
    expect(codeOf(() => new Reader(hex("00000011"), "Test").count32("n", 0, 16))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
    expect(codeOf(() => new Reader(hex("05aa"), "Test").vecVarint("v", 0, 4))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
  });

  it("rejects trailing bytes", () => {
    expect(codeOf(() => new Reader(hex("00"), "Test").end())).toBe("WIRE_TRAILING_BYTES");
  });

  it("gives the received bytes of a part", () => {
    const reader = new Reader(hex("0011223344"), "Test");
    reader.u8("a");
    const start = reader.offset;
    reader.u16("b");
    expect(reader.since(start)).toEqual(hex("1122"));
    expect(() => reader.since(4)).toThrow(RangeError);
  });

  it("reads a view at an offset like a copy", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 3, maxLength: 64 }), fc.nat(16), (body, pad) => {
        const backing = new Uint8Array(pad + body.length + 7).fill(0xee);
        backing.set(body, pad);
        const view = backing.subarray(pad, pad + body.length);
        const read = (bytes: Uint8Array): unknown => {
          const reader = new Reader(bytes, "Test");
          return [reader.u8("a"), reader.u16("b"), Array.from(reader.rest("c"))];
        };
        expect(read(view)).toEqual(read(body));
      }),
    );
  });

  it("raises nothing but StileError on any input", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        const reader = new Reader(bytes, "Test");
        const code = codeOf(() => {
          reader.vec8("a", 0, 8);
          reader.vec16("b", 1, 8);
          reader.varint("c");
          reader.u64("d");
          reader.end();
        });
        expect(code).toMatch(/^WIRE_|^nothing/);
      }),
    );
  });

  it("is for bytes only", () => {
    expect(() => new Reader("00" as unknown as Uint8Array, "Test")).toThrow(TypeError);
  });
});

describe("Writer", () => {
  it("writes what Reader reads, and Reader accepts only that", () => {
    const record = fc.record({
      a: fc.nat(0xff),
      b: fc.nat(0xffff),
      c: fc.nat(0xffff_ffff),
      d: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
      e: fc.uint8Array({ maxLength: 255 }),
      f: fc.uint8Array({ maxLength: 300 }),
      g: fc.maxSafeNat(),
      h: fc.uint8Array({ maxLength: 70 }),
    });
    fc.assert(
      fc.property(record, (r) => {
        const writer = new Writer().u8(r.a).u16(r.b).u32(r.c).u64(r.d);
        const bytes = writer.vec8(r.e).vec16(r.f).varint(r.g).vecVarint(r.h).finish();
        expect(writer.length).toBe(bytes.length);
        const reader = new Reader(bytes, "Test");
        expect({
          a: reader.u8("a"),
          b: reader.u16("b"),
          c: reader.u32("c"),
          d: reader.u64("d"),
          e: Uint8Array.from(reader.vec8("e", 0, 255)),
          f: Uint8Array.from(reader.vec16("f", 0, 300)),
          g: reader.varint("g"),
          h: Uint8Array.from(reader.vecVarint("h", 0, 70)),
        }).toEqual(r);
        reader.end();
      }),
    );
  });

  it("refuses values that do not fit", () => {
    expect(() => new Writer().u8(256)).toThrow(RangeError);
    expect(() => new Writer().u16(-1)).toThrow(RangeError);
    expect(() => new Writer().u32(1.5)).toThrow(RangeError);
    expect(() => new Writer().u64(1n << 64n)).toThrow(RangeError);
    expect(() => new Writer().vec8(new Uint8Array(256))).toThrow(RangeError);
    expect(() => new Writer().varint(Number.MAX_SAFE_INTEGER + 1)).toThrow(RangeError);
  });
});
