/** The keys of the local TPM as node:crypto and as JOSE see them. */
import { createPublicKey, type KeyObject } from "node:crypto";
import { encodeBase64Url, StileError } from "../../wire/index.ts";
import type { Es256PublicJwk } from "../result/attestation-result.ts";
import { TPM_ALG_ECC, TPM_ECC_NIST_P256 } from "../structures/constants.ts";
import { parseTpm2bPublic } from "../structures/public.ts";
import { encodeSpki, paddedPoint } from "../structures/spki.ts";

/** @param publicArea TPM2B_PUBLIC. @throws `WIRE_*`, `ATTEST_STRUCTURE_INVALID` */
export function publicKeyOf(publicArea: Uint8Array): KeyObject {
  const spki = encodeSpki(parseTpm2bPublic(publicArea));
  return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
}

/** @param publicArea TPM2B_PUBLIC. @throws `ATTEST_ALGORITHM_NOT_ALLOWED` unless it is a P-256 key */
export function es256JwkOf(publicArea: Uint8Array): Es256PublicJwk {
  const area = parseTpm2bPublic(publicArea);
  if (area.type !== TPM_ALG_ECC || area.curve.curveId !== TPM_ECC_NIST_P256) {
    throw new StileError("ATTEST_ALGORITHM_NOT_ALLOWED", "the device key is not on P-256");
  }
  const { x, y } = paddedPoint(area);
  return { kty: "EC", crv: "P-256", x: encodeBase64Url(x), y: encodeBase64Url(y) };
}
