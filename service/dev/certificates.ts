/**
 * A development CA and a server certificate for localhost, made once and kept in the state folder.
 * For one's own machine: the CA's key is thrown away after it has signed, so nothing else can be made
 * with it. Production certificates come from files.
 */
import { createHash, webcrypto } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BitString, Integer, OctetString, Utf8String } from "asn1js";
import * as pkijs from "pkijs";

export interface DevelopmentCertificates {
  readonly caFile: string;
  readonly certificateFile: string;
  readonly keyFile: string;
}

const DAY_MS = 86_400_000;
/** Browsers refuse server certificates that live longer than 398 days. */
const SERVER_DAYS = 397;
const SUBJECT_ALT_NAME = "2.5.29.17";
const BASIC_CONSTRAINTS = "2.5.29.19";
const KEY_USAGE = "2.5.29.15";
const EXTENDED_KEY_USAGE = "2.5.29.37";
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const SUBJECT_KEY_IDENTIFIER = "2.5.29.14";
const AUTHORITY_KEY_IDENTIFIER = "2.5.29.35";
const COMMON_NAME = "2.5.4.3";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
// The types of pkijs's own engine lag behind those of the Web Crypto interface that it implements.
const engine = new pkijs.CryptoEngine({
  name: "node",
  crypto: webcrypto,
}) as unknown as pkijs.ICryptoEngine;

/** The certificates in `dir`, made if they are missing or end within a week. */
export async function developmentCertificates(
  dir: string,
  nowMs: number,
): Promise<DevelopmentCertificates> {
  const files: DevelopmentCertificates = {
    caFile: join(dir, "ca.pem"),
    certificateFile: join(dir, "server.pem"),
    keyFile: join(dir, "server.key"),
  };
  const madeFile = join(dir, "made-at");
  const madeAtMs = existsSync(madeFile) ? Number(readFileSync(madeFile, "utf8")) : 0;
  if (nowMs < madeAtMs + (SERVER_DAYS - 7) * DAY_MS && nowMs >= madeAtMs) return files;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const made = await makeCertificates(nowMs);
  writeFileSync(files.caFile, made.ca);
  writeFileSync(files.certificateFile, made.certificate + made.ca);
  writeFileSync(files.keyFile, made.key, { mode: 0o600 });
  writeFileSync(madeFile, String(nowMs));
  return files;
}

async function makeCertificates(
  nowMs: number,
): Promise<{ ca: string; certificate: string; key: string }> {
  const caKeys = await generateKeys();
  const serverKeys = await generateKeys();
  const ca = await signCertificate({
    subject: "Stile development CA",
    issuer: "Stile development CA",
    subjectKey: caKeys.publicKey,
    issuerKey: caKeys.publicKey,
    signingKey: caKeys.privateKey,
    nowMs,
    extensions: [
      extension(BASIC_CONSTRAINTS, true, new pkijs.BasicConstraints({ cA: true }).toSchema()),
      extension(
        KEY_USAGE,
        true,
        new BitString({ valueHex: Uint8Array.of(0x06).buffer, unusedBits: 1 }),
      ),
    ],
  });
  const names = [
    new pkijs.GeneralName({ type: 2, value: "localhost" }),
    new pkijs.GeneralName({ type: 7, value: ipAddress([127, 0, 0, 1]) }),
    new pkijs.GeneralName({ type: 7, value: ipAddress([...new Uint8Array(15), 1]) }),
  ];
  const certificate = await signCertificate({
    subject: "localhost",
    issuer: "Stile development CA",
    subjectKey: serverKeys.publicKey,
    issuerKey: caKeys.publicKey,
    signingKey: caKeys.privateKey,
    nowMs,
    extensions: [
      extension(SUBJECT_ALT_NAME, false, new pkijs.GeneralNames({ names }).toSchema()),
      extension(BASIC_CONSTRAINTS, true, new pkijs.BasicConstraints({ cA: false }).toSchema()),
      extension(
        KEY_USAGE,
        true,
        new BitString({ valueHex: Uint8Array.of(0x80).buffer, unusedBits: 7 }),
      ),
      extension(
        EXTENDED_KEY_USAGE,
        false,
        new pkijs.ExtKeyUsage({ keyPurposes: [SERVER_AUTH] }).toSchema(),
      ),
    ],
  });
  const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", serverKeys.privateKey);
  return { ca, certificate, key: pem("PRIVATE KEY", new Uint8Array(pkcs8)) };
}

async function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
}

interface CertificateFields {
  readonly subject: string;
  readonly issuer: string;
  readonly subjectKey: webcrypto.CryptoKey;
  readonly issuerKey: webcrypto.CryptoKey;
  readonly signingKey: webcrypto.CryptoKey;
  readonly nowMs: number;
  readonly extensions: pkijs.Extension[];
}

async function signCertificate(fields: CertificateFields): Promise<string> {
  const certificate = new pkijs.Certificate({ version: 2 });
  const serial = webcrypto.getRandomValues(new Uint8Array(16));
  serial[0] = 0x40 | ((serial[0] ?? 0) & 0x3f);
  certificate.serialNumber = new Integer({ valueHex: serial.buffer });
  certificate.subject.typesAndValues.push(commonName(fields.subject));
  certificate.issuer.typesAndValues.push(commonName(fields.issuer));
  // An hour back: the clocks of a test's client and server need not agree to the second.
  certificate.notBefore.value = new Date(fields.nowMs - 3_600_000);
  certificate.notAfter.value = new Date(fields.nowMs + SERVER_DAYS * DAY_MS);
  const authority = new pkijs.AuthorityKeyIdentifier({
    keyIdentifier: await keyIdentifier(fields.issuerKey),
  });
  const subject = await keyIdentifier(fields.subjectKey);
  certificate.extensions = [
    ...fields.extensions,
    extension(SUBJECT_KEY_IDENTIFIER, false, subject),
    extension(AUTHORITY_KEY_IDENTIFIER, false, authority.toSchema()),
  ];
  await certificate.subjectPublicKeyInfo.importKey(fields.subjectKey, engine);
  await certificate.sign(fields.signingKey, "SHA-256", engine);
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

function extension(
  extnID: string,
  critical: boolean,
  value: { toBER: () => ArrayBuffer },
): pkijs.Extension {
  return new pkijs.Extension({ extnID, critical, extnValue: value.toBER() });
}

function ipAddress(bytes: readonly number[]): OctetString {
  return new OctetString({ valueHex: Uint8Array.from(bytes).buffer });
}

function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
