/**
 * The listener for plain HTTP: it answers ACME's http-01 challenges (RFC 8555 §8.3) and sends everything else to
 * https, at hosts of this service only. Nothing is admitted, forwarded or kept here: one answer, and the
 * connection ends.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Server as NetServer } from "node:net";
import {
  type AddressCounter,
  checkRequestHead,
  createAddressCounter,
  type ListenAt,
} from "../../tls/index.ts";
import { StileError } from "../../wire/index.ts";
import type { PlainHttpConfig } from "../config/index.ts";
import { trustedNetworks } from "../front.ts";
import type { Composition } from "../sidecar.ts";

/** A closed set: it labels a metric. */
export type PlainAnswer = "redirect" | "challenge" | "unknown-challenge" | "unknown-host" | "bad";

/** The limit that a connection was cut for. */
export type PlainLimit = "address" | "all";

export interface PlainListenerOptions {
  /** As clients reach them over https: with the port if it is not 443. */
  readonly hosts: readonly string[];
  /**
   * What a pending challenge is answered with.
   * @param name hostile: from the Host header, without its port, in lower case
   * @param token hostile
   */
  readonly keyAuthorization?: ((name: string, token: string) => string | undefined) | undefined;
  readonly observe: (answer: PlainAnswer) => void;
  readonly onRefused: (limit: PlainLimit) => void;
  readonly limits: Pick<PlainHttpConfig, "maxConnections" | "maxConnectionsPerAddress">;
  /** Addresses that many clients come from: the limit of one is not theirs. */
  readonly isSharedAddress: (address: string) => boolean;
  /** From the connection to the end of its one request, and of silence. */
  readonly requestMs: number;
  /** How long the end waits for requests that are on their way. */
  readonly drainMs: number;
}

export interface PlainListener {
  readonly port: number;
  /** Accepts nothing more; a request that is on its way has a moment to come and be answered. */
  readonly close: () => Promise<void>;
}

const CHALLENGE_PREFIX = "/.well-known/acme-challenge/";
const REQUEST_MS = 5_000;
/** How often Node looks at the time limit: its resolution. */
const CHECK_MS = 500;
/** The state's next keeper waits for it: a round trip, and no longer. */
const DRAIN_MS = 500;
const MAX_HEADER_BYTES = 8_192;
const MAX_HEADERS = 50;

/**
 * `listen.http`, where it is set.
 * @param fd of its socket, where that is open already
 * @throws `SERVICE_CONFIG_INVALID` where it is open, and nobody would answer
 */
export async function openPlainHttp(
  { config, metrics, onClose, proxies }: Composition,
  keyAuthorization: PlainListenerOptions["keyAuthorization"],
  fd: number | undefined,
): Promise<void> {
  const { edge, listen, publicUrl } = config;
  if (listen.http === undefined) {
    if (fd === undefined) return;
    const message = "socket activation: a socket with FileDescriptorName=http needs listen.http";
    throw new StileError("SERVICE_CONFIG_INVALID", message);
  }
  const passingOn = trustedNetworks(config, "proxyProtocol");
  const listener = await startPlainListener(
    {
      hosts: edge?.hosts ?? [new URL(publicUrl).host],
      keyAuthorization,
      observe: (answer) => metrics.plainHttpAnswers.inc({ answer }),
      onRefused: (limit) => metrics.plainHttpRefused.inc({ limit }),
      limits: listen.http,
      // No PROXY header is read here: behind such a proxy, too, are many.
      isSharedAddress: (address) => proxies.isTrusted(address) || passingOn.isTrusted(address),
      requestMs: REQUEST_MS,
      drainMs: DRAIN_MS,
    },
    fd === undefined ? listen.http : { fd },
  );
  onClose(() => listener.close());
}

export async function startPlainListener(
  options: PlainListenerOptions,
  at: ListenAt,
): Promise<PlainListener> {
  const answer = answerer(options);
  const server = createServer({
    headersTimeout: options.requestMs,
    requestTimeout: options.requestMs,
    connectionsCheckingInterval: CHECK_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
    insecureHTTPParser: false,
    // checkRequestHead refuses it, and it is counted.
    requireHostHeader: false,
  });
  limitConnections(server, options);
  server.maxHeadersCount = MAX_HEADERS;
  // For clients that do not read, or send nothing at all.
  server.setTimeout(options.requestMs, (socket) => socket.destroy());
  for (const event of ["request", "checkContinue", "checkExpectation"]) server.on(event, answer);
  const port = await listening(server, at);
  const close = async (): Promise<void> => {
    // What has arrived by then is read first.
    const cut = (): unknown => setImmediate(() => server.closeAllConnections());
    const timer = setTimeout(cut, options.drainMs);
    await new Promise<void>((resolve) => {
      // Not by node:http's own close(), which cuts a connection whose request is on its way.
      NetServer.prototype.close.call(server, () => resolve());
    });
    clearTimeout(timer);
    // Of node:http there is only the timer left.
    server.close();
  };
  return { port, close };
}

/** A connection is one head, so that these bound heads that are never ended as well. */
function limitConnections(server: Server, options: PlainListenerOptions): void {
  const { isSharedAddress, limits, onRefused } = options;
  const { maxConnections, maxConnectionsPerAddress } = limits;
  const counter: AddressCounter = createAddressCounter(
    {
      maxConnectionsPerAddress,
      maxHandshakesPerAddress: maxConnectionsPerAddress,
      maxHandshakes: maxConnections,
    },
    isSharedAddress,
  );
  server.maxConnections = maxConnections;
  server.on("drop", () => onRefused("all"));
  server.on("connection", (socket) => {
    const counted = counter.enter(socket.remoteAddress);
    if (typeof counted !== "string") {
      socket.once("close", counted.closed);
      return;
    }
    onRefused(counted === "handshakes-refused" ? "all" : "address");
    socket.destroy();
  });
}

function listening(server: Server, at: ListenAt): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen("fd" in at ? at : { host: at.host, port: at.port }, () => {
      server.off("error", reject);
      const address = server.address();
      // A socket that somebody else has opened may be a Unix one.
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

function answerer({
  hosts,
  keyAuthorization,
  observe,
}: PlainListenerOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const known = new Map(hosts.map((host) => [nameIn(host), host.toLowerCase()]));
  const decide = (request: IncomingMessage): Decision => {
    if (!isClean(request)) return { kind: "bad", status: 400 };
    const { headers, url = "" } = request;
    const name = nameIn(headers.host ?? "");
    if (url.startsWith(CHALLENGE_PREFIX)) {
      const found = keyAuthorization?.(name, url.slice(CHALLENGE_PREFIX.length));
      if (found === undefined) return { kind: "unknown-challenge", status: 404 };
      return { kind: "challenge", status: 200, body: found };
    }
    const host = known.get(name);
    if (host === undefined) return { kind: "unknown-host", status: 421 };
    // Both parts are ours to vouch for: a configured host, and a path that begins with a slash.
    return { kind: "redirect", status: 308, location: `https://${host}${url}` };
  };
  return (request, response) => {
    const { body = "", kind, location, status } = decide(request);
    observe(kind);
    request.resume();
    response.writeHead(status, {
      connection: "close",
      "content-length": Buffer.byteLength(body),
      ...(kind === "challenge" ? { "content-type": "application/octet-stream" } : {}),
      ...(location === undefined ? {} : { location }),
    });
    response.end(body);
  };
}

interface Decision {
  readonly kind: PlainAnswer;
  readonly status: number;
  readonly body?: string;
  readonly location?: string;
}

/** As strict as on the public listener: a head that two readers could read differently gets no redirect. */
function isClean(request: IncomingMessage): boolean {
  try {
    checkRequestHead(request);
  } catch {
    return false;
  }
  return request.url?.startsWith("/") === true;
}

/** A Host without its port. */
function nameIn(host: string): string {
  return host.toLowerCase().replace(/:\d*$/, "");
}
