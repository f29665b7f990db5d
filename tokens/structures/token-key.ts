/**
 * The public key of token type 0x0002 as RFC 9578 §6.5 spells it: SubjectPublicKeyInfo with
 * id-RSASSA-PSS, SHA-384, MGF1 with SHA-384 and salt length 48. For a 2048-bit modulus and the exponent
 * 65537 all of it but the modulus is constant, so it is compared and not parsed as DER.
 *
 * Node's own SPKI export of an rsa-pss key adds a NULL to the hash algorithms (346 bytes instead of
 * 342): another encoding, another token_key_id, and every client fails. Do not use it.
 */
import { concatBytes, constantTimeEqual, decodeHex, Reader } from "../../wire/index.ts";

/** SEQUENCE, AlgorithmIdentifier id-RSASSA-PSS with parameters, BIT STRING, RSAPublicKey, INTEGER. */
const PREFIX = decodeHex(
  "30820152303d06092a864886f70d01010a3030a00d300b0609608648016503040202a11a301806092a864886f70d0101" +
    "08300b0609608648016503040202a2030201300382010f00" +
    "3082010a0282010100",
);
/** publicExponent 65537. */
const SUFFIX = decodeHex("0203010001");

/** 2048 bits. */
export const RSA_MODULUS_BYTES = 256;

/**
 * The 256-byte modulus of a type 0x0002 token key. Any other key size, exponent or encoding is refused.
 * @throws `WIRE_*`
 */
export function parseBlindRsaTokenKey(bytes: Uint8Array): Uint8Array {
  const reader = new Reader(bytes, "SubjectPublicKeyInfo");
  const prefix = reader.bytes("algorithm", PREFIX.length);
  const modulus = reader.bytes("modulus", RSA_MODULUS_BYTES);
  const suffix = reader.bytes("publicExponent", SUFFIX.length);
  reader.end();
  const hasTopBit = (modulus[0] ?? 0) >= 0x80;
  if (!constantTimeEqual(prefix, PREFIX) || !constantTimeEqual(suffix, SUFFIX) || !hasTopBit) {
    const expected = "expected RSASSA-PSS with SHA-384, 2048 bits and exponent 65537";
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "algorithm", expected);
  }
  return modulus;
}

/** @param modulus 256 bytes with the top bit set. @throws RangeError */
export function encodeBlindRsaTokenKey(modulus: Uint8Array): Uint8Array<ArrayBuffer> {
  if (modulus.length !== RSA_MODULUS_BYTES || (modulus[0] ?? 0) < 0x80) {
    throw new RangeError("modulus: expected 2048 bits");
  }
  return concatBytes([PREFIX, modulus, SUFFIX]);
}
