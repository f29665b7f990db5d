/**
 * Where the files of ACME lie: certificates, and the pending tls-alpn-01 challenges. Any process that serves the public
 * port finds both by the configuration alone; the one that holds the state folder writes them.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CertificateFiles, ChallengeCertificates } from "../../tls/index.ts";
import type { AcmeCertificateConfig, Config } from "../config/index.ts";

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
  const digest = createHash("sha256")
    .update(JSON.stringify([keyType, names]))
    .digest("hex");
  return `${names[0] ?? ""}-${keyType}-${digest.slice(0, 8)}.pem`;
}

export function pendingFolder({ stateDir }: Pick<Config, "stateDir">): string {
  return join(stateDir, "acme", "pending");
}

/** @param name of the configuration */
export function pendingFile(folder: string, name: string): string {
  return join(folder, `${name}.pem`);
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
