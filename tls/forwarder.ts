/**
 * Forwards admitted requests to one HTTP/1.1 upstream: bodies are streamed both ways with back-pressure,
 * heads are rebuilt from their parsed fields, and nothing is retried that could have had an effect.
 * Trailers are not forwarded. Admission has been decided before; nothing here decides.
 */
import {
  Agent,
  type ClientRequest,
  type IncomingMessage,
  request as httpRequest,
  type ServerResponse,
} from "node:http";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { StileError } from "../wire/index.ts";
import { requestHeadersToForward, responseHeadersToForward } from "./header-hygiene.ts";
import {
  createFastPath,
  createUnderWay,
  type FastPath,
  type FastPathOptions,
  type UnderWay,
} from "./splice/splicer.ts";
import { requestBodyOf, type RequestBody, sendBody } from "./request-body.ts";
import { checkUpgradeRequest, tunnelUpgrade } from "./upgrade.ts";
import {
  asUpstreamError,
  connectHalfOpen,
  isFinalStatus,
  outcomeOf,
  type Upstream,
  upstreamAddress,
  type UpstreamOutcome,
} from "./upstream.ts";

/** What the caller adds to and takes from a request and its answer. */
export interface ForwardExtra {
  /** Further request headers that stay behind, in lower case. */
  readonly removeRequestHeaders: readonly string[];
  readonly requestHeaders: readonly (readonly [name: string, value: string])[];
  readonly responseHeaders: readonly (readonly [name: string, value: string])[];
  /** Of the client, where the caller knows it from a proxy that it trusts; else the connection's other end. */
  readonly clientAddress?: string | undefined;
  /** Of a request that was to be sent. The first that it is told counts. */
  readonly onOutcome?: ((outcome: UpstreamOutcome) => void) | undefined;
}

export interface ForwarderOptions {
  readonly upstream: Upstream;
  readonly maxBodyBytes: number;
  /** Requests and tunnels under way at the upstream, each on a connection; more are refused. */
  readonly maxUnderWay: number;
  readonly connectTimeoutMs: number;
  /** Silence of the upstream, before and within its answer. */
  readonly idleTimeoutMs: number;
}

export interface Forwarder {
  /**
   * Ends when the answer has been passed on.
   * @throws `TLS_UPSTREAM_BUSY`, `TLS_BODY_TOO_LARGE`, `TLS_UPSTREAM_UNREACHABLE`, `TLS_UPSTREAM_TIMEOUT`; where part of the
   * answer is out already, the caller can only cut the connection
   */
  readonly forward: (
    request: IncomingMessage,
    response: ServerResponse,
    extra: ForwardExtra,
  ) => Promise<void>;
  /** A WebSocket handshake; ends when both sides have. @throws as `forward`, before anything is out */
  readonly upgrade: (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    extra: ForwardExtra,
  ) => Promise<void>;
  /** For the listener: forwards to the same upstream, within the same limits. */
  readonly fastPath: (options: FastPathOptions) => FastPath;
  readonly close: () => Promise<void>;
}

/** Idle upstream connections that are kept. */
const MAX_FREE_SOCKETS = 256;
/** Less than the 5 s after which Node, the least patient of the usual upstreams, closes them. */
const FREE_SOCKET_MS = 4_000;
const BODYLESS_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "DELETE"]);
const RETRYABLE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD"]);

type OpenUpstream = (headers: string[], pooled: boolean) => ClientRequest;

export function createForwarder(options: ForwarderOptions): Forwarder {
  const agent = new Agent({
    keepAlive: true,
    maxFreeSockets: MAX_FREE_SOCKETS,
    timeout: FREE_SOCKET_MS,
  });
  const address = upstreamAddress(options.upstream);
  const underWay = createUnderWay(options.maxUnderWay);

  function open(request: IncomingMessage, headers: string[], pooled: boolean): ClientRequest {
    const { method = "GET", url = "/" } = request;
    const upstream = httpRequest({
      ...address,
      method,
      path: url,
      headers,
      ...(pooled ? { agent } : { createConnection: () => connectHalfOpen(options.upstream) }),
    });
    limitTime(request, upstream, options);
    return upstream;
  }

  return {
    forward: (request, response, extra) =>
      countUnderWay(underWay, extra, () => {
        const openUpstream: OpenUpstream = (headers, pooled) => open(request, headers, pooled);
        return forward(options, openUpstream, request, response, extra);
      }),
    upgrade: (request, socket, head, extra) =>
      countUnderWay(underWay, extra, async () => {
        checkUpgradeRequest(request);
        const headers = upstreamHeaders(request, extra);
        headers.push("Connection", "Upgrade", "Upgrade", "websocket");
        const upstream = open(request, headers, false);
        await tunnelUpgrade(upstream, socket, head, extra, options.idleTimeoutMs);
      }),
    fastPath: (fastPathOptions) => createFastPath(options, underWay, fastPathOptions),
    close: () => {
      agent.destroy();
      return Promise.resolve();
    },
  };
}

/** Refused rather than queued: a queue before an upstream that hangs would only hang with it. */
async function countUnderWay(
  underWay: UnderWay,
  { onOutcome }: ForwardExtra,
  run: () => Promise<void>,
): Promise<void> {
  if (!underWay.enter()) {
    onOutcome?.("failed");
    throw new StileError("TLS_UPSTREAM_BUSY", "the upstream has as many requests as it may");
  }
  try {
    await run();
    onOutcome?.("gone");
  } catch (error) {
    onOutcome?.(outcomeOf(error));
    throw error;
  } finally {
    underWay.leave();
  }
}

async function forward(
  options: ForwarderOptions,
  open: OpenUpstream,
  request: IncomingMessage,
  response: ServerResponse,
  extra: ForwardExtra,
): Promise<void> {
  const body = requestBodyOf(request, options.maxBodyBytes);
  const headers = [...upstreamHeaders(request, extra), ...framingHeaders(request, body)];
  if (body.kind !== "none" && request.headers.expect !== undefined) response.writeContinue();
  const upstream = open(headers, true);
  try {
    const answer = await exchange(request, body, upstream, response).catch((error: unknown) => {
      if (!mayRetry(error, request, body, upstream)) throw error;
      // On a connection of its own: another kept one may be as dead.
      return exchange(request, body, open(headers, false), response);
    });
    await passOn(request, response, answer, extra);
  } catch (error) {
    // Nobody is left to be told, and it was not the upstream's doing.
    if (isClientGone(error, request, response)) return;
    throw asUpstreamError(error);
  }
}

function upstreamHeaders(request: IncomingMessage, extra: ForwardExtra): string[] {
  const headers = requestHeadersToForward(request.rawHeaders, extra.removeRequestHeaders);
  // A dual-stack socket writes IPv4 addresses as ::ffff:192.0.2.1.
  const address = (extra.clientAddress ?? request.socket.remoteAddress)?.replace(
    /^::ffff:(?=[0-9.]+$)/i,
    "",
  );
  if (address !== undefined) headers.push("X-Forwarded-For", address);
  headers.push("X-Forwarded-Proto", "https", "X-Forwarded-Host", request.headers.host ?? "");
  for (const [name, value] of extra.requestHeaders) headers.push(name, value);
  return headers;
}

/** Content-Length goes through as received; the rest of the framing is said anew. */
function framingHeaders(request: IncomingMessage, body: RequestBody): string[] {
  if (body.kind === "chunked") return ["Transfer-Encoding", "chunked"];
  const isSaid = request.headers["content-length"] !== undefined;
  // Without a body Node would announce a chunked one for these methods.
  return isSaid || BODYLESS_METHODS.has(request.method ?? "GET") ? [] : ["Content-Length", "0"];
}

/** The head of the upstream's answer. It may come before the whole body is sent. */
function exchange(
  request: IncomingMessage,
  body: RequestBody,
  upstream: ClientRequest,
  response: ServerResponse,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    // The client is gone: what it asked for need not be done.
    response.once("close", () => upstream.destroy());
    upstream.once("response", (answer) => {
      if (isFinalStatus(answer.statusCode)) resolve(answer);
      else upstream.destroy();
    });
    upstream.on("error", reject);
    upstream.once("close", () => reject(new Error("the upstream closed the connection")));
    sendBody(request, body, upstream, (error) => {
      reject(error);
      upstream.destroy();
    });
  });
}

async function passOn(
  request: IncomingMessage,
  response: ServerResponse,
  answer: IncomingMessage,
  extra: ForwardExtra,
): Promise<void> {
  extra.onOutcome?.(answer.statusCode ?? "failed");
  const headers = responseHeadersToForward(answer.rawHeaders);
  for (const [name, value] of extra.responseHeaders) headers.push(name, value);
  // The rest of a body that nobody reads would be taken for the next request.
  if (!request.complete) headers.push("Connection", "close");
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? "", headers);
  await pipeline(answer, response);
}

function isClientGone(error: unknown, request: IncomingMessage, response: ServerResponse): boolean {
  if (!response.headersSent) return request.socket.destroyed;
  // The upstream's end of it would be an aborted answer.
  return error instanceof Error && "code" in error && error.code === "ERR_STREAM_PREMATURE_CLOSE";
}

/** A kept connection may have been closed by the upstream just as it was used again. */
function mayRetry(
  error: unknown,
  request: IncomingMessage,
  body: RequestBody,
  upstream: ClientRequest,
): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return (
    upstream.reusedSocket &&
    body.kind === "none" &&
    RETRYABLE_METHODS.has(request.method ?? "") &&
    !request.socket.destroyed &&
    (code === "ECONNRESET" || code === "EPIPE")
  );
}

function limitTime(
  request: IncomingMessage,
  upstream: ClientRequest,
  options: ForwarderOptions,
): void {
  const timeout = (): void => {
    upstream.destroy(new StileError("TLS_UPSTREAM_TIMEOUT", "the upstream did not answer in time"));
  };
  upstream.setTimeout(options.idleTimeoutMs);
  upstream.on("timeout", () => {
    // The agent's own limit for kept connections; connecting has the timer below.
    if (upstream.socket?.connecting === true) return;
    // The upstream is not to blame where it waits for a body that the client does not send.
    if (!request.complete && !upstream.writableNeedDrain) request.socket.destroy();
    else timeout();
  });
  upstream.once("socket", (socket) => {
    if (!socket.connecting) return;
    const timer = setTimeout(timeout, options.connectTimeoutMs);
    socket.once("connect", () => clearTimeout(timer));
    socket.once("close", () => clearTimeout(timer));
  });
}
