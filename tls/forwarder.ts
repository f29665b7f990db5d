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
import { type Duplex, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { StileError } from "../wire/index.ts";
import { requestHeadersToForward, responseHeadersToForward } from "./header-hygiene.ts";
import { tunnelUpgrade } from "./upgrade.ts";
import { asUpstreamError, type Upstream, upstreamAddress } from "./upstream.ts";

/** What the caller adds to and takes from a request and its answer. */
export interface ForwardExtra {
  /** Further request headers that stay behind, in lower case. */
  readonly removeRequestHeaders: readonly string[];
  readonly requestHeaders: readonly (readonly [name: string, value: string])[];
  readonly responseHeaders: readonly (readonly [name: string, value: string])[];
}

export interface ForwarderOptions {
  readonly upstream: Upstream;
  readonly maxBodyBytes: number;
  readonly connectTimeoutMs: number;
  /** Silence of the upstream, before and within its answer. */
  readonly idleTimeoutMs: number;
}

export interface Forwarder {
  /**
   * Ends when the answer has been passed on.
   * @throws `TLS_BODY_TOO_LARGE`, `TLS_UPSTREAM_UNREACHABLE`, `TLS_UPSTREAM_TIMEOUT`; where part of the
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
  readonly close: () => Promise<void>;
}

/** Idle upstream connections that are kept. */
const MAX_FREE_SOCKETS = 256;
const BODYLESS_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "DELETE"]);
const RETRYABLE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD"]);

export function createForwarder(options: ForwarderOptions): Forwarder {
  const agent = new Agent({ keepAlive: true, maxFreeSockets: MAX_FREE_SOCKETS });
  const address = upstreamAddress(options.upstream);

  function open(request: IncomingMessage, headers: string[], pooled: boolean): ClientRequest {
    const { method = "GET", url = "/" } = request;
    const upstream = httpRequest({
      ...address,
      method,
      path: url,
      headers,
      agent: pooled ? agent : false,
    });
    limitTime(upstream, options);
    return upstream;
  }

  return {
    forward: (request, response, extra) =>
      forward(options, (headers) => open(request, headers, true), request, response, extra),
    upgrade: async (request, socket, head, extra) => {
      const headers = upstreamHeaders(request, extra);
      headers.push("Connection", "Upgrade", "Upgrade", "websocket");
      const upstream = open(request, headers, false);
      await tunnelUpgrade(upstream, socket, head, extra, options.idleTimeoutMs);
    },
    close: () => {
      agent.destroy();
      return Promise.resolve();
    },
  };
}

async function forward(
  options: ForwarderOptions,
  open: (headers: string[]) => ClientRequest,
  request: IncomingMessage,
  response: ServerResponse,
  extra: ForwardExtra,
): Promise<void> {
  const length = Number(request.headers["content-length"] ?? "0");
  if (length > options.maxBodyBytes) throw tooLarge();
  const hasBody = length > 0 || request.headers["transfer-encoding"] !== undefined;
  const headers = upstreamHeaders(request, extra);
  headers.push(...framingHeaders(request, hasBody));
  if (hasBody && request.headers.expect !== undefined) response.writeContinue();

  const upstream = open(headers);
  // The client is gone: what it asked for need not be done.
  response.once("close", () => upstream.destroy());
  const body = hasBody ? sendBody(request, upstream, options.maxBodyBytes) : endWithout(upstream);
  let answer: IncomingMessage;
  try {
    answer = await answerOf(upstream, body);
  } catch (error) {
    if (!mayRetry(error, request, upstream, hasBody, response)) throw asUpstreamError(error);
    const again = open(headers);
    response.once("close", () => again.destroy());
    answer = await answerOf(again, endWithout(again)).catch((second: unknown) => {
      throw asUpstreamError(second);
    });
  }
  await passOn(request, response, answer, extra);
}

function upstreamHeaders(request: IncomingMessage, extra: ForwardExtra): string[] {
  const headers = requestHeadersToForward(request.rawHeaders, extra.removeRequestHeaders);
  const address = request.socket.remoteAddress;
  if (address !== undefined) headers.push("X-Forwarded-For", address);
  headers.push("X-Forwarded-Proto", "https", "X-Forwarded-Host", request.headers.host ?? "");
  for (const [name, value] of extra.requestHeaders) headers.push(name, value);
  return headers;
}

/** Content-Length goes through as received; the rest of the framing is said anew. */
function framingHeaders(request: IncomingMessage, hasBody: boolean): string[] {
  if (request.headers["transfer-encoding"] !== undefined) return ["Transfer-Encoding", "chunked"];
  const isSaid = hasBody || request.headers["content-length"] !== undefined;
  // Without a body Node would announce a chunked one for these methods.
  return isSaid || BODYLESS_METHODS.has(request.method ?? "GET") ? [] : ["Content-Length", "0"];
}

async function sendBody(
  request: IncomingMessage,
  upstream: ClientRequest,
  maxBytes: number,
): Promise<void> {
  let sent = 0;
  const cap = new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      sent += chunk.length;
      if (sent > maxBytes) done(tooLarge());
      else done(null, chunk);
    },
  });
  await pipeline(request, cap, upstream);
}

function endWithout(upstream: ClientRequest): Promise<void> {
  upstream.end();
  return Promise.resolve();
}

/** The head of the upstream's answer; a body that fails first is the reason why there is none. */
function answerOf(upstream: ClientRequest, body: Promise<void>): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    upstream.once("response", resolve);
    upstream.once("error", reject);
    upstream.once("close", () => reject(new Error("the upstream closed the connection")));
    // After the head it is no matter: an upstream may answer before it has read everything.
    body.catch(reject);
  });
}

async function passOn(
  request: IncomingMessage,
  response: ServerResponse,
  answer: IncomingMessage,
  extra: ForwardExtra,
): Promise<void> {
  const headers = responseHeadersToForward(answer.rawHeaders);
  for (const [name, value] of extra.responseHeaders) headers.push(name, value);
  // The rest of a body that nobody reads would be taken for the next request.
  if (!request.complete) headers.push("Connection", "close");
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? "", headers);
  await pipeline(answer, response);
}

/** A kept connection may have been closed by the upstream just as it was used again. */
function mayRetry(
  error: unknown,
  request: IncomingMessage,
  upstream: ClientRequest,
  hasBody: boolean,
  response: ServerResponse,
): boolean {
  return (
    upstream.reusedSocket &&
    !hasBody &&
    !response.destroyed &&
    RETRYABLE_METHODS.has(request.method ?? "") &&
    !(error instanceof StileError)
  );
}

function limitTime(upstream: ClientRequest, options: ForwarderOptions): void {
  const timeout = (): void => {
    upstream.destroy(new StileError("TLS_UPSTREAM_TIMEOUT", "the upstream did not answer in time"));
  };
  upstream.setTimeout(options.idleTimeoutMs, timeout);
  upstream.once("socket", (socket) => {
    if (!socket.connecting) return;
    const timer = setTimeout(timeout, options.connectTimeoutMs);
    socket.once("connect", () => clearTimeout(timer));
    socket.once("close", () => clearTimeout(timer));
  });
}

function tooLarge(): StileError {
  return new StileError("TLS_BODY_TOO_LARGE", "the request body is larger than the limit");
}
