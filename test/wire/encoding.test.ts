import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  constantTimeEqual,
  decodeBase64Url,
  decodeHex,
  decodeUtf8,
  encodeBase64Url,
  encodeHex,
} from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";

const anyBytes = fc.uint8Array({ maxLength: 80 });

describe("hex", () => {
  it("agrees with Node", () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        expect(encodeHex(bytes)).toBe(Buffer.from(bytes).toString("hex"));
        expect(decodeHex(encodeHex(bytes))).toEqual(bytes);
      }),
    );
  });

  it("rejects odd lengths and other letters", () => {
    for (const text of ["a", "0g", "0x00", " 00", "00\n"]) {
      expect(codeOf(() => decodeHex(text))).toBe("WIRE_BAD_ENCODING");
    }
  });
});

describe("base64url", () => {
  it("agrees with Node", () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const text = Buffer.from(bytes).toString("base64url");
        expect(encodeBase64Url(bytes)).toBe(text);
        const padded = text.padEnd(Math.ceil(text.length / 4) * 4, "=");
        expect(encodeBase64Url(bytes, "padded")).toBe(padded);
        expect(decodeBase64Url(text)).toEqual(bytes);
        expect(decodeBase64Url(padded)).toEqual(bytes);
      }),
    );
  });

  it("accepts one spelling per value, padding aside", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), (text) => {
        try {
          const bytes = decodeBase64Url(text);
          expect([encodeBase64Url(bytes), encodeBase64Url(bytes, "padded")]).toContain(text);
        } catch (error) {
          expect(error).toMatchObject({ code: "WIRE_BAD_ENCODING" });
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("rejects other alphabets, white space, wrong padding and left-over bits", () => {
    for (const text of [
      "a",
      "ab+/",
      "ab c",
      "AA=",
      "AAA==",
      "A===",
      "AB==",
      "AAB=",
      "AA\n",
      "Ā000",
    ]) {
      expect(
        codeOf(() => decodeBase64Url(text)),
        text,
      ).toBe("WIRE_BAD_ENCODING");
    }
  });
});

describe("UTF-8", () => {
  it("rejects malformed input and keeps a byte order mark", () => {
    expect(codeOf(() => decodeUtf8(Uint8Array.of(0xc0, 0x80)))).toBe("WIRE_BAD_ENCODING");
    expect(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61))).toBe("\uFEFFa");
  });
});

describe("constantTimeEqual", () => {
  it("is equality of bytes", () => {
    fc.assert(
      fc.property(anyBytes, anyBytes, (a, b) => {
        expect(constantTimeEqual(a, b)).toBe(Buffer.compare(a, b) === 0);
        expect(constantTimeEqual(a, Uint8Array.from(a))).toBe(true);
      }),
    );
    expect(constantTimeEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 3))).toBe(false);
  });
});
