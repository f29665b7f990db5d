/** Hostile DER: every mutation of a chain is refused with a code of the verifier, in bounded time. */
import { generateKeyPairSync } from "node:crypto";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import {
  checkDer,
  children,
  parseDer,
  readBitString,
  readBoolean,
  readOid,
  readPositiveInteger,
  readSmallInteger,
  TAG,
} from "../../attest/ek/der.ts";
import {
  parseTrustedRoots,
  type TrustedRoots,
  verifyEkCertificate,
} from "../../attest/ek/index.ts";
import { createOddityRows } from "../../attest/ek/oddities.ts";
import { readTime } from "../../attest/ek/time.ts";
import { createManufacturerCa, type ManufacturerCa } from "../../swtpm/index.ts";
import { concatBytes, constantTimeEqual, decodeHex, encodeUtf8 } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { respelledEcdsa } from "./support/respelled-ecdsa.ts";

const AT_MS = Date.UTC(2026, 0, 1);
const INVALID = "ATTEST_EK_CERTIFICATE_INVALID";
const CODES: ReadonlySet<string> = new Set([
  INVALID,
  "ATTEST_EK_CHAIN_UNTRUSTED",
  "ATTEST_EK_CERTIFICATE_EXPIRED",
  "ATTEST_EK_KEY_MISMATCH",
  "ATTEST_ALGORITHM_NOT_ALLOWED",
]);

let leaf: Uint8Array;
let intermediate: Uint8Array;
let ca: ManufacturerCa;
let roots: TrustedRoots;
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey;
const ekPublicKeySpki = new Uint8Array(key.export({ type: "spki", format: "der" }));

beforeAll(async () => {
  ca = await createManufacturerCa({ clock: () => AT_MS });
  leaf = await ca.issueEkCertificate(ekPublicKeySpki, "ecc");
  intermediate = ca.intermediate;
  roots = await parseTrustedRoots(ca.rootPem);
});

function judge(certificates: readonly Uint8Array[]): Promise<string> {
  return codeOfAsync(() =>
    verifyEkCertificate({ certificates, ekPublicKeySpki, ekKeyType: "ecc", roots, atMs: AT_MS }),
  );
}

interface Edit {
  readonly at: number;
  readonly remove: number;
  readonly insert: Uint8Array;
}

const edits = fc.array(
  fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    remove: fc.integer({ min: 0, max: 4 }),
    insert: fc.uint8Array({ maxLength: 4 }),
  }),
  { minLength: 1, maxLength: 3 },
);

function mutate(bytes: Uint8Array, list: readonly Edit[]): Uint8Array {
  let result = bytes;
  for (const { at, remove, insert } of list) {
    const start = Math.floor(at * result.length);
    result = concatBytes([result.subarray(0, start), insert, result.subarray(start + remove)]);
  }
  return result;
}

describe("mutated chains", () => {
  it("A2, G3: refuses every mutation of the EK certificate and of its issuer", async () => {
    await fc.assert(
      fc.asyncProperty(edits, fc.boolean(), async (list, ofLeaf) => {
        const changed = mutate(ofLeaf ? leaf : intermediate, list);
        fc.pre(!constantTimeEqual(changed, ofLeaf ? leaf : intermediate));
        const code = await judge(ofLeaf ? [changed, intermediate] : [leaf, changed]);
        expect(CODES).toContain(code);
      }),
      { numRuns: 1500, seed: 20_261_123 },
    );
  });

  it("A2, G5: refuses a certificate whose signature is spelt another way", async () => {
    let seen = 0;
    for (let attempt = 0; attempt < 64 && seen < 3; attempt += 1) {
      const certificate = await ca.issueEkCertificate(ekPublicKeySpki, "ecc");
      const respelled = respelledEcdsa(certificate);
      if (respelled === undefined) continue;
      expect(await judge([certificate, intermediate])).toBe("nothing was thrown");
      expect(await judge([respelled, intermediate])).toBe("ATTEST_EK_CHAIN_UNTRUSTED");
      seen += 1;
    }
    expect(seen).toBe(3);
  });

  it("A2: refuses every replaced byte of both certificates", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        fc.boolean(),
        async (at, mask, ofLeaf) => {
          const changed = Uint8Array.from(ofLeaf ? leaf : intermediate);
          const index = at % changed.length;
          changed[index] = (changed[index] ?? 0) ^ mask;
          const code = await judge(ofLeaf ? [changed, intermediate] : [leaf, changed]);
          expect(CODES).toContain(code);
        },
      ),
      { numRuns: 1500, seed: 20_261_124 },
    );
  });

  it("G3: refuses random bytes, nests of SEQUENCE and long lists", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), async (bytes) => {
        expect(await judge([bytes])).toBe(INVALID);
      }),
      { numRuns: 300, seed: 20_261_125 },
    );
    let nest: Uint8Array = Uint8Array.of(0x05, 0x00);
    while (nest.length < 8000) nest = sequence(nest);
    expect(await judge([nest])).toBe(INVALID);
    const nulls = new Uint8Array(8000).fill(0x05);
    for (let index = 1; index < nulls.length; index += 2) nulls[index] = 0;
    expect(await judge([sequence(nulls)])).toBe(INVALID);
  });

  it("the unchanged chain verifies", async () => {
    expect(await judge([leaf, intermediate])).toBe("nothing was thrown");
  });
});

function sequence(content: Uint8Array): Uint8Array {
  const { length } = content;
  const header =
    length < 0x80
      ? [0x30, length]
      : length < 0x100
        ? [0x30, 0x81, length]
        : [0x30, 0x82, length >> 8, length & 0xff];
  return concatBytes([Uint8Array.from(header), content]);
}

describe("strict DER", () => {
  it.each([
    ["nothing", ""],
    ["a tag alone", "30"],
    ["an indefinite length", "30800000"],
    ["a length with a leading zero", "30820002" + "0500"],
    ["a long form that is not needed", "30810205" + "00"],
    ["a length past the end", "300305"],
    ["a length of four bytes", "3084000000020500"],
    ["a tag in several bytes", "30031f0100"],
    ["left-over bytes", "300005"],
    ["another tag", "3100"],
    ["a child past its parent", "30030503aa"],
    ["a set out of order", "30083106020102020101"],
    ["a boolean of 1", "3003010101"],
    ["a boolean of two bytes", "30040102ffff"],
    ["an empty integer", "30020200"],
    ["an integer with a needless zero", "300402020001"],
    ["an integer with needless ones", "30040202ff80"],
    ["a bit string without its count", "30020300"],
    ["a bit string with 8 unused bits", "300403020800"],
    ["a bit string with unused bits set", "300403020101"],
    ["an empty bit string with unused bits", "3003030101"],
  ])("rejects %s", (_name, text) => {
    expect(
      codeOf(() => checkDer(parseDer(decodeHex(text), TAG.SEQUENCE), createOddityRows([]))),
    ).toBe(INVALID);
  });

  it.each([
    ["a boolean in place of an integer", () => readSmallInteger(value("0101ff"))],
    ["an integer in place of a boolean", () => readBoolean(value("020101"))],
    ["a negative small integer", () => readSmallInteger(value("0201ff"))],
    ["an integer of five bytes", () => readSmallInteger(value("02050100000000"))],
    ["zero as a positive integer", () => readPositiveInteger(value("020100"))],
    ["minus one as a positive integer", () => readPositiveInteger(value("0201ff"))],
    ["an empty object identifier", () => readOid(value("0600"))],
    ["an object identifier that ends early", () => readOid(value("060281"))],
    ["an arc with a needless byte", () => readOid(value("06032a8001"))],
    ["an arc of 70 bits", () => readOid(value("060b2affffffffffffffffff7f"))],
    ["children of a primitive", () => children(value("020101"))],
  ])("rejects %s", (_name, read) => {
    expect(codeOf(read)).toBe(INVALID);
  });

  it("reads values and identifiers", () => {
    expect(readOid(value("06092a864886f70d01010b"))).toBe("1.2.840.113549.1.1.11");
    expect(readOid(value("0603551d13"))).toBe("2.5.29.19");
    expect(readOid(value("060567810508" + "01"))).toBe("2.23.133.8.1");
    expect(readSmallInteger(value("02027fff"))).toBe(32_767);
    expect(readBitString(value("03020520")).unusedBits).toBe(5);
  });
});

function value(hex: string): ReturnType<typeof parseDer> {
  const bytes = decodeHex(hex);
  return parseDer(bytes, bytes[0] ?? 0);
}

describe("validity times", () => {
  const time = (tag: number, text: string): number =>
    readTime({ tag, content: encodeUtf8(text), raw: new Uint8Array(0) });

  it("reads both forms, and the end that is not well-defined", () => {
    expect(time(TAG.UTC_TIME, "491231235959Z")).toBe(Date.UTC(2049, 11, 31, 23, 59, 59));
    expect(time(TAG.UTC_TIME, "500101000000Z")).toBe(Date.UTC(1950, 0, 1));
    expect(time(TAG.GENERALIZED_TIME, "99991231235959Z")).toBe(Date.UTC(9999, 11, 31, 23, 59, 59));
    expect(time(TAG.GENERALIZED_TIME, "20280229000000Z")).toBe(Date.UTC(2028, 1, 29));
  });

  it.each([
    [TAG.UTC_TIME, "4912312359Z"],
    [TAG.UTC_TIME, "491231235959+0100"],
    [TAG.UTC_TIME, "20491231235959Z"],
    [TAG.GENERALIZED_TIME, "20491231235959.5Z"],
    [TAG.GENERALIZED_TIME, "20490231000000Z"],
    [TAG.GENERALIZED_TIME, "20491331000000Z"],
    [TAG.GENERALIZED_TIME, "20490101240000Z"],
    [TAG.GENERALIZED_TIME, "00990101000000Z"],
    [TAG.GENERALIZED_TIME, "20490101000060Z"],
    [TAG.GENERALIZED_TIME, ""],
    [TAG.UTF8_STRING, "20490101000000Z"],
  ])("rejects %i %s", (tag, text) => {
    expect(codeOf(() => time(tag, text))).toBe(INVALID);
  });
});
