/**
 * Differential test: what our codecs write, tpm2-tss reads and writes back byte for byte; and whatever
 * our parsers accept, tpm2-tss accepts as the same bytes. Ours may refuse more, never less.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { akTemplate, deviceKeyTemplate, ekTemplate } from "../../attest/agent/index.ts";
import {
  CURVE_ROWS,
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  encodeTpmtSignature,
  HASH_ROWS,
  parseTpm2bPublic,
  parseTpmlPcrSelection,
  parseTpmsAttestCertify,
  parseTpmsAttestQuote,
  parseTpmtSignature,
  TPM_ALG_AES,
  TPM_ALG_CFB,
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSA,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
  TPM_GENERATED_VALUE,
  TPM_ST_ATTEST_CERTIFY,
  TPM_ST_ATTEST_QUOTE,
  type TpmtPublicFields,
} from "../../attest/index.ts";
import { createMarshaller, loadTss, type MuType } from "../../attest/tss2/index.ts";
import { isStileError, Writer } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";

const SEED = 20_261_123;
const mu = createMarshaller(loadTss());
const throughTss = (type: MuType, bytes: Uint8Array): Uint8Array =>
  mu.marshal(type, mu.unmarshal(type, bytes));

const bytes = (minLength: number, maxLength = minLength): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength, maxLength });
const hash = fc.constantFrom(...HASH_ROWS);
const scheme = (...schemes: number[]) =>
  fc.option(fc.record({ scheme: fc.constantFrom(...schemes), hashAlg: hash }), { nil: undefined });
const symmetric = fc.option(
  fc.record({
    algorithm: fc.constant(TPM_ALG_AES),
    keyBits: fc.constantFrom(128 as const, 192 as const, 256 as const),
    mode: fc.constant(TPM_ALG_CFB),
  }),
  { nil: undefined },
);
const common = {
  nameAlg: hash,
  objectAttributes: fc.integer({ min: 0, max: 0xffff_ffff }),
  authPolicy: bytes(0, 64),
  symmetric,
};
const publicArea: fc.Arbitrary<TpmtPublicFields> = fc.oneof(
  fc.record({
    ...common,
    type: fc.constant(TPM_ALG_RSA),
    scheme: scheme(TPM_ALG_RSASSA, TPM_ALG_RSAPSS),
    keyBits: fc.constantFrom(1024, 2048, 3072, 4096),
    exponent: fc.integer({ min: 0, max: 0xffff_ffff }),
    unique: bytes(0, 512),
  }),
  fc.record({
    ...common,
    type: fc.constant(TPM_ALG_ECC),
    scheme: scheme(TPM_ALG_ECDSA),
    curve: fc.constantFrom(...CURVE_ROWS),
    unique: fc.record({ x: bytes(0, 32), y: bytes(0, 32) }),
  }),
);
const pcrSelection = fc
  .uniqueArray(
    fc.record({
      hash: fc.constantFrom(
        "sha1" as const,
        "sha256" as const,
        "sha384" as const,
        "sha512" as const,
      ),
      pcrs: fc.uniqueArray(fc.integer({ min: 0, max: 23 }), { minLength: 1 }),
    }),
    { minLength: 1, maxLength: 4, selector: (bank) => bank.hash },
  )
  .map((banks) => encodeTpmlPcrSelection(banks));
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
const attestHeader = (type: number) =>
  fc
    .record({
      signer: bytes(0, 66),
      extra: bytes(0, 66),
      clock: bytes(16),
      safe: fc.integer({ min: 0, max: 1 }),
      firmware: bytes(8),
    })
    .map((parts) =>
      new Writer()
        .u32(TPM_GENERATED_VALUE)
        .u16(type)
        .vec16(parts.signer)
        .vec16(parts.extra)
        .bytes(parts.clock)
        .u8(parts.safe)
        .bytes(parts.firmware)
        .finish(),
    );
const quoteAttest = fc
  .tuple(attestHeader(TPM_ST_ATTEST_QUOTE), pcrSelection, bytes(1, 64))
  .map(([header, selection, digest]) =>
    new Writer().bytes(header).bytes(selection).vec16(digest).finish(),
  );
const certifyAttest = fc
  .tuple(attestHeader(TPM_ST_ATTEST_CERTIFY), bytes(1, 66), bytes(1, 66))
  .map(([header, name, qualifiedName]) =>
    new Writer().bytes(header).vec16(name).vec16(qualifiedName).finish(),
  );

const rows: readonly [MuType, fc.Arbitrary<Uint8Array>, (bytes: Uint8Array) => unknown][] = [
  ["TPM2B_PUBLIC", publicArea.map((area) => encodeTpm2bPublic(area)), parseTpm2bPublic],
  ["TPML_PCR_SELECTION", pcrSelection, parseTpmlPcrSelection],
  ["TPMT_SIGNATURE", signature.map((value) => encodeTpmtSignature(value)), parseTpmtSignature],
  ["TPMS_ATTEST", quoteAttest, parseTpmsAttestQuote],
  ["TPMS_ATTEST", certifyAttest, parseTpmsAttestCertify],
];

describe("our codecs against Tss2_MU", () => {
  it.each(rows)("agree on every %s", (type, arbitrary, parse) => {
    const property = fc.property(arbitrary, (wire) => {
      expect(throughTss(type, wire)).toStrictEqual(new Uint8Array(wire));
      parse(wire);
    });
    fc.assert(property, { numRuns: 300, seed: SEED });
  });

  it.each(rows)(
    "never accept a changed %s that tpm2-tss does not read as the same bytes",
    (type, arbitrary, parse) => {
      let accepted = 0;
      let refused = 0;
      const change = fc.record({
        at: fc.double({ min: 0, max: 0.999, noNaN: true }),
        value: fc.integer({ min: 0, max: 255 }),
        cut: fc.boolean(),
      });
      const property = fc.property(arbitrary, change, (wire, { at, value, cut }) => {
        const index = Math.floor(at * wire.length);
        const changed = cut ? wire.subarray(0, index) : new Uint8Array(wire).with(index, value);
        try {
          parse(changed);
        } catch (error) {
          expect(isStileError(error)).toBe(true);
          refused += 1;
          return;
        }
        accepted += 1;
        expect(throughTss(type, changed)).toStrictEqual(new Uint8Array(changed));
      });
      fc.assert(property, { numRuns: 600, seed: SEED });
      expect(Math.min(accepted, refused)).toBeGreaterThan(20);
    },
  );

  it("agree on the templates of the device", () => {
    for (const template of [
      akTemplate(),
      deviceKeyTemplate(),
      ekTemplate("rsa"),
      ekTemplate("ecc"),
    ]) {
      expect(throughTss("TPM2B_PUBLIC", template)).toStrictEqual(template);
    }
    // TCG EK Credential Profile, Annex B.3.3 and B.3.4, byte for byte up to the unique field.
    const common =
      "000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa00060080004300100";
    expect(Buffer.from(ekTemplate("rsa")).toString("hex")).toBe(
      `013a0001${common}80000000000` + "0100" + "00".repeat(256),
    );
    expect(Buffer.from(ekTemplate("ecc")).toString("hex")).toBe(
      `007a0023${common}0030010` + `0020${"00".repeat(32)}`.repeat(2),
    );
  });

  it("reject left-over and missing bytes", () => {
    const wire = encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [1] }]);
    expect(codeOf(() => mu.unmarshal("TPML_PCR_SELECTION", Buffer.concat([wire, wire])))).toBe(
      "WIRE_TRAILING_BYTES",
    );
    expect(codeOf(() => mu.unmarshal("TPML_PCR_SELECTION", wire.subarray(0, 9)))).toBe(
      "ATTEST_TSS_FAILED",
    );
    expect(codeOf(() => mu.marshal("TPMT_SIGNATURE", new Uint8Array(8192).fill(0xff)))).toBe(
      "ATTEST_TSS_FAILED",
    );
  });
});
