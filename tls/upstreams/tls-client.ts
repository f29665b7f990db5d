/**
 * TLS towards an upstream: 1.2 or newer, its certificate always verified against a name, with a certificate of
 * our own where it wants one. The files are looked at again like the listener's; a broken one keeps the old.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP, type Socket } from "node:net";
import {
  checkServerIdentity,
  connect,
  createSecureContext,
  type PeerCertificate,
  type SecureContext,
  type TLSSocket,
} from "node:tls";
import { StileError } from "../../wire/index.ts";
import { certificatesIn } from "../pem.ts";
import { watchClosure } from "./closure.ts";

export interface UpstreamTlsOptions {
  /** Host name or address that is connected to; it is also what the certificate must be for. */
  readonly host: string;
  /** What it must be for instead. */
  readonly serverName?: string;
  /** PEM; without it, the CAs that Node carries. */
  readonly caFile?: string;
  /** Our own; both or none. */
  readonly certificateFile?: string;
  readonly keyFile?: string;
  /** Takes any certificate: whoever is on the way reads and changes everything. */
  readonly unsafeSkipVerification?: boolean;
  /** Milliseconds of a clock that does not go back. */
  readonly clock: () => number;
  readonly observe: (event: "files-reloaded" | "files-failed") => void;
}

export interface UpstreamTls {
  /** @returns the client's side on a connected socket; `secureConnect` tells that it is verified */
  readonly wrap: (raw: Socket) => TLSSocket;
  /** Looks at the files now. */
  readonly look: () => void;
  /** Grows with each change of the files: what was connected under a lower one is not to be kept. */
  readonly version: () => number;
}

/** After this long a handshake is made in full: a resumed one does not look at the certificate. */
const MAX_RESUMED_MS = 3_600_000;

/** @throws `TLS_UPSTREAM_FILES_INVALID` where files cannot be used at start */
export function createUpstreamTls(options: UpstreamTlsOptions): UpstreamTls {
  const { clock, host, observe, serverName, unsafeSkipVerification = false } = options;
  // An address is no server name (RFC 6066 §3), but the certificate must be for it all the same.
  const servername = serverName ?? (isIP(host) === 0 ? host : undefined);
  let known = readFiles(options);
  let context = contextOf(known);
  let session: Buffer | undefined;
  let verifiedMs = clock();
  let failed: string | undefined;
  let version = 0;

  return {
    version: () => version,
    wrap: (raw) => {
      const madeWith = context;
      const isFresh = clock() - verifiedMs < MAX_RESUMED_MS;
      const socket = connect({
        socket: raw,
        host,
        secureContext: context,
        ...(servername === undefined ? {} : { servername }),
        minVersion: "TLSv1.2",
        ALPNProtocols: ["http/1.1"],
        rejectUnauthorized: !unsafeSkipVerification,
        checkServerIdentity: checkName,
        ...(session === undefined || !isFresh ? {} : { session }),
      });
      watchClosure(socket, raw);
      socket.once("secureConnect", () => {
        if (!socket.isSessionReused()) verifiedMs = clock();
      });
      socket.on("session", (next) => {
        if (madeWith === context) session = next;
      });
      return socket;
    },
    look: () => {
      try {
        const next = readFiles(options);
        failed = undefined;
        if (isSame(next, known)) return;
        context = contextOf(next);
        known = next;
        session = undefined;
        version += 1;
        observe("files-reloaded");
      } catch (error) {
        // Once for each way in which the files are broken, not once for each look at them.
        const reason = error instanceof StileError ? String(error.cause) : String(error);
        if (reason !== failed) observe("files-failed");
        failed = reason;
      }
    },
  };
}

/** RFC 9525 §2: names are in the subjectAltName. Node would take the subject's common name where there is none. */
function checkName(host: string, certificate: PeerCertificate): Error | undefined {
  const subject = { ...certificate.subject, CN: "" };
  return checkServerIdentity(host, { ...certificate, subject });
}

interface TlsFiles {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

function isSame(a: TlsFiles, b: TlsFiles): boolean {
  return a.ca === b.ca && a.cert === b.cert && a.key === b.key;
}

function readFiles(options: UpstreamTlsOptions): TlsFiles {
  try {
    const read = (file: string | undefined): string | undefined =>
      file === undefined ? undefined : readFileSync(file, "utf8");
    const ca = read(options.caFile);
    const cert = read(options.certificateFile);
    const key = read(options.keyFile);
    // Node takes a file without any for a list of none, or for its own.
    if (ca !== undefined && certificatesIn(ca).length === 0) throw new Error("no CA certificate");
    if (
      cert !== undefined &&
      key !== undefined &&
      !new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
    ) {
      throw new Error("the key is not that of the certificate");
    }
    const files = { ca, cert, key };
    contextOf(files);
    return files;
  } catch (cause) {
    throw new StileError("TLS_UPSTREAM_FILES_INVALID", "the files of an upstream cannot be used", {
      cause,
    });
  }
}

function contextOf({ ca, cert, key }: TlsFiles): SecureContext {
  return createSecureContext({
    minVersion: "TLSv1.2",
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  });
}
