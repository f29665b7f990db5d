/**
 * The public key of a public area as DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7, RFC 3279 §2.3.1,
 * RFC 5480 §2): the form in which keys are compared, hashed and handed to a crypto engine.
 */
import { concatBytes } from "../../wire/index.ts";
import { type CurveName, TPM_ALG_RSA } from "./constants.ts";
import { checkUnique, type TpmtPublic, type TpmtPublicEcc } from "./public.ts";

/** The exponent that a public area spells 0 (Part 2 §12.2.3.5). */
export const DEFAULT_RSA_EXPONENT = 65_537;

const SEQUENCE = 0x30;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
/** rsaEncryption 1.2.840.113549.1.1.1 with NULL parameters. */
const RSA_ALGORITHM = Uint8Array.of(
  0x30,
  0x0d,
  0x06,
  0x09,
  0x2a,
  0x86,
  0x48,
  0x86,
  0xf7,
  0x0d,
  0x01,
  0x01,
  0x01,
  0x05,
  0x00,
);
/** id-ecPublicKey 1.2.840.10045.2.1. */
const EC_OID = Uint8Array.of(0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01);
const CURVE_OIDS = {
  /** 1.2.840.10045.3.1.7 */
  "P-256": Uint8Array.of(0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07),
  /** 1.3.132.0.34 */
  "P-384": Uint8Array.of(0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22),
  /** 1.3.132.0.35 */
  "P-521": Uint8Array.of(0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23),
} as const;

/** id-Ed25519 1.3.101.112. */
const ED25519_OID = Uint8Array.of(0x06, 0x03, 0x2b, 0x65, 0x70);

/** @throws `ATTEST_STRUCTURE_INVALID` where the unique field does not fit the key's size */
export function encodeSpki(area: TpmtPublic): Uint8Array<ArrayBuffer> {
  checkUnique(area);
  if (area.type === TPM_ALG_RSA) {
    const exponent = area.exponent === 0 ? DEFAULT_RSA_EXPONENT : area.exponent;
    return encodeRsaSpki(area.unique, exponent);
  }
  const { x, y } = paddedPoint(area);
  return encodeEcSpki(area.curve.name, x, y);
}

/** @param modulus big-endian */
export function encodeRsaSpki(modulus: Uint8Array, exponent: number): Uint8Array<ArrayBuffer> {
  const key = der(SEQUENCE, [unsigned(modulus), unsigned(bigEndian(exponent))]);
  return der(SEQUENCE, [RSA_ALGORITHM, der(BIT_STRING, [Uint8Array.of(0), key])]);
}

/** Coordinates of full length. */
export function encodeEcSpki(
  curve: CurveName,
  x: Uint8Array,
  y: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const point = der(BIT_STRING, [Uint8Array.of(0, 0x04), x, y]);
  return der(SEQUENCE, [der(SEQUENCE, [EC_OID, CURVE_OIDS[curve]]), point]);
}

/** RFC 8410 §4. @param key 32 bytes */
export function encodeEd25519Spki(key: Uint8Array): Uint8Array<ArrayBuffer> {
  const bits = der(BIT_STRING, [Uint8Array.of(0), key]);
  return der(SEQUENCE, [der(SEQUENCE, [ED25519_OID]), bits]);
}

/** The point with coordinates of full length: a TPM may leave out leading zeros (Part 1 C.8). */
export function paddedPoint(area: TpmtPublicEcc): {
  readonly x: Uint8Array<ArrayBuffer>;
  readonly y: Uint8Array<ArrayBuffer>;
} {
  const { coordinateBytes } = area.curve;
  return {
    x: leftPadded(area.unique.x, coordinateBytes),
    y: leftPadded(area.unique.y, coordinateBytes),
  };
}

/** @throws RangeError where the value is longer */
export function leftPadded(value: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  if (value.length > length) throw new RangeError(`expected at most ${length} bytes`);
  const out = new Uint8Array(length);
  out.set(value, length - value.length);
  return out;
}

function der(tag: number, parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const content = concatBytes(parts);
  const length = content.length;
  if (length < 0x80) return concatBytes([Uint8Array.of(tag, length), content]);
  if (length < 0x100) return concatBytes([Uint8Array.of(tag, 0x81, length), content]);
  return concatBytes([Uint8Array.of(tag, 0x82, length >> 8, length & 0xff), content]);
}

/** A DER INTEGER of a big-endian number that is not negative. */
function unsigned(value: Uint8Array): Uint8Array {
  const first = value.findIndex((byte) => byte !== 0);
  const trimmed = first < 0 ? Uint8Array.of(0) : value.subarray(first);
  const sign = (trimmed[0] ?? 0) >= 0x80 ? [Uint8Array.of(0)] : [];
  return der(INTEGER, [...sign, trimmed]);
}

function bigEndian(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}
