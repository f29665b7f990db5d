/** What the public area of each role must look like: every attribute and algorithm changed, one by one. */
import { createECDH, generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  checkAkPublic,
  checkDeviceKeyPublic,
  checkEkPublic,
  encodeSpki,
  encodeTpmtPublic,
  parseTpmtPublic,
  TPM_ALG_AES,
  TPM_ALG_CFB,
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSA,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
  type TpmtPublic,
  type TpmtPublicFields,
} from "../../attest/index.ts";
import { curveRow, hashRow, TPM_ALG_ECDH } from "../../attest/structures/constants.ts";
import { decodeHex } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";

const SHA1 = hashRow(0x0004)!;
const SHA256 = hashRow(0x000b)!;
const P256 = curveRow(0x0003)!;
const strict = { allowSha1: false };

const rsaModulus = (bits: number): Uint8Array => {
  const { n = "" } = generateKeyPairSync("rsa", { modulusLength: bits }).publicKey.export({
    format: "jwk",
  });
  return Uint8Array.from(Buffer.from(n, "base64url"));
};
const modulus = rsaModulus(2_048);
const ecdh = createECDH("prime256v1");
const point = Uint8Array.from(ecdh.generateKeys());
const unique = { x: point.slice(1, 33), y: point.slice(33) };

/** TPMA_OBJECT bits (Part 2 §8.3). */
const BITS = {
  fixedTPM: 1 << 1,
  stClear: 1 << 2,
  fixedParent: 1 << 4,
  sensitiveDataOrigin: 1 << 5,
  userWithAuth: 1 << 6,
  adminWithPolicy: 1 << 7,
  noDA: 1 << 10,
  encryptedDuplication: 1 << 11,
  restricted: 1 << 16,
  decrypt: 1 << 17,
  sign: 1 << 18,
  x509sign: 1 << 19,
};
const HERE = BITS.fixedTPM | BITS.fixedParent | BITS.sensitiveDataOrigin;

const ecdsa = { scheme: TPM_ALG_ECDSA, hashAlg: SHA256 };
const akFields: TpmtPublicFields = {
  type: TPM_ALG_ECC,
  nameAlg: SHA256,
  objectAttributes: HERE | BITS.restricted | BITS.sign | BITS.userWithAuth,
  authPolicy: new Uint8Array(),
  symmetric: undefined,
  scheme: ecdsa,
  curve: P256,
  unique,
};
const rsaAkFields: TpmtPublicFields = {
  type: TPM_ALG_RSA,
  nameAlg: SHA256,
  objectAttributes: akFields.objectAttributes,
  authPolicy: new Uint8Array(),
  symmetric: undefined,
  scheme: { scheme: TPM_ALG_RSASSA, hashAlg: SHA256 },
  keyBits: 2_048,
  exponent: 0,
  unique: modulus,
};
const deviceFields: TpmtPublicFields = {
  ...akFields,
  objectAttributes: HERE | BITS.sign | BITS.userWithAuth,
};
const policyA = decodeHex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa");
const ekAttributes = HERE | BITS.adminWithPolicy | BITS.restricted | BITS.decrypt;
const aes128 = { algorithm: TPM_ALG_AES, keyBits: 128, mode: TPM_ALG_CFB } as const;
const ekFields: TpmtPublicFields = {
  ...rsaAkFields,
  objectAttributes: ekAttributes,
  authPolicy: policyA,
  symmetric: aes128,
  scheme: undefined,
};

const parsed = (fields: TpmtPublicFields): TpmtPublic => parseTpmtPublic(encodeTpmtPublic(fields));
const change = (fields: TpmtPublicFields, part: object): TpmtPublicFields => ({
  ...fields,
  ...part,
});
/** The code of whatever refuses, the parser included. */
const refusal = (check: (area: TpmtPublic) => void, fields: TpmtPublicFields): string =>
  codeOf(() => check(parsed(fields)));

const checkAk = (area: TpmtPublic): void => checkAkPublic(area, strict);
const ACCEPTED = "nothing was thrown";

describe("attributes", () => {
  const usage = BITS.userWithAuth | BITS.adminWithPolicy | BITS.noDA;

  it.each([
    ["AK", checkAk, akFields],
    ["RSA AK", checkAk, rsaAkFields],
    ["device key", checkDeviceKeyPublic, deviceFields],
  ] as const)("B1: refuses every other value of every bit of the %s", (_name, check, fields) => {
    expect(refusal(check, fields)).toBe(ACCEPTED);
    for (let bit = 0; bit < 32; bit += 1) {
      const mask = (1 << bit) >>> 0;
      const objectAttributes = (fields.objectAttributes ^ mask) >>> 0;
      const code = refusal(check, change(fields, { objectAttributes }));
      if ((mask & usage) !== 0) expect(code, `bit ${bit}`).toBe(ACCEPTED);
      else expect(code, `bit ${bit}`).toMatch(/^(ATTEST_KEY_ATTRIBUTES|ATTEST_STRUCTURE|WIRE)_/);
    }
  });

  it("A11: refuses an EK with any one attribute changed", () => {
    expect(refusal(checkEkPublic, ekFields)).toBe(ACCEPTED);
    for (const name of Object.keys(BITS) as (keyof typeof BITS)[]) {
      if (name === "userWithAuth") continue;
      const objectAttributes = ekAttributes ^ BITS[name];
      const code = refusal(checkEkPublic, change(ekFields, { objectAttributes }));
      expect(code, name).toMatch(/^(ATTEST_EK_TEMPLATE_INVALID|WIRE_|ATTEST_STRUCTURE)/);
    }
  });
});

describe("algorithms", () => {
  it("B2: refuses a null scheme, a decryption scheme and SHA-1 on an AK", () => {
    for (const scheme of [
      undefined,
      { scheme: TPM_ALG_ECDH, hashAlg: SHA256 },
      { scheme: TPM_ALG_ECDSA, hashAlg: SHA1 },
    ]) {
      expect(refusal(checkAk, change(akFields, { scheme }))).toBe("ATTEST_ALGORITHM_NOT_ALLOWED");
    }
    expect(
      codeOf(() =>
        checkAkPublic(
          parsed(change(akFields, { scheme: { scheme: TPM_ALG_ECDSA, hashAlg: SHA1 } })),
          { allowSha1: true },
        ),
      ),
    ).toBe(ACCEPTED);
    const pss = { scheme: TPM_ALG_RSAPSS, hashAlg: SHA256 };
    expect(refusal(checkAk, change(rsaAkFields, { scheme: pss }))).toBe(ACCEPTED);
  });

  it("B2: refuses a short RSA AK and another exponent than 65537", () => {
    const short = change(rsaAkFields, { keyBits: 1_024, unique: rsaModulus(1_024) });
    expect(refusal(checkAk, short)).toMatch(/^(ATTEST_ALGORITHM_NOT_ALLOWED|WIRE_)/);
    expect(refusal(checkAk, change(rsaAkFields, { exponent: 65_537 }))).toBe(ACCEPTED);
    for (const exponent of [1, 3, 65_535]) {
      expect(refusal(checkAk, change(rsaAkFields, { exponent }))).toMatch(
        /^(ATTEST_ALGORITHM_NOT_ALLOWED|WIRE_)/,
      );
    }
  });

  it("B2: refuses a device key that cannot make ES256", () => {
    expect(refusal(checkDeviceKeyPublic, change(deviceFields, { scheme: undefined }))).toBe(
      ACCEPTED,
    );
    const sha1 = { scheme: TPM_ALG_ECDSA, hashAlg: SHA1 };
    expect(refusal(checkDeviceKeyPublic, change(deviceFields, { scheme: sha1 }))).toBe(
      "ATTEST_ALGORITHM_NOT_ALLOWED",
    );
    const rsa = change(rsaAkFields, { objectAttributes: deviceFields.objectAttributes });
    expect(refusal(checkDeviceKeyPublic, rsa)).toBe("ATTEST_ALGORITHM_NOT_ALLOWED");
  });

  it("B3: refuses SHA-1 as nameAlg", () => {
    expect(refusal(checkAk, change(akFields, { nameAlg: SHA1 }))).toBe(
      "ATTEST_ALGORITHM_NOT_ALLOWED",
    );
    expect(refusal(checkDeviceKeyPublic, change(deviceFields, { nameAlg: SHA1 }))).toBe(
      "ATTEST_ALGORITHM_NOT_ALLOWED",
    );
  });

  it("B2: refuses a symmetric cipher on a signing key", () => {
    expect(refusal(checkAk, change(akFields, { symmetric: aes128 }))).toMatch(/^(ATTEST|WIRE)_/);
  });

  it("A11: refuses an EK with another policy, cipher, scheme or hash", () => {
    for (const part of [
      { authPolicy: Uint8Array.from(policyA, (byte) => byte ^ 1) },
      { authPolicy: new Uint8Array() },
      { symmetric: undefined },
      { symmetric: { ...aes128, keyBits: 192 } },
      { scheme: { scheme: TPM_ALG_RSASSA, hashAlg: SHA256 } },
      { nameAlg: SHA1 },
      { exponent: 3 },
    ]) {
      expect(refusal(checkEkPublic, change(ekFields, part)), JSON.stringify(part)).toMatch(
        /^(ATTEST_EK_TEMPLATE_INVALID|WIRE_|ATTEST_STRUCTURE)/,
      );
    }
  });
});

describe("key material", () => {
  it("B4: accepts the points that node:crypto makes on each curve", () => {
    for (const [curve, namedCurve] of [
      [P256, "prime256v1"],
      [curveRow(0x0004)!, "secp384r1"],
      [curveRow(0x0005)!, "secp521r1"],
    ] as const) {
      for (let i = 0; i < 5; i += 1) {
        const made = Uint8Array.from(createECDH(namedCurve).generateKeys());
        const half = curve.coordinateBytes;
        const own = { x: made.slice(1, 1 + half), y: made.slice(1 + half) };
        const area = parsed(change(akFields, { curve, unique: own }));
        expect(codeOf(() => encodeSpki(area))).toBe(ACCEPTED);
      }
    }
  });

  it("B4: refuses points that are not on the curve, at infinity, or out of range", () => {
    const field = decodeHex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
    for (const bad of [
      { x: unique.x, y: Uint8Array.from(unique.y, (byte, i) => (i === 31 ? byte ^ 1 : byte)) },
      { x: new Uint8Array(32), y: new Uint8Array(32) },
      { x: field, y: unique.y },
      { x: unique.y, y: unique.x },
      { x: new Uint8Array(), y: new Uint8Array() },
    ]) {
      expect(refusal(checkAk, change(akFields, { unique: bad }))).toMatch(/^(ATTEST|WIRE)_/);
      expect(refusal(checkDeviceKeyPublic, change(deviceFields, { unique: bad }))).toMatch(
        /^(ATTEST|WIRE)_/,
      );
    }
  });

  it("B4, B5: refuses an even modulus and one of another size than stated", () => {
    const even = Uint8Array.from(modulus, (byte, i) => (i === 255 ? byte & 0xfe : byte));
    const smaller = Uint8Array.from(modulus, (byte, i) => (i === 0 ? 0 : byte));
    for (const bad of [even, smaller, modulus.slice(1), new Uint8Array(), modulus.slice(0, 128)]) {
      expect(refusal(checkAk, change(rsaAkFields, { unique: bad }))).toMatch(/^(ATTEST|WIRE)_/);
      expect(refusal(checkEkPublic, change(ekFields, { unique: bad }))).toMatch(/^(ATTEST|WIRE)_/);
    }
  });

  it("B5: refuses a public area with a byte more or less", () => {
    const bytes = encodeTpmtPublic(akFields);
    expect(codeOf(() => parseTpmtPublic(Uint8Array.from([...bytes, 0])))).toMatch(/^WIRE_/);
    for (let length = 0; length < bytes.length; length += 1) {
      expect(codeOf(() => parseTpmtPublic(bytes.slice(0, length)))).toMatch(/^WIRE_/);
    }
  });
});
