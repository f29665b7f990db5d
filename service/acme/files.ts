/**
 * Where the files of ACME lie: certificates, and the pending tls-alpn-01 challenges. Any process that serves the public
 * port finds both by the configuration alone; the one that holds the state folder writes them.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CertificateFiles, ChallengeCertificates } from "../../tls/index.ts";
import type { AcmeCertificateConfig, Config } from "../config/index.ts";
import { PARTIAL_NAME_CHARS } from "../stores/durable-file.ts";

export interface WantedCertificate extends AcmeCertificateConfig {
  /** Where key and chain are kept. */
  readonly file: string;
}

type AcmeSettings = Pick<Config, "acme" | "stateDir">;

export function wantedCertificates({ acme, stateDir }: AcmeSettings): readonly WantedCertificate[] {
  return (acme?.certificates ?? []).map((wanted) => ({
    ...wanted,
    file: join(stateDir, "acme", fileNameOf(wanted)),
  }));
}

/** For the listener: each may be missing still. */
export function acmeCertificateFiles(config: AcmeSettings): readonly CertificateFiles[] {
  return wantedCertificates(config).map(({ file, names }) => ({
    certificateFile: file,
    keyFile: file,
    names,
    isAwaited: true,
  }));
}

/** Other names, another file: a kept certificate is never taken for another set of names. */
function fileNameOf({ keyType, names }: AcmeCertificateConfig): string {
  const [first = ""] = names;
  const digest = sha256(JSON.stringify([keyType, names]));
  const name = `${first}-${keyType}-${digest.slice(0, 8)}.pem`;
  // Whatever was written before keeps its name: another one would be asked for anew.
  return fits(name) ? name : `${shortened(first)}-${keyType}-${digest}.pem`;
}

/** As file systems have it, in bytes; DNS names are up to 253 long. */
const MAX_FILE_NAME = 255;
const SHORTENED = 64;

/** Also with what the name has at its end while the file is written. */
function fits(name: string): boolean {
  return name.length + PARTIAL_NAME_CHARS <= MAX_FILE_NAME;
}

/** For people; the digest behind it tells names apart. */
function shortened(name: string): string {
  return name.slice(0, SHORTENED);
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

export function pendingFolder({ stateDir }: Pick<Config, "stateDir">): string {
  return join(stateDir, "acme", "pending");
}

/** @param name of the configuration */
export function pendingFile(folder: string, name: string): string {
  const file = `${name}.pem`;
  // The digest is longer than a label of a DNS name may be: no other name has this file.
  return join(folder, fits(file) ? file : `${shortened(name)}-${sha256(name)}.pem`);
}

/** What the listener answers challenges with; undefined where the setting is none of tls-alpn-01. */
export function challengeCertificates(config: AcmeSettings): ChallengeCertificates | undefined {
  if (config.acme?.challenge !== "tls-alpn-01") return undefined;
  const names = new Set(config.acme.certificates.flatMap((wanted) => wanted.names));
  const folder = pendingFolder(config);
  return (name) => {
    // Nothing is looked for under a name that a client made up.
    if (!names.has(name)) return undefined;
    const pem = readIfThere(pendingFile(folder, name));
    if (pem === undefined) return undefined;
    return { cert: pem, key: pem, signsWith: "ECDSA+SHA256", names: [name], notAfterMs: Infinity };
  };
}

/** Whatever keeps it from being read: the handshake is refused then. */
function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
