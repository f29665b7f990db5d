/**
 * The key of a TPM's own public area as a JWK (RFC 7517) and as node:crypto sees it. The bytes come
 * from the local TPM; a verifier of another TPM's public areas has stricter rules.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import { encodeBase64Url, Reader, StileError } from "../../wire/index.ts";

const TPM_ALG_RSA = 0x0001;
const TPM_ALG_ECC = 0x0023;
const TPM_ALG_NULL = 0x0010;

export type PublicJwk =
  | { readonly kty: "RSA"; readonly n: string; readonly e: string }
  | { readonly kty: "EC"; readonly crv: "P-256"; readonly x: string; readonly y: string };

/** @param publicArea TPM2B_PUBLIC of an RSA-2048 or P-256 key. @throws `ATTEST_ALGORITHM_NOT_ALLOWED` */
export function publicJwk(publicArea: Uint8Array): PublicJwk {
  const area = new Reader(publicArea, "TPM2B_PUBLIC").vec16("publicArea", 0, 0xffff);
  const reader = new Reader(area, "TPMT_PUBLIC");
  const type = reader.u16("type");
  reader.u16("nameAlg");
  reader.u32("objectAttributes");
  reader.vec16("authPolicy", 0, 64);
  if (reader.u16("symmetric") !== TPM_ALG_NULL) reader.bytes("symmetric", 4);
  if (reader.u16("scheme") !== TPM_ALG_NULL) reader.u16("hashAlg");
  const size = reader.u16("keyBits or curveID");
  if (type === TPM_ALG_RSA && size === 2048) {
    reader.u32("exponent");
    return { kty: "RSA", n: encodeBase64Url(reader.vec16("unique", 256, 256)), e: "AQAB" };
  }
  if (type === TPM_ALG_ECC && size === 0x0003) {
    reader.u16("kdf");
    const [x, y] = [coordinate(reader.vec16("x", 1, 32)), coordinate(reader.vec16("y", 1, 32))];
    return { kty: "EC", crv: "P-256", x: encodeBase64Url(x), y: encodeBase64Url(y) };
  }
  throw new StileError("ATTEST_ALGORITHM_NOT_ALLOWED", "the key is neither RSA-2048 nor P-256");
}

/** RFC 7518 §6.2.1.2: a coordinate has its full length; a TPM may leave out leading zeros. */
export function coordinate(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(32);
  out.set(bytes, 32 - bytes.length);
  return out;
}

export function publicKeyOf(publicArea: Uint8Array): KeyObject {
  return createPublicKey({ key: { ...publicJwk(publicArea) }, format: "jwk" });
}
