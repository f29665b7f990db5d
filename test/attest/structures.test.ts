/** Properties that every TPM structure of the chain has, whatever its content. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  encodeTpmtPublic,
  encodeTpmtSignature,
  parseTpm2bPublic,
  parseTpmlPcrSelection,
  parseTpmsAttestCertify,
  parseTpmsAttestQuote,
  parseTpmtPublic,
  parseTpmtSignature,
  TPM_ALG_AES,
  TPM_ALG_CFB,
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSA,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
  type TpmtPublicFields,
} from "../../attest/index.ts";
import { CURVE_ROWS, HASH_ROWS } from "../../attest/structures/constants.ts";
import { isStileError, Writer } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";

const bytes = (min: number, max = min): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: min, maxLength: max });
const hash = fc.constantFrom(...HASH_ROWS);
const symmetric = fc.option(
  fc.constantFrom(128, 192, 256).map((keyBits) => ({
    algorithm: TPM_ALG_AES as typeof TPM_ALG_AES,
    keyBits: keyBits as 128,
    mode: TPM_ALG_CFB as typeof TPM_ALG_CFB,
  })),
  { nil: undefined },
);
const common = {
  nameAlg: hash,
  objectAttributes: fc.nat(0xffff_ffff),
  authPolicy: bytes(0, 64),
  symmetric,
};
const scheme = (...schemes: number[]): fc.Arbitrary<TpmtPublicFields["scheme"]> =>
  fc.option(fc.record({ scheme: fc.constantFrom(...schemes), hashAlg: hash }), { nil: undefined });

const publicArea: fc.Arbitrary<TpmtPublicFields> = fc.oneof(
  fc.record({
    ...common,
    type: fc.constant<typeof TPM_ALG_RSA>(TPM_ALG_RSA),
    scheme: scheme(TPM_ALG_RSASSA, TPM_ALG_RSAPSS),
    keyBits: fc.constantFrom(1_024, 2_048, 3_072, 4_096),
    exponent: fc.nat(0xffff_ffff),
    unique: bytes(0, 512),
  }),
  fc.constantFrom(...CURVE_ROWS).chain((curve) =>
    fc.record({
      ...common,
      type: fc.constant<typeof TPM_ALG_ECC>(TPM_ALG_ECC),
      scheme: scheme(TPM_ALG_ECDSA),
      curve: fc.constant(curve),
      unique: fc.record({
        x: bytes(0, curve.coordinateBytes),
        y: bytes(0, curve.coordinateBytes),
      }),
    }),
  ),
);

const selection = fc.uniqueArray(
  fc.record({
    hash: hash.map(({ name }) => name),
    pcrs: fc
      .uniqueArray(fc.nat(23), { minLength: 1, maxLength: 24 })
      .map((pcrs) => pcrs.toSorted((a, b) => a - b)),
  }),
  { minLength: 1, maxLength: 4, selector: (bank) => bank.hash },
);

const signature = fc.oneof(
  fc.record({
    sigAlg: fc.constantFrom(TPM_ALG_RSASSA, TPM_ALG_RSAPSS),
    hash,
    sig: bytes(1, 512),
  }),
  fc.record({
    sigAlg: fc.constant(TPM_ALG_ECDSA),
    hash,
    signatureR: bytes(1, 48),
    signatureS: bytes(1, 48),
  }),
);

const attestHead = fc
  .record({ signer: bytes(0, 66), extra: bytes(0, 66), safe: fc.nat(1), rest: bytes(16 + 8) })
  .map(
    ({ signer, extra, safe, rest }) =>
      (type: number, body: Uint8Array) =>
        new Writer()
          .u32(0xff544347)
          .u16(type)
          .vec16(signer)
          .vec16(extra)
          .bytes(rest.slice(0, 16))
          .u8(safe)
          .bytes(rest.slice(16))
          .bytes(body)
          .finish(),
  );
const quote = fc
  .tuple(attestHead, selection, bytes(1, 64))
  .map(([head, banks, digest]) =>
    head(0x8018, new Writer().bytes(encodeTpmlPcrSelection(banks)).vec16(digest).finish()),
  );
const certify = fc
  .tuple(attestHead, bytes(1, 66), bytes(1, 66))
  .map(([head, name, qualified]) =>
    head(0x8017, new Writer().vec16(name).vec16(qualified).finish()),
  );

interface Structure {
  readonly name: string;
  readonly good: fc.Arbitrary<Uint8Array>;
  readonly parse: (input: Uint8Array) => unknown;
  /** The bytes again, where an encoder exists; else the raw bytes that were kept. */
  readonly again: (input: Uint8Array) => Uint8Array;
}

const structures: readonly Structure[] = [
  {
    name: "TPMT_PUBLIC",
    good: publicArea.map(encodeTpmtPublic),
    parse: parseTpmtPublic,
    again: (input) => encodeTpmtPublic(parseTpmtPublic(input)),
  },
  {
    name: "TPM2B_PUBLIC",
    good: publicArea.map((fields) => encodeTpm2bPublic(parseTpmtPublic(encodeTpmtPublic(fields)))),
    parse: parseTpm2bPublic,
    again: (input) => encodeTpm2bPublic(parseTpm2bPublic(input)),
  },
  {
    name: "TPML_PCR_SELECTION",
    good: selection.map(encodeTpmlPcrSelection),
    parse: parseTpmlPcrSelection,
    again: (input) =>
      encodeTpmlPcrSelection(
        parseTpmlPcrSelection(input).banks.map((bank) => ({
          hash: bank.hash.name,
          pcrs: bank.pcrs,
        })),
      ),
  },
  {
    name: "TPMT_SIGNATURE",
    good: signature.map((fields) =>
      encodeTpmtSignature(fields as Parameters<typeof encodeTpmtSignature>[0]),
    ),
    parse: parseTpmtSignature,
    again: (input) => encodeTpmtSignature(parseTpmtSignature(input)),
  },
  {
    name: "TPMS_ATTEST of a quote",
    good: quote,
    parse: parseTpmsAttestQuote,
    again: (input) => parseTpmsAttestQuote(input).raw,
  },
  {
    name: "TPMS_ATTEST of a certification",
    good: certify,
    parse: parseTpmsAttestCertify,
    again: (input) => parseTpmsAttestCertify(input).raw,
  },
];

/** Numbers out of a seed, so that a failure comes back. */
const property = (check: fc.IProperty<unknown>): void =>
  fc.assert(check as fc.IProperty<[unknown]>, { seed: 20_261_123, numRuns: 300 });

describe.each(structures)("$name", ({ good, parse, again }) => {
  it("G5: reads what is well formed and gives the same bytes again", () => {
    property(
      fc.property(good, (input) => {
        expect(again(input)).toStrictEqual(input);
      }),
    );
  });

  it("reads a view at an offset alike", () => {
    property(
      fc.property(good, fc.nat(9), (input, offset) => {
        const larger = new Uint8Array(input.length + offset + 7).fill(0xa5);
        larger.set(input, offset);
        const view = larger.subarray(offset, offset + input.length);
        expect(JSON.stringify(parse(view), bigints)).toBe(JSON.stringify(parse(input), bigints));
      }),
    );
  });

  it("D10, B5: rejects every truncation and any trailing byte", () => {
    const [sample] = fc.sample(good, { seed: 7, numRuns: 1 });
    if (sample === undefined) throw new Error("no sample");
    for (let length = 0; length < sample.length; length += 1) {
      expect(
        codeOf(() => parse(sample.slice(0, length))),
        `${length}`,
      ).toMatch(/^WIRE_|^ATTEST_/);
    }
    expect(codeOf(() => parse(Uint8Array.from([...sample, 0])))).toMatch(/^WIRE_/);
  });

  it("G3, G5: rejects random changes with our errors only, or gives the changed bytes again", () => {
    property(
      fc.property(
        good,
        fc.array(fc.record({ at: fc.nat(), to: fc.nat(255) }), { minLength: 1, maxLength: 4 }),
        (input, changes) => {
          const changed = Uint8Array.from(input);
          for (const { at, to } of changes) changed[at % changed.length] = to;
          let parsed: unknown;
          try {
            parsed = again(changed);
          } catch (error) {
            expect(isStileError(error), String(error)).toBe(true);
            return;
          }
          expect(parsed).toStrictEqual(changed);
        },
      ),
    );
  });

  it("rejects random bytes with our errors only", () => {
    property(
      fc.property(bytes(0, 200), (input) => {
        const code = codeOf(() => parse(input));
        expect(code).not.toContain("not a StileError");
      }),
    );
  });
});

function bigints(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

describe("caps", () => {
  it("E2, G3: rejects counts and sizes above their cap before it allocates", () => {
    const banks = new Writer().u32(0xffff_ffff).finish();
    expect(codeOf(() => parseTpmlPcrSelection(banks))).toBe("WIRE_LENGTH_OUT_OF_BOUNDS");
    const area = new Writer().u16(0xffff).bytes(new Uint8Array(0xffff)).finish();
    expect(codeOf(() => parseTpm2bPublic(area))).toBe("WIRE_LENGTH_OUT_OF_BOUNDS");
  });

  it("D5: rejects a bank that is selected twice, and a selection of nothing", () => {
    const bank = (alg: number, bits: number): Uint8Array =>
      new Writer()
        .u16(alg)
        .u8(3)
        .bytes(Uint8Array.of(bits, 0, 0))
        .finish();
    const twice = new Writer().u32(2).bytes(bank(0x0b, 1)).bytes(bank(0x0b, 2)).finish();
    expect(codeOf(() => parseTpmlPcrSelection(twice))).toMatch(/^WIRE_|^ATTEST_/);
    expect(codeOf(() => parseTpmlPcrSelection(new Writer().u32(0).finish()))).toMatch(/^WIRE_/);
  });
});
