/**
 * The public listener: TLS 1.3 only (RFC 8446), HTTP/2 and HTTP/1.1. It accepts, limits, times out and drains; what a
 * request means is its handlers' business. There is no 0-RTT: Node offers none, and a token in replayable
 * data would be a token spent twice (RFC 9577 §5.2).
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server, type ServerOptions } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { type ChallengeCertificates, createAlpnChallenges, endChallenge } from "./acme-alpn.ts";
import { fatalAlert } from "./alert.ts";
import type { CertificateEvent, CertificateSource } from "./certificates.ts";
import type { ClientCertificateEvent, ClientCertificates } from "./clients/client-certificates.ts";
import { closeSoon } from "./close-soon.ts";
import { type Connections, trackConnections } from "./connections.ts";
import {
  createFront,
  type FrontEvent,
  type FrontLimits,
  type FrontOptions,
} from "./front/front.ts";
import { createHttp2, type Http2Event, type ServeHttp2 } from "./h2/session.ts";
import { DEFAULT_HTTP2_LIMITS, type Http2Limits } from "./h2/limits.ts";
import { limitPipelining } from "./pipelining.ts";
import { createServerContexts, type ServerContexts } from "./server-contexts.ts";
import type { FastPath } from "./splice/splicer.ts";
import type { TicketKeyEvent, TicketKeySource } from "./ticket-keys.ts";

/** What the listener counts. A closed set, so that it can label a metric. */
export type TlsEvent =
  | "handshake"
  | "handshake-failed"
  | "connection-dropped"
  | "client-error"
  | FrontEvent
  | CertificateEvent
  | ClientCertificateEvent
  | Http2Event
  | TicketKeyEvent;

export interface ListenerLimits extends FrontLimits, Http2Limits {
  readonly maxConnections: number;
  /** Requests of one connection that are handled at the same time; further ones wait. */
  readonly maxPipelined: number;
  readonly handshakeTimeoutMs: number;
  /** From the first byte of a head, or from the handshake on, to the head's end. */
  readonly headersTimeoutMs: number;
  /** For a whole request with its body, however steadily it trickles. */
  readonly requestTimeoutMs: number;
  /** Silence of a client that has a body to send or an answer to read. */
  readonly idleTimeoutMs: number;
  /** Between requests; Node adds one second. */
  readonly keepAliveTimeoutMs: number;
  /** How often Node looks at the head and request timeouts: their resolution. */
  readonly timeoutCheckMs: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
}

export const DEFAULT_LISTENER_LIMITS: ListenerLimits = {
  maxConnections: 10_000,
  maxConnectionsPerAddress: 1_000,
  maxHandshakesPerAddress: 256,
  maxHandshakes: 4_096,
  proxyHeaderTimeoutMs: 5_000,
  maxPipelined: 32,
  handshakeTimeoutMs: 10_000,
  headersTimeoutMs: 15_000,
  // 1 GiB in this time is 1.2 MB/s.
  requestTimeoutMs: 900_000,
  idleTimeoutMs: 60_000,
  keepAliveTimeoutMs: 75_000,
  timeoutCheckMs: 1_000,
  maxHeaderBytes: 16_384,
  maxHeaders: 100,
  ...DEFAULT_HTTP2_LIMITS,
};

export interface ListenerOptions {
  readonly certificates: CertificateSource;
  /**
   * What a client gets that asks for a server name which no certificate covers: the alert `unrecognized_name`,
   * or the first certificate. A client that names no server gets the first certificate in either case.
   */
  readonly unknownName: "refuse" | "first";
  readonly limits: ListenerLimits;
  /** Of session tickets; without them, one key lives as long as the process. */
  readonly ticketKeys?: TicketKeySource;
  /** Also gets requests with `Expect: 100-continue`, before anything was continued. */
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
  readonly observe: (event: TlsEvent) => void;
  /** What comes before TLS. */
  readonly front?: FrontOptions;
  /** Offers HTTP/2 before HTTP/1.1; without it, HTTP/1.1 alone. `random`: of a CSPRNG. */
  readonly http2?: { readonly random: (length: number) => Uint8Array };
  /** Gets every HTTP/1.1 connection first, and gives to node:http what it does not take. */
  readonly fastPath?: FastPath;
  /**
   * Asks clients for a certificate and takes any, or none: TLS proves that a client owns the one it shows, and
   * whether it counts is the handler's to say. There is no resumption then, which would skip the proof.
   */
  readonly asksForCertificates?: boolean;
  /** Asks by server name, and cuts who has none that counts where one is needed. */
  readonly clients?: ClientCertificates | undefined;
  /** Certificates of pending ACME challenges (RFC 8737). */
  readonly challenges?: ChallengeCertificates | undefined;
}

export interface Listener {
  readonly listen: (at: ListenAt) => Promise<{ readonly port: number }>;
  /**
   * Stops accepting, lets open requests end until the deadline, then cuts what is left.
   * @param idleMs how long connections without a request may still send one, their last; 0 cuts them at once, and
   * with them the requests that are on their way
   */
  readonly drain: (deadlineMs: number, idleMs?: number) => Promise<void>;
}

/** Port 0 is any free port; `fd` is a socket that somebody else has opened and bound. */
export type ListenAt = { readonly host: string; readonly port: number } | { readonly fd: number };

const H2 = "h2";
/** RFC 6066 §3. Node itself would only cut the connection. */
const UNRECOGNIZED_NAME = 112;

export function createListener(options: ListenerOptions): Listener {
  const { limits, observe } = options;
  const contexts = createServerContexts({
    ...options,
    alpn: createAlpnChallenges(options.challenges, protocolsOf(options)),
    refuseName: (socket) => connections.rawOf(socket)?.write(fatalAlert(UNRECOGNIZED_NAME)),
  });
  const server = createServer({
    ...contexts.fallback(),
    ...serverOptions(limits),
    ...contexts.negotiation,
  });
  server.maxConnections = limits.maxConnections;
  server.maxHeadersCount = limits.maxHeaders;
  const attachHttp = takeListener(server, "secureConnection");
  const front = createFront(limits, options.front ?? {}, {
    observe,
    startTls: takeListener(server, "connection"),
    onForward: (socket) => connections.setForwarded(socket),
  });
  // Node's types do not know it yet.
  Object.assign(server, { dropMaxConnection: true });
  const connections = trackConnections(server, front.secured);
  server.on("connection", front.accept);
  server.setTimeout(limits.idleTimeoutMs, (socket) => {
    if (!connections.isOurTurn(socket)) socket.destroy();
  });
  attachHandlers(server, connections, options);
  server.on("secureConnection", () => observe("handshake"));
  server.on("OCSPRequest", contexts.answerOcspRequest);
  server.on("secureConnection", startWith(options, server, connections, attachHttp));
  server.on("drop", () => observe("connection-dropped"));
  server.on("tlsClientError", (_error, socket) => {
    observe("handshake-failed");
    // Node reports a timed-out handshake and leaves the socket open.
    socket.destroy();
  });
  followSources(server, contexts, options);
  return { listen: (at) => listen(server, at), drain: connections.drain };
}

/** What node:http makes of its connections. Where an answer is owed, nothing of ours may come before it. */
function attachHandlers(server: Server, connections: Connections, options: ListenerOptions): void {
  const { limits, observe } = options;
  const handler = limitPipelining(options.handler, limits.maxPipelined);
  const refused = new WeakSet<Duplex>();
  const refuseOnce = (socket: Duplex, status: string): void => {
    refused.add(socket);
    refuse(socket, status);
  };
  for (const event of ["request", "checkContinue", "checkExpectation"]) server.on(event, handler);
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Node does not wait for the answers before it.
    if (!connections.endOwing(socket)) options.upgrade(request, socket, head);
  });
  server.on("connect", (_request: IncomingMessage, socket: Duplex) => {
    observe("client-error");
    if (!connections.endOwing(socket)) refuseOnce(socket, "400 Bad Request");
  });
  server.on("clientError", (error: Error & { code?: string }, socket) => {
    // Node repeats every 'tlsClientError' here: no HTTP to a client that does not speak TLS 1.3.
    if (!connections.isSecure(socket)) {
      socket.destroy();
      return;
    }
    // node:http finds each further piece of it as wrong as the first.
    if (refused.has(socket)) return;
    observe("client-error");
    if (error.code === "ECONNRESET") socket.destroy();
    else if (!connections.endOwing(socket)) {
      refuseOnce(socket, REFUSALS[error.code ?? ""] ?? "400 Bad Request");
    }
  });
}

function followSources(server: Server, contexts: ServerContexts, options: ListenerOptions): void {
  const { certificates, ticketKeys } = options;
  certificates.onChange(() => {
    server.setSecureContext(contexts.fallback());
  });
  ticketKeys?.onChange(() => {
    // Tickets under the key before are from now on answered with a full handshake.
    server.setTicketKeys(Buffer.from(ticketKeys.current()));
  });
}

/** What Node does with a connection once it is there, or secure: it is to be done later, or not at all. */
function takeListener(
  server: Server,
  event: "connection" | "secureConnection",
): (socket: Socket) => void {
  const [attach, ...others] = server.listeners(event);
  if (attach === undefined || others.length > 0) {
    throw new TypeError("node:https takes its connections in another way than is known here");
  }
  server.removeAllListeners(event);
  return (socket) => {
    Reflect.apply(attach, server, [socket]);
  };
}

/** HTTP/2 where that was agreed; else the fast path first where there is one. */
function startWith(
  options: ListenerOptions,
  server: Server,
  connections: Connections,
  toHttp: (socket: TLSSocket) => void,
): (socket: TLSSocket) => void {
  const { fastPath, limits } = options;
  const http2 = http2Of(options);
  /** As node:http says it of its own. */
  const tooLate = (socket: TLSSocket): void => {
    const error = Object.assign(new Error("too late"), { code: "ERR_HTTP_REQUEST_TIMEOUT" });
    server.emit("clientError", error, socket);
  };
  return (socket) => {
    options.clients?.settle(socket);
    if (socket.destroyed || endChallenge(socket)) return;
    if (http2 !== undefined && socket.alpnProtocol === H2) {
      connections.setFast(socket, http2(socket));
      return;
    }
    if (fastPath === undefined) {
      toHttp(socket);
      return;
    }
    const onLeave = (): void => connections.setFast(socket, undefined);
    connections.setFast(socket, fastPath(socket, { limits, toHttp, tooLate }, onLeave));
  };
}

/** Of ALPN, the preferred one first. */
function protocolsOf({ http2 }: ListenerOptions): readonly string[] {
  return http2 === undefined ? ["http/1.1"] : [H2, "http/1.1"];
}

function http2Of({ http2, ...options }: ListenerOptions): ServeHttp2 | undefined {
  return http2 && createHttp2({ ...options, ...http2 });
}

function serverOptions(limits: ListenerLimits): ServerOptions {
  return {
    handshakeTimeout: limits.handshakeTimeoutMs,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    connectionsCheckingInterval: limits.timeoutCheckMs,
    maxHeaderSize: limits.maxHeaderBytes,
    insecureHTTPParser: false,
    // checkRequestHead refuses it: Node's own answer would not be known as one that is under way.
    requireHostHeader: false,
    noDelay: true,
  };
}

const REFUSALS: Readonly<Record<string, string>> = {
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
};

/** One short answer to what is no request, then the end of the connection, read or not. */
function refuse(socket: Duplex, status: string): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.end(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
  closeSoon(socket);
}

function listen(server: Server, at: ListenAt): Promise<{ readonly port: number }> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(at, () => {
      server.off("error", reject);
      const { port } = server.address() as AddressInfo;
      resolve({ port });
    });
  });
}
