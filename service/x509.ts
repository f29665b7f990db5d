/**
 * X.509 structures (RFC 5280) that this service makes itself: certificates of development and of ACME challenges,
 * and the parts that they share with certification requests. It signs; it verifies nothing.
 */
import { createHash, webcrypto } from "node:crypto";
import { Integer, OctetString, Utf8String } from "asn1js";
import * as pkijs from "pkijs";

export const SUBJECT_ALT_NAME = "2.5.29.17";
const SUBJECT_KEY_IDENTIFIER = "2.5.29.14";
const AUTHORITY_KEY_IDENTIFIER = "2.5.29.35";
const COMMON_NAME = "2.5.4.3";
const HOUR_MS = 3_600_000;

// The types of pkijs's own engine lag behind those of the Web Crypto interface that it implements.
export const x509Engine: pkijs.ICryptoEngine = new pkijs.CryptoEngine({
  name: "node",
  crypto: webcrypto,
}) as unknown as pkijs.ICryptoEngine;

/** ECDSA on P-256, exportable. */
export async function newP256Keys(): Promise<webcrypto.CryptoKeyPair> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  return webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
}

/** PKCS #8, as PEM. Secret. */
export async function privateKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  return pem("PRIVATE KEY", new Uint8Array(await webcrypto.subtle.exportKey("pkcs8", key)));
}

interface CertificateFields {
  readonly subject: string;
  readonly issuer: string;
  readonly subjectKey: webcrypto.CryptoKey;
  readonly issuerKey: webcrypto.CryptoKey;
  readonly signingKey: webcrypto.CryptoKey;
  readonly nowMs: number;
  readonly lifetimeMs: number;
  readonly extensions: pkijs.Extension[];
}

export async function signCertificate(fields: CertificateFields): Promise<string> {
  const certificate = new pkijs.Certificate({ version: 2 });
  const serial = webcrypto.getRandomValues(new Uint8Array(16));
  serial[0] = 0x40 | ((serial[0] ?? 0) & 0x3f);
  certificate.serialNumber = new Integer({ valueHex: serial.buffer });
  certificate.subject.typesAndValues.push(commonName(fields.subject));
  certificate.issuer.typesAndValues.push(commonName(fields.issuer));
  // An hour back: the clocks of a test's client and server need not agree to the second.
  certificate.notBefore.value = new Date(fields.nowMs - HOUR_MS);
  certificate.notAfter.value = new Date(fields.nowMs + fields.lifetimeMs);
  const authority = new pkijs.AuthorityKeyIdentifier({
    keyIdentifier: await keyIdentifier(fields.issuerKey),
  });
  const subject = await keyIdentifier(fields.subjectKey);
  certificate.extensions = [
    ...fields.extensions,
    extension(SUBJECT_KEY_IDENTIFIER, false, subject),
    extension(AUTHORITY_KEY_IDENTIFIER, false, authority.toSchema()),
  ];
  await certificate.subjectPublicKeyInfo.importKey(fields.subjectKey, x509Engine);
  await certificate.sign(fields.signingKey, "SHA-256", x509Engine);
  return pem("CERTIFICATE", new Uint8Array(certificate.toSchema().toBER()));
}

/** RFC 7093 §2 method 4: a digest of the SPKI, cut to 160 bits. */
async function keyIdentifier(key: webcrypto.CryptoKey): Promise<OctetString> {
  const spki = new Uint8Array(await webcrypto.subtle.exportKey("spki", key));
  const digest = createHash("sha256").update(spki).digest().subarray(0, 20);
  return new OctetString({ valueHex: Uint8Array.from(digest).buffer });
}

function commonName(value: string): pkijs.AttributeTypeAndValue {
  return new pkijs.AttributeTypeAndValue({ type: COMMON_NAME, value: new Utf8String({ value }) });
}

export function extension(
  extnID: string,
  critical: boolean,
  value: { toBER: () => ArrayBuffer },
): pkijs.Extension {
  return new pkijs.Extension({ extnID, critical, extnValue: value.toBER() });
}

/** RFC 7468. */
function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
