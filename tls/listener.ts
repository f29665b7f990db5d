/**
 * The public listener: TLS 1.3 only (RFC 8446), HTTP/1.1. It accepts, limits, times out and drains; what a
 * request means is its handlers' business. There is no 0-RTT: Node offers none, and a token in replayable
 * data would be a token spent twice (RFC 9577 §5.2).
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server, type ServerOptions } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { SecureContextOptions } from "node:tls";
import type { CertificateSource, ServerCertificate } from "./certificates.ts";

/** What the listener counts. A closed set, so that it can label a metric. */
export type TlsEvent =
  | "handshake"
  | "handshake-failed"
  | "connection-dropped"
  | "client-error"
  | "certificate-reloaded"
  | "certificate-reload-failed";

export interface ListenerLimits {
  readonly maxConnections: number;
  readonly handshakeTimeoutMs: number;
  /** From the first byte of a head, or from the handshake on, to the head's end. */
  readonly headersTimeoutMs: number;
  /** Silence on a connection, in either direction, after which it is cut. */
  readonly idleTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
}

export const DEFAULT_LISTENER_LIMITS: ListenerLimits = {
  maxConnections: 10_000,
  handshakeTimeoutMs: 10_000,
  headersTimeoutMs: 15_000,
  idleTimeoutMs: 120_000,
  keepAliveTimeoutMs: 75_000,
  maxHeaderBytes: 16_384,
  maxHeaders: 100,
};

export interface ListenerOptions {
  readonly certificates: CertificateSource;
  readonly limits: ListenerLimits;
  /** Also gets requests with `Expect: 100-continue`, before anything was continued. */
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
  readonly observe: (event: TlsEvent) => void;
}

export interface Listener {
  /** @param port 0 takes any free port */
  readonly listen: (at: {
    readonly host: string;
    readonly port: number;
  }) => Promise<{ readonly port: number }>;
  /** Stops accepting, lets open requests end until the deadline, then cuts what is left. */
  readonly drain: (deadlineMs: number) => Promise<void>;
}

/**
 * Groups (RFC 8446 §4.2.7): the hybrid with ML-KEM first. "/" makes OpenSSL ask a client that offers it
 * for a second ClientHello rather than take the client's first guess.
 */
const GROUPS = "X25519MLKEM768/X25519:P-256";
const ALPN_PROTOCOLS = ["http/1.1"];
/** How often Node looks at its timeouts: their resolution. */
const TIMEOUT_CHECK_MS = 1_000;

export function createListener(options: ListenerOptions): Listener {
  const { limits, observe } = options;
  const server = createServer(serverOptions(options.certificates.current(), limits));
  server.maxConnections = limits.maxConnections;
  server.maxHeadersCount = limits.maxHeaders;
  // Node's types do not know it yet.
  Object.assign(server, { dropMaxConnection: true });
  server.setTimeout(limits.idleTimeoutMs);
  server.on("request", options.handler);
  server.on("checkContinue", options.handler);
  server.on("checkExpectation", options.handler);
  server.on("upgrade", options.upgrade);
  server.on("secureConnection", () => observe("handshake"));
  server.on("drop", () => observe("connection-dropped"));
  server.on("tlsClientError", (_error, socket) => {
    observe("handshake-failed");
    // Node reports a timed-out handshake and leaves the socket open.
    socket.destroy();
  });
  server.on("clientError", (error, socket) => {
    observe("client-error");
    refuseMalformed(error, socket);
  });
  options.certificates.onChange((certificate) => {
    // The whole set: setSecureContext forgets what it is not given, TLS 1.3-only first of all.
    server.setSecureContext(secureContext(certificate));
  });
  const sockets = trackSockets(server);
  return { listen: (at) => listen(server, at), drain: (ms) => drain(server, sockets, ms) };
}

function secureContext(certificate: ServerCertificate): SecureContextOptions {
  return {
    cert: certificate.cert,
    key: certificate.key,
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    ecdhCurve: GROUPS,
    honorCipherOrder: true,
  };
}

function serverOptions(certificate: ServerCertificate, limits: ListenerLimits): ServerOptions {
  return {
    ...secureContext(certificate),
    ALPNProtocols: ALPN_PROTOCOLS,
    handshakeTimeout: limits.handshakeTimeoutMs,
    headersTimeout: limits.headersTimeoutMs,
    // A large upload may take long; silence is bounded by the idle timeout instead.
    requestTimeout: 0,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    connectionsCheckingInterval: TIMEOUT_CHECK_MS,
    maxHeaderSize: limits.maxHeaderBytes,
    insecureHTTPParser: false,
    requireHostHeader: true,
    noDelay: true,
  };
}

const REFUSALS: Readonly<Record<string, string>> = {
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
};

/** One short answer to what is no request, then the end of the connection. */
function refuseMalformed(error: Error & { code?: string }, socket: Duplex): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const status = REFUSALS[error.code ?? ""] ?? "400 Bad Request";
  socket.end(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`, () =>
    socket.destroy(),
  );
}

function listen(
  server: Server,
  at: { readonly host: string; readonly port: number },
): Promise<{ readonly port: number }> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(at.port, at.host, () => {
      server.off("error", reject);
      const { port } = server.address() as AddressInfo;
      resolve({ port });
    });
  });
}

/** Every open connection, with the number of answers that are under way on it. */
type OpenSockets = ReadonlyMap<Socket, { answering: number; close: boolean }>;

function trackSockets(server: Server): OpenSockets {
  const open = new Map<Socket, { answering: number; close: boolean }>();
  server.on("secureConnection", (socket) => {
    open.set(socket, { answering: 0, close: false });
    socket.once("close", () => open.delete(socket));
  });
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const state = open.get(request.socket);
    if (state === undefined) return;
    state.answering += 1;
    response.once("close", () => {
      state.answering -= 1;
      if (state.close && state.answering === 0) request.socket.end();
    });
  };
  server.prependListener("request", onRequest);
  server.prependListener("checkContinue", onRequest);
  return open;
}

async function drain(server: Server, sockets: OpenSockets, deadlineMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  // close() leaves connections that never sent a request, so each is looked at here.
  for (const [socket, state] of sockets) {
    state.close = true;
    if (state.answering === 0) socket.destroy();
  }
  const deadline = setTimeout(() => {
    for (const socket of sockets.keys()) socket.destroy();
  }, deadlineMs);
  await closed;
  clearTimeout(deadline);
}
