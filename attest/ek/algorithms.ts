/**
 * The signature algorithms and public keys that an EK certificate chain may use (checklist A5):
 * SHA-256 and better with RSA PKCS #1 v1.5 or ECDSA; RSA of 2048 to 8192 bits; P-256, P-384, P-521.
 * RSASSA-PSS is not on the list: no manufacturer's EK chain that we know of uses it.
 * Identifiers: RFC 8017 appendix A, RFC 5480, RFC 5758.
 */
import { concatBytes, isStileError } from "../../wire/index.ts";
import {
  children,
  type DerValue,
  expectTag,
  parseDer,
  readBitString,
  readOid,
  readPositiveInteger,
  TAG,
} from "./der.ts";
import { algorithmNotAllowed, certificateInvalid } from "./errors.ts";

const MIN_RSA_BITS = 2048;
/** Verification time grows with the square of the size; no manufacturer root is above 4096. */
const MAX_RSA_BITS = 8192;
/** FIPS 186-4 §B.3.1: 2^16 < e; the TPM's default 0 stands for 65537. */
const MIN_RSA_EXPONENT = 65_537;

const SIGNATURE_ALGORITHMS: ReadonlyMap<string, "rsa" | "ecdsa"> = new Map([
  ["1.2.840.113549.1.1.11", "rsa"], // sha256WithRSAEncryption
  ["1.2.840.113549.1.1.12", "rsa"], // sha384WithRSAEncryption
  ["1.2.840.113549.1.1.13", "rsa"], // sha512WithRSAEncryption
  ["1.2.840.10045.4.3.2", "ecdsa"], // ecdsa-with-SHA256
  ["1.2.840.10045.4.3.3", "ecdsa"], // ecdsa-with-SHA384
  ["1.2.840.10045.4.3.4", "ecdsa"], // ecdsa-with-SHA512
]);

const RSA_ENCRYPTION = "1.2.840.113549.1.1.1";
/** Old EK certificates name the key's only use in place of its type. */
const RSAES_OAEP = "1.2.840.113549.1.1.7";
const EC_PUBLIC_KEY = "1.2.840.10045.2.1";
/** Named curve to the bytes of a coordinate. */
const CURVES: ReadonlyMap<string, number> = new Map([
  ["1.2.840.10045.3.1.7", 32], // secp256r1
  ["1.3.132.0.34", 48], // secp384r1
  ["1.3.132.0.35", 66], // secp521r1
]);
/** AlgorithmIdentifier of rsaEncryption with its NULL, DER. */
const RSA_ENCRYPTION_IDENTIFIER = Uint8Array.from([
  0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
]);

/**
 * @param signatureValue the signature, whose form is judged: asn1js would read BER here too, and one
 *   certificate would have several encodings
 * @throws `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_EK_CERTIFICATE_INVALID`
 */
export function checkSignatureAlgorithm(identifier: DerValue, signatureValue: Uint8Array): void {
  const [oid, parameters, ...rest] = children(identifier);
  const family = SIGNATURE_ALGORITHMS.get(readOid(expectTag(oid, TAG.OBJECT_IDENTIFIER)));
  if (family === undefined)
    throw algorithmNotAllowed("a signature algorithm that is not on the list");
  // RFC 4055 §5: NULL with RSA; RFC 5758 §3.2: absent with ECDSA.
  const fits =
    family === "rsa" ? parameters !== undefined && isNull(parameters) : parameters === undefined;
  if (!fits || rest.length > 0) throw certificateInvalid("malformed signature algorithm");
  // RFC 3279 §2.2.3: Ecdsa-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER }
  if (family === "ecdsa") {
    const numbers = children(parseDer(signatureValue, TAG.SEQUENCE));
    if (numbers.length !== 2) throw certificateInvalid("malformed ECDSA signature");
    for (const number of numbers) readPositiveInteger(number);
  }
}

export interface CertifiedKey {
  readonly type: "rsa" | "ecc";
  /** SubjectPublicKeyInfo, DER; with rsaEncryption where the certificate says RSAES-OAEP. */
  readonly spki: Uint8Array;
  /** The certificate says RSAES-OAEP. */
  readonly namesOaep: boolean;
  /** RSA: big-endian, without leading zeros. */
  readonly modulus: Uint8Array | undefined;
  /** ECC: bytes of a coordinate. */
  readonly coordinateBytes: number | undefined;
}

/**
 * Whether r and s are no longer than the key's curve has bytes; true for RSA, whose size the engine checks.
 * pkijs writes the surplus byte of s over the last of r: where the two are equal the signature verifies,
 * and one certificate would have several encodings.
 */
export function isSignatureOfSize(
  signatureValue: Uint8Array,
  { coordinateBytes }: CertifiedKey,
): boolean {
  if (coordinateBytes === undefined) return true;
  try {
    const numbers = children(parseDer(signatureValue, TAG.SEQUENCE));
    return numbers.every((number) => readPositiveInteger(number).length <= coordinateBytes);
  } catch (error) {
    // Of another family than the key, or hostile: it verifies nothing.
    if (isStileError(error)) return false;
    throw error;
  }
}

/**
 * The type of a public key whose size is on the list. It does not say that an EC point is on its curve.
 * @throws `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_EK_CERTIFICATE_INVALID`
 */
export function readCertifiedKey(spki: Uint8Array): CertifiedKey {
  const [identifier, key, ...rest] = children(parseDer(spki, TAG.SEQUENCE));
  if (rest.length > 0) throw certificateInvalid("malformed public key");
  const bits = expectTag(key, TAG.BIT_STRING);
  const { unusedBits, bytes } = readBitString(bits);
  if (unusedBits !== 0) throw certificateInvalid("malformed public key");
  const [oid, parameters] = children(expectTag(identifier, TAG.SEQUENCE));
  switch (readOid(expectTag(oid, TAG.OBJECT_IDENTIFIER))) {
    case EC_PUBLIC_KEY:
      return {
        type: "ecc",
        spki,
        namesOaep: false,
        modulus: undefined,
        coordinateBytes: readCoordinateBytes(parameters, bytes),
      };
    case RSA_ENCRYPTION:
      if (parameters === undefined || !isNull(parameters))
        throw certificateInvalid("malformed RSA key");
      return {
        type: "rsa",
        spki,
        namesOaep: false,
        modulus: readModulus(bytes),
        coordinateBytes: undefined,
      };
    case RSAES_OAEP:
      return {
        type: "rsa",
        spki: withRsaEncryption(bits),
        namesOaep: true,
        modulus: readModulus(bytes),
        coordinateBytes: undefined,
      };
    default:
      throw algorithmNotAllowed("a public key of a type that is not on the list");
  }
}

/** Of a key whose size, exponent and parity are on the list. */
function readModulus(bytes: Uint8Array): Uint8Array {
  const [modulus, exponent, ...rest] = children(parseDer(bytes, TAG.SEQUENCE));
  if (rest.length > 0) throw certificateInvalid("malformed RSA key");
  const n = readPositiveInteger(expectTag(modulus, TAG.INTEGER));
  const e = readPositiveInteger(expectTag(exponent, TAG.INTEGER));
  const bitLength = n.length * 8 - (Math.clz32(n[0] ?? 0) - 24);
  if (bitLength < MIN_RSA_BITS || bitLength > MAX_RSA_BITS) {
    throw algorithmNotAllowed(`an RSA key outside ${MIN_RSA_BITS} to ${MAX_RSA_BITS} bits`);
  }
  const value = e.length > 4 ? 0 : e.reduce((sum, byte) => sum * 256 + byte, 0);
  if (value < MIN_RSA_EXPONENT || value % 2 === 0 || (n.at(-1) ?? 0) % 2 === 0) {
    throw algorithmNotAllowed("an RSA key with an unfit exponent or modulus");
  }
  return n;
}

/** Of a point whose curve is on the list. */
function readCoordinateBytes(parameters: DerValue | undefined, point: Uint8Array): number {
  // RFC 5480 §2.1.1: a named curve; explicit parameters let an attacker choose the generator.
  if (parameters?.tag !== TAG.OBJECT_IDENTIFIER)
    throw algorithmNotAllowed("a curve that is not named");
  const width = CURVES.get(readOid(parameters));
  if (width === undefined) throw algorithmNotAllowed("a curve that is not on the list");
  if (point[0] !== 0x04 || point.length !== 1 + 2 * width)
    throw certificateInvalid("malformed EC point");
  return width;
}

function withRsaEncryption(key: DerValue): Uint8Array {
  const content = concatBytes([RSA_ENCRYPTION_IDENTIFIER, key.raw]);
  // The content holds 2048 to 8192 bits of modulus, so its length always takes two bytes.
  return concatBytes([
    Uint8Array.of(TAG.SEQUENCE, 0x82, content.length >> 8, content.length & 0xff),
    content,
  ]);
}

function isNull(value: DerValue): boolean {
  return value.tag === 0x05 && value.content.length === 0;
}
