/**
 * Forwards admitted requests to HTTP/1.1 upstreams: bodies are streamed both ways with back-pressure,
 * heads are rebuilt from their parsed fields, and nothing is retried that could have had an effect.
 * Admission has been decided before; nothing here decides.
 */
import {
  type ClientRequest,
  type IncomingMessage,
  request as httpRequest,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { isStileError, StileError } from "../wire/index.ts";
import { type ForwardedHeader, forwardedHeadersOf } from "./forwarded-headers.ts";
import { Http2Request } from "./h2/request.ts";
import { Http2Response } from "./h2/response.ts";
import { type Http2Exchange, Http2UpstreamPool } from "./h2/upstream-pool.ts";
import { requestHeadersToForward, responseHeadersToForward } from "./header-hygiene.ts";
import { passBody } from "./pass-body.ts";
import { responseTrailers, takesTrailers } from "./trailers.ts";
import { createReadBuffers } from "./splice/read-buffers.ts";
import {
  createFastPath,
  createUnderWay,
  type FastPath,
  type FastPathOptions,
  type UnderWay,
} from "./splice/splicer.ts";
import { framingHeaders, requestBodyOf, type RequestBody, sendBody } from "./request-body.ts";
import { checkUpgradeRequest, tunnelUpgrade } from "./upgrade.ts";
import { asCallback, UpstreamAgents } from "./upstreams/agent.ts";
import { Attempts, isRepeatable } from "./upstreams/attempts.ts";
import { bodyOfAnswer } from "./upstreams/closure.ts";
import {
  asUpstreamError,
  isFinalStatus,
  outcomeOf,
  type UpstreamFailure,
  type UpstreamOutcome,
  upstreamTimeout,
} from "./upstreams/failure.ts";
import type { ClientEnds } from "./upstreams/proxy-out.ts";
import type { Upstream } from "./upstreams/upstream.ts";
import type { Upstreams } from "./upstreams/upstreams.ts";

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
  readonly upstreams: Upstreams;
  readonly maxBodyBytes: number;
  /** Requests and tunnels under way at all upstreams, each on a connection; more are refused. */
  readonly maxUnderWay: number;
  /** From the request to the first byte of its answer. */
  readonly firstByteTimeoutMs: number;
  /** Silence of the upstream within its answer, or of a tunnel. */
  readonly idleTimeoutMs: number;
  /** How long an idle connection is kept. */
  readonly keepMs: number;
  readonly forwardedHeader: ForwardedHeader;
  /** Requests of HTTP/2 go past node:http, too. */
  readonly isSpliced: boolean;
}

export interface Forwarder {
  /**
   * Ends when the answer has been passed on.
   * @throws `TLS_UPSTREAM_BUSY`, `TLS_UPSTREAM_UNHEALTHY`, `TLS_BODY_TOO_LARGE`, `TLS_UPSTREAM_UNREACHABLE`,
   * `TLS_UPSTREAM_TIMEOUT`; where part of the answer is out already, the caller can only cut the connection
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
  /** For the listener: forwards to the same upstreams, within the same limits. */
  readonly fastPath: (options: FastPathOptions) => FastPath;
  readonly close: () => Promise<void>;
}

/** A request on its way, the same at each of its attempts. */
interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly body: RequestBody;
  readonly headers: string[];
  readonly client: ClientEnds;
  /** The client's connection ended before the upstream's part was over. */
  isLeft: boolean;
}

/** What the forwarder's functions work with. */
interface Parts {
  readonly options: ForwarderOptions;
  readonly agents: UpstreamAgents;
  readonly pool: Http2UpstreamPool;
}

export function createForwarder(options: ForwarderOptions): Forwarder {
  const agents = new UpstreamAgents(options.keepMs);
  const spliced = { ...options, readBuffers: createReadBuffers() };
  const pool = new Http2UpstreamPool(spliced);
  const parts = { options, agents, pool };
  const underWay = createUnderWay(options.maxUnderWay);

  return {
    forward: (request, response, extra) =>
      countUnderWay(underWay, extra, () => forward(parts, request, response, extra)),
    upgrade: (request, socket, head, extra) =>
      countUnderWay(underWay, extra, () => upgrade(options, request, socket, head, extra)),
    fastPath: (fastPathOptions) => createFastPath(spliced, underWay, fastPathOptions),
    close: () => {
      agents.destroy();
      pool.close();
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

/** Undefined for what node:http forwards. */
function splicedExchange(
  { pool }: Parts,
  request: object,
  response: object,
): Pick<Http2Exchange, "request" | "response"> | undefined {
  const isHttp2 = request instanceof Http2Request && response instanceof Http2Response;
  return isHttp2 && request.headers.te === undefined && pool.isUsable
    ? { request, response }
    : undefined;
}

async function forward(
  parts: Parts,
  request: IncomingMessage,
  response: ServerResponse,
  extra: ForwardExtra,
): Promise<void> {
  const { options } = parts;
  const body = requestBodyOf(request, options.maxBodyBytes);
  const headers = [...upstreamHeaders(options, request, extra), ...framingHeaders(request, body)];
  if (takesTrailers(request)) headers.push("TE", "trailers", "Connection", "keep-alive, TE");
  const spliced = splicedExchange(parts, request, response);
  if (spliced !== undefined) {
    await parts.pool.forward({ ...spliced, headers, body, extra }).catch((error: unknown) => {
      if (!spliced.response.isLeft) throw asUpstreamError(error);
    });
    return;
  }
  const client = { socket: request.socket, address: extra.clientAddress };
  const exchange: Exchange = { request, response, body, headers, client, isLeft: false };
  const attempts = new Attempts(
    options.upstreams,
    isRepeatable(request.method ?? "", body.kind !== "none"),
  );
  try {
    if (body.kind !== "none" && request.headers.expect !== undefined) response.writeContinue();
    const answer = await ask(parts, exchange, attempts);
    if (options.idleTimeoutMs !== options.firstByteTimeoutMs) {
      answer.socket.setTimeout(options.idleTimeoutMs);
    }
    await passOn(request, response, answer, extra);
  } catch (error) {
    // Nobody is left to be told, and it was not the upstream's doing.
    if (isClientGone(error, exchange)) return;
    throw asUpstreamError(error);
  } finally {
    attempts.end();
  }
}

/** The head of an answer, after as many attempts as there may be. */
async function ask(parts: Parts, exchange: Exchange, attempts: Attempts): Promise<IncomingMessage> {
  // A connection that tells who its client is serves that client alone; here it is not kept.
  let isPooled = attempts.upstream.settings.proxyProtocol === "off";
  for (;;) {
    const upstream = open(parts, exchange, attempts.upstream, isPooled);
    const sending = { isSent: false };
    try {
      const answer = await answerTo(exchange, upstream, sending);
      attempts.settle("answered");
      return answer;
    } catch (error) {
      const isGone = isClientGone(error, exchange);
      const failure = isGone ? undefined : failureOf(error, sending.isSent);
      if (failure === undefined || !attempts.next(failure, upstream.reusedSocket)) throw error;
      // On a connection of its own: another kept one may be as dead.
      isPooled = false;
    }
  }
}

function open(
  { agents, options }: Parts,
  { client, headers, request, response }: Exchange,
  to: Upstream,
  isPooled: boolean,
): ClientRequest {
  const { method = "GET", url = "/" } = request;
  const agent = isPooled ? agents.of(to) : undefined;
  const upstream = httpRequest({
    method,
    path: url,
    headers,
    ...(agent === undefined
      ? {
          createConnection: (_options, created) => {
            to.dial(client, false, asCallback(created));
            return undefined;
          },
        }
      : { agent }),
  });
  upstream.setTimeout(options.firstByteTimeoutMs);
  upstream.on("timeout", () => {
    // The upstream is not to blame where it waits for a body that the client does not send, or is not read since
    // the client does not read, whose own time is limited.
    if (!request.complete && !upstream.writableNeedDrain) request.destroy();
    else if (response.writableNeedDrain) upstream.setTimeout(options.idleTimeoutMs);
    else upstream.destroy(upstreamTimeout());
  });
  return upstream;
}

/** What went wrong at the upstream; undefined where it was not its doing. */
function failureOf(error: unknown, isSent: boolean): UpstreamFailure | undefined {
  if (!isSent) return "connect";
  if (isStileError(error, "TLS_UPSTREAM_TIMEOUT")) return "timeout";
  // Too large, or not as long as it says: the client's body.
  if (isStileError(error)) return undefined;
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ECONNRESET" || code === "EPIPE" ? "broken" : "malformed";
}

async function upgrade(
  options: ForwarderOptions,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  extra: ForwardExtra,
): Promise<void> {
  checkUpgradeRequest(request);
  const headers = upstreamHeaders(options, request, extra);
  headers.push("Connection", "Upgrade", "Upgrade", "websocket");
  // The handshake is a GET, but what it begins has effects.
  const attempts = new Attempts(options.upstreams, false);
  try {
    const client = { socket: request.socket, address: extra.clientAddress };
    const connection = await connectFor(attempts, client);
    if (socket.destroyed) {
      connection.destroy();
      return;
    }
    const upstream = httpRequest({
      method: "GET",
      path: request.url ?? "/",
      headers,
      createConnection: () => connection,
    });
    upstream.setTimeout(options.firstByteTimeoutMs, () => upstream.destroy(upstreamTimeout()));
    await tunnelUpgrade(upstream, socket, head, extra, {
      idleTimeoutMs: options.idleTimeoutMs,
      webSocketKey: request.headers["sec-websocket-key"] ?? "",
      settle: (outcome) => attempts.settle(outcome),
    });
  } finally {
    attempts.end();
  }
}

/** Half-open, as a tunnel's is. @throws `TLS_UPSTREAM_UNREACHABLE`, `TLS_UPSTREAM_TIMEOUT` */
async function connectFor(attempts: Attempts, client: ClientEnds): Promise<Socket> {
  for (;;) {
    try {
      return await attempts.upstream.connect(client, true);
    } catch (error) {
      if (!attempts.next("connect", false)) throw asUpstreamError(error);
    }
  }
}

function upstreamHeaders(
  { forwardedHeader }: ForwarderOptions,
  request: IncomingMessage,
  extra: ForwardExtra,
): string[] {
  const headers = requestHeadersToForward(request.rawHeaders, extra.removeRequestHeaders);
  const address = extra.clientAddress ?? request.socket.remoteAddress;
  headers.push(...forwardedHeadersOf(forwardedHeader, address, request.headers.host ?? ""));
  for (const [name, value] of extra.requestHeaders) headers.push(name, value);
  return headers;
}

/** The head of the upstream's answer. It may come before the whole body is sent. */
function answerTo(
  exchange: Exchange,
  upstream: ClientRequest,
  sending: { isSent: boolean },
): Promise<IncomingMessage> {
  const { body, request, response } = exchange;
  return new Promise((resolve, reject) => {
    // The client is gone: what it asked for need not be done.
    const leave = (): void => {
      exchange.isLeft = true;
      upstream.destroy();
    };
    response.once("close", leave);
    const fail = (error: Error): void => {
      response.off("close", leave);
      reject(error);
    };
    upstream.once("response", (answer) => {
      if (isFinalStatus(answer.statusCode)) resolve(answer);
      else upstream.destroy();
    });
    upstream.on("error", fail);
    upstream.once("close", () => fail(new Error("the upstream closed the connection")));
    // Until there is a connection the body stays where it is: it may have to go elsewhere.
    upstream.once("socket", () => {
      sending.isSent = true;
      sendBody(request, body, upstream, (error) => {
        fail(error);
        upstream.destroy();
      });
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
  if (takesTrailers(request)) {
    answer.once("end", () => response.addTrailers(responseTrailers(answer.rawTrailers)));
  }
  const body = bodyOfAnswer(answer, request.method);
  await (body === answer ? passBody(answer, response) : pipeline(body, response));
}

function isClientGone(error: unknown, { isLeft, request, response }: Exchange): boolean {
  const answer: object = response;
  if (answer instanceof Http2Response) return answer.isLeft;
  if (isLeft) return true;
  if (!response.headersSent) return request.socket.destroyed || response.closed;
  // The upstream's end of it would be an aborted answer.
  return error instanceof Error && "code" in error && error.code === "ERR_STREAM_PREMATURE_CLOSE";
}
