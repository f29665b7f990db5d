/**
 * The server certificates from files that may change while the listener runs. Their content is compared
 * at intervals, because Kubernetes swaps a symbolic link and file events miss that, and when asked to. A broken
 * new pair keeps its old one in use, and the others go on: a renewal that went wrong must not take the
 * service down. Beside each certificate its OCSP response may lie.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { StileError } from "../wire/index.ts";
import { createOcspFile, type OcspEvent, type OcspFile } from "./ocsp-file.ts";
import {
  certificatesByName,
  dnsNamesOf,
  type ServerCertificate,
  type ServerCertificates,
  signatureOf,
  wildcardOf,
} from "./server-names.ts";

export interface CertificateSource {
  readonly current: () => ServerCertificates;
  /** All that are in use, in their order. */
  readonly all: () => readonly ServerCertificate[];
  /** The OCSP response that goes with a certificate now. */
  readonly staple: (certificate: ServerCertificate) => Uint8Array | undefined;
  /** Calls back after each change to usable certificates. */
  readonly onChange: (listener: () => void) => void;
  /** Looks at the files now. A broken file is reported again, even if it was before. */
  readonly reload: () => void;
  readonly close: () => void;
}

export interface CertificateFiles {
  readonly certificateFile: string;
  readonly keyFile: string;
  /** Server names that it is used for, each covered by it; without them, all that it covers. */
  readonly names?: readonly string[];
  /** DER OCSPResponse; without it, `<certificateFile>.ocsp` where there is one. */
  readonly ocspFile?: string;
  /** May be missing or unusable at the start: it is made while the service runs. */
  readonly isAwaited?: boolean;
}

export type CertificateEvent = "certificate-reloaded" | "certificate-reload-failed" | OcspEvent;

export interface FileCertificatesOptions extends CertificateFiles {
  /** Further certificates, for other names or with keys of another type. */
  readonly further?: readonly CertificateFiles[];
  readonly pollMs: number;
  /** Unix milliseconds: a new certificate that has ended does not replace one in use. */
  readonly clock: () => number;
  /** @param certificateFile whose certificate it is about; the files' content is never told */
  readonly observe: (event: CertificateEvent, certificateFile: string, reason?: string) => void;
}

/** One pair of files, and what was last usable of it. */
interface WatchedPair {
  readonly files: CertificateFiles;
  /** None where it is still awaited. */
  certificate: ServerCertificate | undefined;
  readonly ocsp: OcspFile;
  /** In which way the files are broken at the moment. */
  failed: string | undefined;
}

/** @throws `TLS_CERTIFICATE_INVALID` where files cannot be used at start */
export function fileCertificates(options: FileCertificatesOptions): CertificateSource {
  const { clock, observe } = options;
  const pairs = [options, ...(options.further ?? [])].map((files) => watch(files, observe));
  const all = (): readonly ServerCertificate[] =>
    pairs.map(({ certificate }) => certificate).filter((certificate) => certificate !== undefined);
  const index = (): ServerCertificates => certificatesByName(all());
  let current = index();
  const listeners: (() => void)[] = [];

  const lookAtOcsp = (): void => {
    for (const { certificate, ocsp } of pairs) {
      if (certificate !== undefined) ocsp.look(certificate.cert, clock());
    }
  };

  function look(): void {
    const changed = pairs.filter((pair) => lookAt(pair, clock(), observe));
    lookAtOcsp();
    if (changed.length === 0) return;
    current = index();
    for (const listener of listeners) listener();
    for (const { files } of changed) observe("certificate-reloaded", files.certificateFile);
  }

  lookAtOcsp();
  const timer = setInterval(look, options.pollMs);
  timer.unref();
  return {
    current: () => current,
    all,
    staple: (certificate) =>
      pairs
        .find((pair) => pair.certificate === certificate)
        ?.ocsp.staple(certificate.cert, clock()),
    onChange: (listener) => listeners.push(listener),
    reload: () => {
      for (const pair of pairs) {
        pair.failed = undefined;
        pair.ocsp.forget();
      }
      look();
    },
    close: () => clearInterval(timer),
  };
}

function watch(files: CertificateFiles, observe: FileCertificatesOptions["observe"]): WatchedPair {
  const ocsp = createOcspFile({
    file: files.ocspFile ?? `${files.certificateFile}.ocsp`,
    isExpected: files.ocspFile !== undefined,
    observe: (event, reason) => observe(event, files.certificateFile, reason),
  });
  const pair: WatchedPair = { files, certificate: undefined, ocsp, failed: undefined };
  try {
    pair.certificate = readPair(files, undefined);
  } catch (error) {
    if (files.isAwaited !== true) throw error;
    // Reported by the first look, unless it is whole by then.
  }
  return pair;
}

/** True where the pair has changed to another usable one. */
function lookAt(
  pair: WatchedPair,
  nowMs: number,
  observe: FileCertificatesOptions["observe"],
): boolean {
  if (pair.certificate === undefined && !existsSync(pair.files.certificateFile)) return false;
  try {
    const next = readPair(pair.files, nowMs, pair.certificate);
    pair.failed = undefined;
    if (next === pair.certificate) return false;
    pair.certificate = next;
    return true;
  } catch (error) {
    // Once for each way in which the files are broken, not once for each look at them.
    const reason = error instanceof StileError ? String(error.cause) : String(error);
    if (reason !== pair.failed) observe("certificate-reload-failed", pair.files.certificateFile);
    pair.failed = reason;
    return false;
  }
}

/**
 * @param nowMs undefined at start: a certificate that has ended is better than none of the others
 * @returns `known` itself where the files hold it
 */
function readPair(
  files: CertificateFiles,
  nowMs: number | undefined,
  known?: ServerCertificate,
): ServerCertificate {
  try {
    const cert = readFileSync(files.certificateFile, "utf8");
    // One file may hold both, so that they change in one step.
    const key =
      files.keyFile === files.certificateFile ? cert : readFileSync(files.keyFile, "utf8");
    if (known !== undefined && cert === known.cert && key === known.key) return known;
    const leaf = new X509Certificate(cert);
    const privateKey = createPrivateKey(key);
    if (!leaf.checkPrivateKey(privateKey)) {
      throw new Error("the key is not that of the certificate");
    }
    if (nowMs !== undefined && leaf.validToDate.getTime() <= nowMs) {
      throw new Error("the certificate has ended");
    }
    // X509Certificate reads the first certificate only: the intermediates must be usable too.
    createSecureContext({ cert, key });
    const signsWith = signatureOf(privateKey);
    const notAfterMs = leaf.validToDate.getTime();
    return { cert, key, signsWith, names: namesOf(leaf, files.names), notAfterMs };
  } catch (cause) {
    throw new StileError("TLS_CERTIFICATE_INVALID", "the TLS certificate and key cannot be used", {
      cause,
    });
  }
}

/** A name that the certificate does not cover would end every handshake that asks for it. */
function namesOf(leaf: X509Certificate, wanted: readonly string[] | undefined): readonly string[] {
  const covered = dnsNamesOf(leaf);
  if (wanted === undefined) return covered;
  const names = wanted.map((name) => name.toLowerCase());
  const isCovered = (name: string): boolean =>
    covered.includes(name) || covered.includes(wildcardOf(name));
  if (!names.every(isCovered)) throw new Error("the certificate does not cover its names");
  return names;
}
