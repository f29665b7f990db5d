/** Envoy's messages: those of a real one, and what must not be taken for one. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readCheckRequest } from "../../../service/edge/ext-authz/messages.ts";
import { concatBytes, isStileError } from "../../../wire/index.ts";
import { codeOf } from "../../support/reject.ts";
import { MAP_OF_HEADERS, RAW_HEADERS } from "./envoy-requests.ts";

const bytesOf = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, "base64"));
const field = (number: number, ...parts: readonly Uint8Array[]): Uint8Array => {
  const value = concatBytes(parts);
  const length =
    value.length < 128 ? [value.length] : [(value.length & 127) + 128, value.length >> 7];
  return concatBytes([Uint8Array.of(number * 8 + 2, ...length), value]);
};
const text = (number: number, value: string): Uint8Array => field(number, Buffer.from(value));
/** A CheckRequest around the fields of an HttpRequest. */
const check = (...http: readonly Uint8Array[]): Uint8Array => field(1, field(4, field(2, ...http)));
const raw = (...bytes: readonly number[]): Uint8Array => Uint8Array.from(bytes);

describe("a CheckRequest", () => {
  it.each([
    ["raw headers", RAW_HEADERS, "caf\u00e9"],
    ["a map of headers", MAP_OF_HEADERS, "caf!"],
  ])("of Envoy 1.40 with %s is read", (_what, base64, latin) => {
    const { headers, host, method, sourceAddress } = readCheckRequest(bytesOf(base64));
    expect({ host, method, sourceAddress }).toEqual({
      host: "localhost:27956",
      method: "GET",
      sourceAddress: "127.0.0.1",
    });
    expect(Object.fromEntries(headers)).toMatchObject({
      accept: "*/*",
      authorization: 'PrivateToken token="AAAA"',
      cookie: "a=1; __Host-stile=x",
      "x-real-ip": "203.0.113.5",
      "x-latin": latin,
    });
  });

  it("joins headers of one name, whatever their spelling", () => {
    const entry = (name: string, value: string): Uint8Array =>
      field(3, text(1, name), text(2, value));
    const { headers } = readCheckRequest(
      check(
        entry("Cookie", "a=1"),
        entry("cookie", "b=2"),
        entry("authorization", "x"),
        entry("AUTHORIZATION", "y"),
      ),
    );
    expect([...headers]).toEqual([
      ["cookie", "a=1; b=2"],
      ["authorization", "x, y"],
    ]);
  });

  it("is empty where it says nothing, and skips fields that are not known", () => {
    const unknown = concatBytes([
      raw(0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
      raw(0x79, 1, 2, 3, 4, 5, 6, 7, 8),
      raw(0x7d, 1, 2, 3, 4),
      text(15, "x"),
    ]);
    for (const bytes of [raw(), unknown, concatBytes([unknown, check(unknown, unknown)])]) {
      const { headers, host, method, sourceAddress } = readCheckRequest(bytes);
      expect([headers.size, host, method, sourceAddress]).toEqual([0, "", "", undefined]);
    }
  });

  it.each([
    ["the end of a varint is missing", raw(0x0a, 0x80), "WIRE_TOO_SHORT"],
    ["a length runs past the end", raw(0x0a, 5, 1), "WIRE_TOO_SHORT"],
    ["a length is longer than its shortest form", raw(0x0a, 0x80, 0x00), "WIRE_BAD_ENCODING"],
    ["a tag has more than 32 bits", raw(0xff, 0xff, 0xff, 0xff, 0x1f), "WIRE_BAD_ENCODING"],
    [
      "an integer has more than ten bytes",
      raw(0x78, ...Array<number>(11).fill(0x80)),
      "WIRE_BAD_ENCODING",
    ],
    ["a field has the number 0", raw(0x02, 0), "WIRE_VALUE_NOT_ALLOWED"],
    ["a group starts", raw(0x7b), "WIRE_VALUE_NOT_ALLOWED"],
    ["a message has the type of a number", raw(0x08, 1), "WIRE_VALUE_NOT_ALLOWED"],
    ["the attributes come twice", concatBytes([check(), check()]), "WIRE_VALUE_NOT_ALLOWED"],
    ["the host comes twice", check(text(5, "a"), text(5, "b")), "WIRE_VALUE_NOT_ALLOWED"],
    [
      "a header has two names",
      check(field(3, text(1, "a"), text(1, "b"))),
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    [
      "a value is not UTF-8",
      check(field(3, text(1, "a"), field(2, raw(0xff)))),
      "WIRE_BAD_ENCODING",
    ],
    [
      "there are too many headers",
      nested(Array.from({ length: 1_001 }, () => field(3, text(1, "a")))),
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    ],
  ])("is rejected where %s", (_what, bytes, code) => {
    expect(codeOf(() => readCheckRequest(bytes))).toBe(code);
  });

  it("is read or rejected by an error of ours, whatever becomes of its bytes", () => {
    const whole = bytesOf(RAW_HEADERS);
    const change = fc.record({
      at: fc.nat(whole.length - 1),
      to: fc.nat(255),
      cut: fc.nat(whole.length),
    });
    const outcomes = new Set<string>();
    fc.assert(
      fc.property(change, ({ at, cut, to }) => {
        const bytes = whole.slice(0, Math.max(cut, at + 1));
        bytes[at] = to;
        try {
          readCheckRequest(bytes);
          outcomes.add("read");
        } catch (error) {
          if (!isStileError(error)) throw error;
          outcomes.add(error.code);
        }
      }),
      { seed: 7, numRuns: 2_000 },
    );
    expect(outcomes.size).toBeGreaterThan(3);
  });
});

/** A CheckRequest around an HttpRequest of more than 127 bytes. */
function nested(http: readonly Uint8Array[]): Uint8Array {
  return [2, 4, 1].reduce<Uint8Array>((inner, number) => field(number, inner), concatBytes(http));
}
