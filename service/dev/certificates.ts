/**
 * A development CA and a server certificate for localhost, made once and kept in the state folder.
 * For one's own machine: the CA's key is thrown away after it has signed, so nothing else can be made
 * with it. Production certificates come from files.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BitString, OctetString } from "asn1js";
import * as pkijs from "pkijs";
import {
  extension,
  newP256Keys,
  privateKeyPem,
  signCertificate,
  SUBJECT_ALT_NAME,
} from "../x509.ts";

export interface DevelopmentCertificates {
  readonly caFile: string;
  readonly certificateFile: string;
  readonly keyFile: string;
}

const DAY_MS = 86_400_000;
/** Browsers refuse server certificates that live longer than 398 days. */
const SERVER_DAYS = 397;
const BASIC_CONSTRAINTS = "2.5.29.19";
const KEY_USAGE = "2.5.29.15";
const EXTENDED_KEY_USAGE = "2.5.29.37";
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";

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
  const caKeys = await newP256Keys();
  const serverKeys = await newP256Keys();
  const ca = await signCertificate({
    subject: "Stile development CA",
    issuer: "Stile development CA",
    subjectKey: caKeys.publicKey,
    issuerKey: caKeys.publicKey,
    signingKey: caKeys.privateKey,
    nowMs,
    lifetimeMs: SERVER_DAYS * DAY_MS,
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
    lifetimeMs: SERVER_DAYS * DAY_MS,
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
  return { ca, certificate, key: await privateKeyPem(serverKeys.privateKey) };
}

function ipAddress(bytes: readonly number[]): OctetString {
  return new OctetString({ valueHex: Uint8Array.from(bytes).buffer });
}
