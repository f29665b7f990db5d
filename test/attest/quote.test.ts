/** Quotes of real TPMs, and each refusal of the verifier, with an AK that openssl's engine plays. */
import { generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import {
  checkAkPublic,
  computeName,
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  encodeTpmtSignature,
  hashRow,
  parseTpm2bPublic,
  parseTpmtPublic,
  type QuoteCheck,
  type TpmtPublic,
  verifyCertify,
  verifyQuote,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { concatBytes, Writer } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { readSharedJson, sharedMissing } from "../support/shared.ts";

const crypto = createNodeAttestCrypto();
const SHA256 = hashRow(0x000b)!;
const base64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));

interface WindowsDump {
  AK: { Public: string };
  Quote: { Quote: string; Signature: string };
  Log: { PCRs: { Index: number; Digest: string; DigestAlg: number }[] };
}

describe.skipIf(sharedMissing)("a quote of a Windows machine (TPM 2.0, RSASSA with SHA-1)", () => {
  const load = (): { check: QuoteCheck; ak: TpmtPublic } => {
    const dump = readSharedJson("corpora/eventlogs/windows_gcp_shielded_vm.json") as WindowsDump;
    const ak = parseTpmtPublic(base64(dump.AK.Public));
    const pcrs = Array.from({ length: 24 }, (_, pcr) => pcr);
    const pcrValues = pcrs.map((pcr) => ({
      hash: "sha1" as const,
      pcr,
      value: base64(dump.Log.PCRs.find(({ Index }) => Index === pcr)?.Digest ?? ""),
    }));
    const quote = { attest: base64(dump.Quote.Quote), signature: base64(dump.Quote.Signature) };
    const pcrSelection = encodeTpmlPcrSelection([{ hash: "sha1", pcrs }]);
    return {
      ak,
      check: { ak, quote, extraData: new Uint8Array(), pcrSelection, pcrValues, crypto },
    };
  };

  it("D12, B2: refuses it by default, and verifies it where SHA-1 is allowed by name", async () => {
    const { ak, check } = load();
    expect(codeOf(() => checkAkPublic(ak, { allowSha1: false }))).toBe(
      "ATTEST_ALGORITHM_NOT_ALLOWED",
    );
    checkAkPublic(ak, { allowSha1: true });
    const quote = await verifyQuote(check);
    expect(quote.clockInfo).toMatchObject({ safe: true });
    expect(quote.pcrValues).toHaveLength(24);
  });

  it("D1: refuses the same quote with any one byte changed", async () => {
    const { check } = load();
    const parts = { attest: check.quote.attest, signature: check.quote.signature };
    for (const part of ["attest", "signature"] as const) {
      for (let i = 0; i < parts[part].length; i += 1) {
        const changed = Uint8Array.from(parts[part]);
        changed[i] = (changed[i] ?? 0) ^ 1;
        const code = await codeOfAsync(() =>
          verifyQuote({ ...check, quote: { ...check.quote, [part]: changed } }),
        );
        expect(code, `${part}[${i}]`).toMatch(/^(ATTEST_SIGNATURE_INVALID|WIRE_\w+)$/);
      }
    }
  });

  it("D6: refuses one changed PCR value", async () => {
    const { check } = load();
    const pcrValues = check.pcrValues.map((value) => ({
      ...value,
      value: Uint8Array.from(value.value),
    }));
    pcrValues[7]!.value[0]! ^= 1;
    expect(await codeOfAsync(() => verifyQuote({ ...check, pcrValues }))).toBe(
      "ATTEST_PCR_DIGEST_MISMATCH",
    );
  });
});

describe("refusals, in their order", () => {
  let ak: TpmtPublic;
  let privateKey: KeyObject;
  const pcrSelection = encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [0, 7] }]);
  const pcrValues = [0, 7].map((pcr) => ({
    hash: "sha256" as const,
    pcr,
    value: new Uint8Array(32).fill(pcr),
  }));
  const digest = crypto.hash("sha256", concatBytes(pcrValues.map(({ value }) => value)));
  const extraData = new Uint8Array(32).fill(0xaa);

  beforeAll(() => {
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    privateKey = pair.privateKey;
    const jwk = pair.publicKey.export({ format: "jwk" });
    const bytes = (text: string | undefined): Uint8Array =>
      new Uint8Array(Buffer.from(text ?? "", "base64url"));
    ak = parseTpm2bPublic(encodeTpm2bPublic(ecdsaArea(0x0005_0072, bytes(jwk.x), bytes(jwk.y))));
  });

  const attest = (
    over: Partial<Record<"magic" | "type", number>> = {},
    body?: Uint8Array,
  ): Uint8Array =>
    new Writer()
      .u32(over.magic ?? 0xff544347)
      .u16(over.type ?? 0x8018)
      .vec16(new Uint8Array(34))
      .vec16(extraData)
      .u64(1n)
      .u32(2)
      .u32(3)
      .u8(1)
      .u64(4n)
      .bytes(body ?? new Writer().bytes(pcrSelection).vec16(digest).finish())
      .finish();

  const signed = (bytes: Uint8Array): { attest: Uint8Array; signature: Uint8Array } => {
    const raw = sign("sha256", bytes, { key: privateKey, dsaEncoding: "ieee-p1363" });
    const [signatureR, signatureS] = [raw.subarray(0, 32), raw.subarray(32)];
    const signature = encodeTpmtSignature({ sigAlg: 0x0018, hash: SHA256, signatureR, signatureS });
    return { attest: bytes, signature };
  };

  const codeFor = (over: Partial<QuoteCheck>): Promise<string> =>
    codeOfAsync(() =>
      verifyQuote({
        ak,
        quote: signed(attest()),
        extraData,
        pcrSelection,
        pcrValues,
        crypto,
        ...over,
      }),
    );

  it("verifies the quote that the others differ from", async () => {
    expect(await codeFor({})).toBe("nothing was thrown");
  });

  it("D1: refuses a signature before it reads anything inside", async () => {
    const wrong = { ...signed(attest({ magic: 0 })), attest: attest({ magic: 1 }) };
    expect(await codeFor({ quote: wrong })).toBe("ATTEST_SIGNATURE_INVALID");
  });

  it("D1: refuses a signature whose header names another scheme or hash than the AK's", async () => {
    const { attest: bytes, signature } = signed(attest());
    const other = Uint8Array.from(signature);
    other[3] = 0x0c; // SHA-384
    expect(await codeFor({ quote: { attest: bytes, signature: other } })).toBe(
      "ATTEST_SIGNATURE_INVALID",
    );
  });

  it("D2, D10: refuses another magic, another type, left-over bytes", async () => {
    expect(await codeFor({ quote: signed(attest({ magic: 0xff544348 })) })).toBe(
      "ATTEST_MAGIC_MISMATCH",
    );
    expect(await codeFor({ quote: signed(attest({ type: 0x8017 })) })).toBe("ATTEST_TYPE_MISMATCH");
    const longer = concatBytes([attest(), Uint8Array.of(0)]);
    expect(await codeFor({ quote: signed(longer) })).toBe("WIRE_TRAILING_BYTES");
  });

  it("D3: refuses other extraData, also a prefix of it", async () => {
    expect(await codeFor({ extraData: extraData.subarray(0, 31) })).toBe("ATTEST_NONCE_MISMATCH");
    expect(await codeFor({ extraData: new Uint8Array(32) })).toBe("ATTEST_NONCE_MISMATCH");
  });

  it("D5: refuses another selection than was asked for, and values that are not it", async () => {
    const wider = encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [0, 1, 7] }]);
    expect(await codeFor({ pcrSelection: wider })).toBe("ATTEST_PCR_SELECTION_MISMATCH");
    for (const values of [
      pcrValues.slice(1),
      [...pcrValues, pcrValues[1]!],
      pcrValues.toReversed(),
      [pcrValues[0]!, { ...pcrValues[1]!, value: new Uint8Array(31) }],
      [pcrValues[0]!, { ...pcrValues[1]!, hash: "sha384" as const }],
    ]) {
      expect(await codeFor({ pcrValues: values })).toBe("ATTEST_PCR_SELECTION_MISMATCH");
    }
  });

  it("D6: refuses values that do not hash to the digest", async () => {
    const values = [pcrValues[0]!, { ...pcrValues[1]!, value: new Uint8Array(32).fill(9) }];
    expect(await codeFor({ pcrValues: values })).toBe("ATTEST_PCR_DIGEST_MISMATCH");
  });

  it("D7: refuses a safe byte that is neither yes nor no", async () => {
    const bytes = attest();
    bytes[4 + 2 + 36 + 34 + 16] = 2;
    expect(await codeFor({ quote: signed(bytes) })).toBe("WIRE_VALUE_NOT_ALLOWED");
  });

  it("D9, D3, D2: refuses a certification of another Name, of other extraData, and a quote in its place", async () => {
    const name = computeName(ak, crypto);
    const body = new Writer().vec16(name).vec16(name).finish();
    const certify = signed(attest({ type: 0x8017 }, body));
    const base = { ak, certify, extraData, certified: ak, crypto };
    expect(await codeOfAsync(() => verifyCertify(base))).toBe("nothing was thrown");
    const x = new Uint8Array(32).fill(1);
    const other = parseTpm2bPublic(encodeTpm2bPublic(ecdsaArea(0x0004_0072, x, x)));
    expect(await codeOfAsync(() => verifyCertify({ ...base, certified: other }))).toBe(
      "ATTEST_NAME_MISMATCH",
    );
    const nonce = new Uint8Array(32);
    expect(await codeOfAsync(() => verifyCertify({ ...base, extraData: nonce }))).toBe(
      "ATTEST_NONCE_MISMATCH",
    );
    const quote = signed(attest());
    expect(await codeOfAsync(() => verifyCertify({ ...base, certify: quote }))).toBe(
      "ATTEST_TYPE_MISMATCH",
    );
  });
});

function ecdsaArea(objectAttributes: number, x: Uint8Array, y: Uint8Array) {
  return {
    type: 0x0023 as const,
    nameAlg: SHA256,
    objectAttributes,
    authPolicy: new Uint8Array(),
    symmetric: undefined,
    scheme: { scheme: 0x0018, hashAlg: SHA256 },
    curve: { curveId: 3, name: "P-256" as const, coordinateBytes: 32 },
    unique: { x, y },
  };
}
