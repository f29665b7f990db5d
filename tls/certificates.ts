/**
 * The server certificate from two files that may change while the listener runs. The content is compared
 * at intervals, because Kubernetes swaps a symbolic link and file events miss that. A broken new pair
 * keeps the old one in use: a renewal that went wrong must not take the service down.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { StileError } from "../wire/index.ts";

export interface ServerCertificate {
  /** PEM: the certificate and its intermediates. */
  readonly cert: string;
  /** PEM. Secret. */
  readonly key: string;
}

export interface CertificateSource {
  readonly current: () => ServerCertificate;
  /** Calls back after each change to a usable pair. */
  readonly onChange: (listener: (certificate: ServerCertificate) => void) => void;
  readonly close: () => void;
}

export interface FileCertificatesOptions {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly pollMs: number;
  readonly observe: (event: "certificate-reloaded" | "certificate-reload-failed") => void;
}

/** @throws `TLS_CERTIFICATE_INVALID` where the files cannot be used at start */
export function fileCertificates(options: FileCertificatesOptions): CertificateSource {
  let current = readPair(options);
  let failed: string | undefined;
  const listeners: ((certificate: ServerCertificate) => void)[] = [];

  function look(): void {
    try {
      const next = readPair(options);
      failed = undefined;
      if (next.cert === current.cert && next.key === current.key) return;
      for (const listener of listeners) listener(next);
      current = next;
      options.observe("certificate-reloaded");
    } catch (error) {
      // Once for each way in which the files are broken, not once for each look at them.
      const reason = error instanceof StileError ? String(error.cause) : String(error);
      if (reason !== failed) options.observe("certificate-reload-failed");
      failed = reason;
    }
  }

  const timer = setInterval(look, options.pollMs);
  timer.unref();
  return {
    current: () => current,
    onChange: (listener) => listeners.push(listener),
    close: () => clearInterval(timer),
  };
}

function readPair(options: FileCertificatesOptions): ServerCertificate {
  try {
    const cert = readFileSync(options.certificateFile, "utf8");
    const key = readFileSync(options.keyFile, "utf8");
    if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
      throw new Error("the key is not that of the certificate");
    }
    // X509Certificate reads the first certificate only: the intermediates must be usable too.
    createSecureContext({ cert, key });
    return { cert, key };
  } catch (cause) {
    throw new StileError("TLS_CERTIFICATE_INVALID", "the TLS certificate and key cannot be used", {
      cause,
    });
  }
}
