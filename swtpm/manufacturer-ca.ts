/**
 * A local "TPM manufacturer": a root, an intermediate and EK certificates that follow the TCG EK
 * Credential Profile (v2.5 §3.2). It makes software TPMs pass where its root is configured, so its
 * root must be trusted in tests, demos and development only.
 */
import { randomBytes, type webcrypto } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Crypto } from "@peculiar/webcrypto";
import * as asn1js from "asn1js";
import * as pkijs from "pkijs";
import { decodePem, encodePem } from "./pem.ts";
import {
  authorityKeyIdentifier,
  basicConstraints,
  commonName,
  ekExtendedKeyUsage,
  ekSubjectAltName,
  keyUsage,
  KEY_USAGE,
  subjectKeyIdentifier,
  tpmSpecification,
} from "./extensions.ts";

const CURVE = { name: "ECDSA", namedCurve: "P-256" } as const;
const HASH = "SHA-256";
const YEAR_MS = 365.25 * 86_400_000;
const CA_YEARS = 20;
/** A clock that is an hour slow at the verifier must not refuse a fresh certificate. */
const BACKDATE_MS = 3_600_000;
/** EK Credential Profile §3.2.6: the value for an EK certificate without a well-defined end. */
const NO_WELL_DEFINED_EXPIRATION = Date.UTC(9999, 11, 31, 23, 59, 59);

export interface ManufacturerCa {
  /** The trust root, DER. */
  readonly root: Uint8Array;
  readonly rootPem: string;
  /** The certificate that issues EK certificates, DER. */
  readonly intermediate: Uint8Array;
  /**
   * An EK certificate, DER.
   * @param spki SubjectPublicKeyInfo of the EK, DER
   */
  issueEkCertificate(spki: Uint8Array, algorithm: "rsa" | "ecc"): Promise<Uint8Array>;
}

export interface ManufacturerCaDeps {
  /** Unix milliseconds. */
  readonly clock: () => number;
}

interface StoredCa {
  readonly root: Uint8Array;
  readonly intermediate: Uint8Array;
  /** PKCS #8 of the intermediate's key. The root's key is thrown away after its one signature. */
  readonly intermediateKey: Uint8Array;
}

/** A new manufacturer that lives in memory. */
export async function createManufacturerCa(deps: ManufacturerCaDeps): Promise<ManufacturerCa> {
  const engine = createEngine();
  return openStored(deps, engine, await generate(deps, engine));
}

/** The manufacturer kept in `folder`, made there at first use. Its key lies there in the clear. */
export async function openManufacturerCa(
  deps: ManufacturerCaDeps & { readonly folder: string },
): Promise<ManufacturerCa> {
  const engine = createEngine();
  const stored = readStored(deps.folder);
  if (stored !== undefined) return openStored(deps, engine, stored);
  return openStored(deps, engine, storeOnce(deps.folder, await generate(deps, engine)));
}

const FILES = {
  root: ["root.pem", "CERTIFICATE"],
  intermediate: ["intermediate.pem", "CERTIFICATE"],
  intermediateKey: ["intermediate-key.pem", "PRIVATE KEY"],
} as const;

function readStored(folder: string): StoredCa | undefined {
  const read = ([name, label]: readonly [string, string]): Uint8Array =>
    decodePem(readFileSync(join(folder, name), "utf8"), label);
  try {
    return {
      root: read(FILES.root),
      intermediate: read(FILES.intermediate),
      intermediateKey: read(FILES.intermediateKey),
    };
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Puts all three files in place by one rename: of two processes that start, both use the first's. */
function storeOnce(folder: string, ca: StoredCa): StoredCa {
  mkdirSync(dirname(folder), { recursive: true });
  const draft = mkdtempSync(`${folder}.`);
  for (const key of ["root", "intermediate", "intermediateKey"] as const) {
    const [name, label] = FILES[key];
    writeFileSync(join(draft, name), encodePem(ca[key], label), { mode: 0o600 });
  }
  try {
    renameSync(draft, folder);
    return ca;
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    const first = readStored(folder);
    if (first === undefined) throw error;
    return first;
  }
}

async function generate(deps: ManufacturerCaDeps, engine: pkijs.CryptoEngine): Promise<StoredCa> {
  const rootKeys = await generateKeys(engine);
  const keys = await generateKeys(engine);
  const rootName = commonName("Stile software TPM root");
  const now = deps.clock();
  const validity = { notBefore: now - BACKDATE_MS, notAfter: now + CA_YEARS * YEAR_MS };
  const root = await issue(engine, rootKeys.privateKey, {
    ...validity,
    issuer: rootName,
    subject: rootName,
    publicKey: await exportSpki(engine, rootKeys.publicKey),
    extensions: (spki) => [
      basicConstraints(true, 1),
      keyUsage(KEY_USAGE.keyCertSign | KEY_USAGE.cRLSign),
      subjectKeyIdentifier(spki),
    ],
  });
  const rootSpki = await exportSpki(engine, rootKeys.publicKey);
  const intermediate = await issue(engine, rootKeys.privateKey, {
    ...validity,
    issuer: rootName,
    subject: commonName("Stile software TPM EK issuer"),
    publicKey: await exportSpki(engine, keys.publicKey),
    extensions: (spki) => [
      basicConstraints(true, 0),
      keyUsage(KEY_USAGE.keyCertSign | KEY_USAGE.cRLSign),
      subjectKeyIdentifier(spki),
      authorityKeyIdentifier(rootSpki),
    ],
  });
  const intermediateKey = new Uint8Array(await engine.exportKey("pkcs8", keys.privateKey));
  return { root, intermediate, intermediateKey };
}

async function openStored(
  deps: ManufacturerCaDeps,
  engine: pkijs.CryptoEngine,
  stored: StoredCa,
): Promise<ManufacturerCa> {
  const key = await engine.importKey("pkcs8", copy(stored.intermediateKey), CURVE, false, ["sign"]);
  const issuer = pkijs.Certificate.fromBER(copy(stored.intermediate));
  const issuerSpki = new Uint8Array(issuer.subjectPublicKeyInfo.toSchema().toBER());
  return {
    root: stored.root,
    rootPem: encodePem(stored.root, "CERTIFICATE"),
    intermediate: stored.intermediate,
    issueEkCertificate: (spki, algorithm) =>
      issue(engine, key, {
        notBefore: deps.clock() - BACKDATE_MS,
        notAfter: NO_WELL_DEFINED_EXPIRATION,
        issuer: issuer.subject,
        // §3.2.5: an EK certificate has an empty subject; the TPM is named in subjectAltName.
        subject: new pkijs.RelativeDistinguishedNames(),
        publicKey: spki,
        extensions: () => [
          basicConstraints(false),
          keyUsage(algorithm === "rsa" ? KEY_USAGE.keyEncipherment : KEY_USAGE.keyAgreement),
          ekExtendedKeyUsage(),
          ekSubjectAltName(),
          tpmSpecification(),
          authorityKeyIdentifier(issuerSpki),
        ],
      }),
  };
}

interface CertificateFields {
  readonly issuer: pkijs.RelativeDistinguishedNames;
  readonly subject: pkijs.RelativeDistinguishedNames;
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  readonly extensions: (spki: Uint8Array) => pkijs.Extension[];
}

async function issue(
  engine: pkijs.CryptoEngine,
  signer: CryptoKey,
  fields: CertificateFields,
): Promise<Uint8Array> {
  const certificate = new pkijs.Certificate();
  certificate.version = 2;
  certificate.serialNumber = new asn1js.Integer({ valueHex: copy(serialNumber()).buffer });
  certificate.issuer = fields.issuer;
  certificate.subject = fields.subject;
  certificate.notBefore = time(fields.notBefore);
  certificate.notAfter = time(fields.notAfter);
  certificate.subjectPublicKeyInfo = pkijs.PublicKeyInfo.fromBER(copy(fields.publicKey));
  certificate.extensions = fields.extensions(fields.publicKey);
  // Node's SubtleCrypto type has key encapsulation, which pkijs declares and its engine lacks.
  await certificate.sign(signer, HASH, engine as unknown as pkijs.ICryptoEngine);
  return new Uint8Array(certificate.toSchema(true).toBER());
}

/** RFC 5280 §4.1.2.2: positive and at most 20 bytes; the set bit avoids a leading zero byte. */
function serialNumber(): Uint8Array {
  const serial = new Uint8Array(randomBytes(16));
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  return serial;
}

/** RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime after. */
function time(milliseconds: number): pkijs.Time {
  const value = new Date(milliseconds);
  return new pkijs.Time({ type: value.getUTCFullYear() < 2050 ? 0 : 1, value });
}

function createEngine(): pkijs.CryptoEngine {
  return new pkijs.CryptoEngine({ name: "stile", crypto: new Crypto() });
}

async function generateKeys(engine: pkijs.CryptoEngine): Promise<webcrypto.CryptoKeyPair> {
  // The DOM type of generateKey is a union that ECDSA with two usages narrows.
  return (await engine.generateKey(CURVE, true, ["sign", "verify"])) as webcrypto.CryptoKeyPair;
}

async function exportSpki(engine: pkijs.CryptoEngine, key: CryptoKey): Promise<Uint8Array> {
  return new Uint8Array(await engine.exportKey("spki", key));
}

/** asn1js reads the whole buffer of a view: it gets memory of its own. */
function copy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}
