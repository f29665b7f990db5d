/** Structured fields: examples of RFC 9651, what is refused of each kind, and seeded rubbish. */
import { describe, expect, it } from "vitest";
import {
  parseDictionary,
  parseItem,
  writeMember,
} from "../../../service/edge/signatures/structured-fields.ts";
import { isStileError } from "../../../wire/index.ts";
import { codeOf } from "../../support/reject.ts";

const write = (text: string): string =>
  [...parseDictionary(text)].map(([key, member]) => `${key}=${writeMember(member)}`).join(", ");

describe("a dictionary", () => {
  it.each([
    // RFC 9651 §3.2.
    ['en="Applepie", da=:w4ZibGV0w6ZydGU=:', 'en="Applepie", da=:w4ZibGV0w6ZydGU=:'],
    ["a=?0, b, c; foo=bar", "a=?0, b=?1, c=?1;foo=bar"],
    ["rating=1.5, feelings=(joy sadness)", "rating=1.5, feelings=(joy sadness)"],
    ["a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid", "a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid"],
    // §3.1.1, §3.3.
    [
      'a=("foo"; a=1;b=2);lvl=5, b=("bar" "baz");lvl=1',
      'a=("foo";a=1;b=2);lvl=5, b=("bar" "baz");lvl=1',
    ],
    ["a=(  1   2 ),b=-42\t,\tc=4.50", "a=(1 2), b=-42, c=4.5"],
    ['a="q\\"\\\\", *k-1.b_=a:b/c', 'a="q\\"\\\\", *k-1.b_=a:b/c'],
    ["a=1.0", "a=1.0"],
    ["", ""],
  ])("%j is read and written as %j", (text, written) => {
    expect(write(text)).toBe(written);
    expect(write(written)).toBe(written);
  });

  it.each([
    "A=1",
    "a=",
    "a=1,",
    "a=1 b=2",
    "a=1,,b=2",
    "a=1, a=2",
    "a=(1 2",
    "a=(1,2)",
    "a=(1)(2)",
    'a=("x""y")',
    "a=((1))",
    'a="x',
    'a="\\x"',
    'a="\u00e9"',
    'a="\n"',
    "a=1.",
    "a=1.2345",
    "a=1234567890123456",
    "a=1234567890123.1",
    "a=--1",
    "a=:x:",
    "a=:AB==:",
    "a=:AAAA",
    "a=:AA AA:",
    "a=?2",
    "a=@1",
    'a=%"x"',
    "a;b;b",
    "a;B",
    "=1",
    "\ta=1",
    `a=(${"1 ".repeat(33)})`,
    Array.from({ length: 9 }, (_, i) => `a${i}`).join(","),
    `a${Array.from({ length: 17 }, (_, i) => `;b${i}`).join("")}`,
    `a="${"x".repeat(8_200)}"`,
  ])("rejects %j", (text) => {
    expect(codeOf(() => parseDictionary(text))).toBe("SERVICE_SIGNATURE_MALFORMED");
  });

  it("is what it was when it is written and read again, or a refusal of ours, for seeded rubbish", () => {
    const parts = [
      '"',
      "(",
      ")",
      ";",
      "=",
      ",",
      " ",
      ":",
      "?1",
      "a",
      "b",
      "1",
      ".",
      "-",
      "\\",
      "AA==",
      "*",
      "\t",
    ];
    let seed = 9_421;
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    let accepted = 0;
    for (let i = 0; i < 30_000; i += 1) {
      let text = next(2) === 0 ? "a=" : "";
      for (let n = next(12); n >= 0; n -= 1) text += parts[next(parts.length)] ?? "";
      let written: string;
      try {
        written = write(text);
      } catch (error) {
        expect(isStileError(error, "SERVICE_SIGNATURE_MALFORMED"), text).toBe(true);
        continue;
      }
      accepted += 1;
      expect(write(written), text).toBe(written);
    }
    expect(accepted).toBeGreaterThan(500);
  });
});

describe("an item", () => {
  it("has nothing behind it but spaces", () => {
    expect(writeMember(parseItem(' "a";b=1 '))).toBe('"a";b=1');
    for (const text of ['"a", "b"', "", "(1)", '"a" b']) {
      expect(codeOf(() => parseItem(text))).toBe("SERVICE_SIGNATURE_MALFORMED");
    }
  });
});
