/** The CAs and CRLs that client certificates are verified with: from files that may change while the service runs. */
import type { X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import { certificatesIn } from "../pem.ts";
import { watchFiles, type WatchedFiles } from "../watched-files.ts";
import { checkCrls, invalid, MAX_CRL_BYTES } from "./crl.ts";

/** As Node's secure contexts take it. Another object after each change. */
export interface ClientTrust {
  /** PEM */
  readonly ca: string;
  /** PEM, one each; with them, OpenSSL asks for a current CRL of each CA in a path. */
  readonly crl?: string[];
  /** When the first of the CRLs ends, Unix milliseconds. */
  readonly endsMs: number;
}

export interface ClientTrustFiles {
  readonly caFile: string;
  readonly crlFile?: string;
}

const MAX_CAS = 64;

/** @throws `TLS_CLIENT_CA_INVALID` where the files cannot be used at start */
export function watchClientTrust(
  { caFile, crlFile }: ClientTrustFiles,
  options: {
    readonly pollMs: number;
    readonly clock: () => number;
    readonly observe: (isUsable: boolean, reason?: string) => void;
  },
): WatchedFiles<ClientTrust> {
  try {
    return watchFiles({
      files: crlFile === undefined ? [caFile] : [caFile, crlFile],
      maxBytes: MAX_CRL_BYTES,
      pollMs: options.pollMs,
      parse: ([ca, crl]) => readTrust(String(ca), crl && String(crl), options.clock()),
      observe: (isUsable, error) =>
        options.observe(isUsable, isUsable ? undefined : reasonOf(error)),
    });
  } catch (cause) {
    throw invalid(reasonOf(cause), cause);
  }
}

function readTrust(ca: string, crl: string | undefined, nowMs: number): ClientTrust {
  const cas = certificatesIn(ca);
  if (cas.length === 0 || cas.length > MAX_CAS) throw invalid("no CA, or too many");
  if (cas.some((certificate) => !certificate.ca)) throw invalid("a CA that is none");
  if (!cas.some((certificate) => isRoot(certificate))) throw invalid("no root among the CAs");
  const crls =
    crl === undefined ? { endsMs: Number.POSITIVE_INFINITY } : checkCrls(crl, cas, nowMs);
  const trust = { ca, ...crls };
  // What it does not take would end handshakes later.
  createSecureContext(trust);
  return trust;
}

/** OpenSSL wants each path to end in one. */
function isRoot(certificate: X509Certificate): boolean {
  return certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey);
}

function reasonOf(error: unknown): string {
  return error instanceof Error && !("errno" in error) && !("library" in error)
    ? error.message.replace(/^client certificates: /, "")
    : "a file cannot be read";
}
