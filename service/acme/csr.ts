/** Keys and certification requests (RFC 2986) for certificates by ACME (RFC 8555 §7.4). */
import { webcrypto } from "node:crypto";
import * as pkijs from "pkijs";
import type { AcmeKeyType } from "../config/index.ts";
import { extension, newP256Keys, privateKeyPem, SUBJECT_ALT_NAME, x509Engine } from "../x509.ts";

const EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
const GENERAL_NAME_DNS = 2;
const RSA = {
  name: "RSASSA-PKCS1-v1_5",
  hash: "SHA-256",
  modulusLength: 2_048,
  publicExponent: Uint8Array.of(1, 0, 1),
} as const;

export interface CertificationRequest {
  /** DER. */
  readonly csr: Uint8Array;
  /** PEM of the new key that it is for. Secret. */
  readonly key: string;
}

/** The subject is empty: the names are in subjectAltName alone, where clients look for them (RFC 9525 §2). */
export async function newCertificationRequest(
  names: readonly string[],
  keyType: AcmeKeyType,
): Promise<CertificationRequest> {
  const keys =
    keyType === "ecdsa"
      ? await newP256Keys()
      : await webcrypto.subtle.generateKey(RSA, true, ["sign", "verify"]);
  const request = new pkijs.CertificationRequest();
  await request.subjectPublicKeyInfo.importKey(keys.publicKey, x509Engine);
  const extensions = [subjectAltName(names)];
  request.attributes = [
    new pkijs.Attribute({
      type: EXTENSION_REQUEST,
      values: [new pkijs.Extensions({ extensions }).toSchema()],
    }),
  ];
  await request.sign(keys.privateKey, "SHA-256", x509Engine);
  return {
    csr: new Uint8Array(request.toSchema().toBER()),
    key: await privateKeyPem(keys.privateKey),
  };
}

export function subjectAltName(names: readonly string[]): pkijs.Extension {
  const dnsNames = names.map((value) => new pkijs.GeneralName({ type: GENERAL_NAME_DNS, value }));
  return extension(SUBJECT_ALT_NAME, false, new pkijs.GeneralNames({ names: dnsNames }).toSchema());
}
