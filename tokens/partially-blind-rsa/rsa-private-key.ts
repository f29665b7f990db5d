/**
 * RSAPrivateKey of RFC 8017 §A.1.2 (PKCS #1), as DER: how a key of two primes crosses between OpenSSL's key
 * objects and its numbers without becoming a text or a big integer. Only for keys of our own: what is read
 * came out of a key object.
 */
import { Reader, Writer } from "../../wire/index.ts";

const INTEGER = 0x02;
const SEQUENCE = 0x30;

/** Unsigned numbers, most significant byte first. All but the first two are secret: wipe them after use. */
export interface RsaPrivateKey {
  readonly modulus: Uint8Array;
  readonly publicExponent: Uint8Array;
  readonly privateExponent: Uint8Array;
  readonly prime1: Uint8Array;
  readonly prime2: Uint8Array;
  /** d mod (p - 1), d mod (q - 1), q^-1 mod p. */
  readonly exponent1: Uint8Array;
  readonly exponent2: Uint8Array;
  readonly coefficient: Uint8Array;
}

/** The numbers are views of `der`. @throws `WIRE_*` for anything but two primes in DER */
export function parseRsaPrivateKey(der: Uint8Array): RsaPrivateKey {
  const outer = new Reader(der, "RSAPrivateKey");
  const reader = new Reader(readElement(outer, SEQUENCE, "sequence"), "RSAPrivateKey");
  outer.end();
  const version = readElement(reader, INTEGER, "version");
  if (version.length !== 1 || version[0] !== 0) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "version", "expected two primes");
  }
  const key = {
    modulus: readInteger(reader, "modulus"),
    publicExponent: readInteger(reader, "publicExponent"),
    privateExponent: readInteger(reader, "privateExponent"),
    prime1: readInteger(reader, "prime1"),
    prime2: readInteger(reader, "prime2"),
    exponent1: readInteger(reader, "exponent1"),
    exponent2: readInteger(reader, "exponent2"),
    coefficient: readInteger(reader, "coefficient"),
  };
  reader.end();
  return key;
}

/** Secret: the caller wipes it. */
export function encodeRsaPrivateKey(key: RsaPrivateKey): Uint8Array<ArrayBuffer> {
  const numbers = [
    key.modulus,
    key.publicExponent,
    key.privateExponent,
    key.prime1,
    key.prime2,
    key.exponent1,
    key.exponent2,
    key.coefficient,
  ];
  const content = new Writer().bytes(Uint8Array.of(INTEGER, 1, 0));
  for (const number of numbers) writeInteger(content, number);
  const body = content.finish();
  const der = new Writer().u8(SEQUENCE).bytes(lengthOf(body.length)).bytes(body).finish();
  body.fill(0);
  return der;
}

/** Without the zero that keeps a number with its top bit set from being negative. */
function readInteger(reader: Reader, field: string): Uint8Array {
  const content = readElement(reader, INTEGER, field);
  return content.length > 1 && content[0] === 0 ? content.subarray(1) : content;
}

/** The content of one element: a length of one byte, or of one or two behind 0x81 or 0x82. */
function readElement(reader: Reader, tag: number, field: string): Uint8Array {
  if (reader.u8(field) !== tag) reader.fail("WIRE_VALUE_NOT_ALLOWED", field, "expected its tag");
  const first = reader.u8(field);
  if (first < 0x80) return reader.bytes(field, first);
  if (first === 0x81) return reader.bytes(field, reader.u8(field));
  if (first === 0x82) return reader.bytes(field, reader.u16(field));
  return reader.fail("WIRE_BAD_ENCODING", field, "expected a definite length below 65536");
}

/** DER knows no leading zeros, but one where the top bit is set. */
function writeInteger(writer: Writer, number: Uint8Array): void {
  const start = number.findIndex((byte) => byte !== 0);
  const digits = number.subarray(start < 0 ? number.length - 1 : start);
  const pad = (digits[0] ?? 0) >= 0x80 ? 1 : 0;
  writer.u8(INTEGER).bytes(lengthOf(digits.length + pad));
  if (pad === 1) writer.u8(0);
  writer.bytes(digits);
}

function lengthOf(length: number): Uint8Array {
  if (length < 0x80) return Uint8Array.of(length);
  if (length < 0x100) return Uint8Array.of(0x81, length);
  return new Writer().u8(0x82).u16(length).finish();
}
