/**
 * The WebSocket handshake (RFC 6455 §4) through the edge: after 101 the two connections are joined byte by
 * byte; any other answer is passed on as it is and ends the connection.
 */
import type { ClientRequest, IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { isStileError, StileError } from "../wire/index.ts";
import { closeSoon } from "./close-soon.ts";
import type { ForwardExtra } from "./forwarder.ts";
import { Http2Request } from "./h2/request.ts";
import { isHandshakeProven, writeUpgradeHead } from "./h2/upgrade-answer.ts";
import { responseHeadersToForward } from "./header-hygiene.ts";
import { bodyOfAnswer } from "./upstreams/closure.ts";
import { asUpstreamError, isFinalStatus } from "./upstreams/failure.ts";
import type { AttemptOutcome } from "./upstreams/upstream.ts";

/** RFC 6455 §4.1: base64 of 16 bytes. */
const WEBSOCKET_KEY = /^[A-Za-z0-9+/]{22}==$/;

/**
 * RFC 6455 §4.1: a GET, of HTTP/1.1. Node does not parse the body of a request to upgrade, so one that has a
 * body would be read as WebSocket frames, or as a second request.
 * @throws `TLS_HEAD_REJECTED`
 */
export function checkUpgradeRequest(request: IncomingMessage): void {
  const { headers, httpVersion, method } = request;
  const hasBody =
    headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
  // RFC 8441: a CONNECT of HTTP/2, told as a GET.
  const isVersion = httpVersion === "1.1" || (request as object) instanceof Http2Request;
  const isKeyed = WEBSOCKET_KEY.test(headers["sec-websocket-key"] ?? "");
  if (method !== "GET" || !isVersion || !isKeyed || hasBody || headers.expect !== undefined) {
    throw new StileError("TLS_HEAD_REJECTED", "request head: no WebSocket handshake");
  }
}

export interface TunnelOptions {
  /** Of the handshake. */
  readonly webSocketKey: string;
  readonly idleTimeoutMs: number;
  /** How the upstream took the handshake. */
  readonly settle: (outcome: AttemptOutcome) => void;
}

/** @throws `TLS_UPSTREAM_UNREACHABLE`, `TLS_UPSTREAM_TIMEOUT` before anything is out */
export async function tunnelUpgrade(
  upstream: ClientRequest,
  client: Duplex,
  clientHead: Buffer,
  extra: ForwardExtra,
  { idleTimeoutMs, settle, webSocketKey }: TunnelOptions,
): Promise<void> {
  // The TLS listener ends its direction as soon as the client ends its own; a tunnel does not.
  client.allowHalfOpen = true;
  client.once("close", () => upstream.destroy());
  const answer = await handshake(upstream).catch((error: unknown) => {
    if (!client.destroyed)
      settle(isStileError(error, "TLS_UPSTREAM_TIMEOUT") ? "timeout" : "broken");
    throw error;
  });
  settle("answered");
  const { response } = answer;
  if (answer.kind === "response") {
    writeHead(client, response, extra, ["Connection", "close"]);
    await pipeline(bodyOfAnswer(response, "GET"), client).catch(() => client.destroy());
    closeSoon(client);
    return;
  }
  const { socket, head } = answer;
  if (!isHandshakeProven(webSocketKey, response.headers)) {
    socket.destroy();
    throw asUpstreamError(new Error("the upstream answered another handshake"));
  }
  writeHead(client, response, extra, ["Connection", "Upgrade", "Upgrade", "websocket"]);
  if (head.length > 0) client.write(head);
  if (clientHead.length > 0) socket.write(clientHead);
  await join(client, socket, idleTimeoutMs);
}

/** Until both connections are closed. One side may end its direction before the other does. */
export async function join(client: Duplex, upstream: Socket, idleTimeoutMs: number): Promise<void> {
  closeAfter(client, upstream, idleTimeoutMs);
  closeAfter(upstream, client, idleTimeoutMs);
  // Every byte of either direction passes the upstream's socket.
  upstream.setTimeout(idleTimeoutMs, () => upstream.destroy());
  client.pipe(upstream);
  upstream.pipe(client);
  await Promise.all([closed(client), closed(upstream)]);
}

/** What `first` has sent before it closed in order still reaches `second`, where that takes it in time. */
function closeAfter(first: Duplex, second: Duplex, idleTimeoutMs: number): void {
  first.on("error", () => first.destroy());
  first.once("close", () => {
    if (!first.readableEnded) {
      second.destroy();
      return;
    }
    const timer = setTimeout(() => second.destroy(), idleTimeoutMs);
    second.once("close", () => clearTimeout(timer)).end(() => second.destroy());
  });
}

function closed(socket: Duplex): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once("close", () => resolve());
  });
}

type Handshake =
  | { readonly kind: "response"; readonly response: IncomingMessage }
  | {
      readonly kind: "upgraded";
      readonly response: IncomingMessage;
      readonly socket: Socket;
      readonly head: Buffer;
    };

function handshake(upstream: ClientRequest): Promise<Handshake> {
  return new Promise((resolve, reject) => {
    const fail = (message: string): void => {
      reject(asUpstreamError(new Error(message)));
      upstream.destroy();
    };
    upstream.once("upgrade", (response, socket, head) => {
      if (response.headers.upgrade?.toLowerCase() !== "websocket") {
        socket.destroy();
        fail("the upstream switched to another protocol");
        return;
      }
      resolve({ kind: "upgraded", response, socket, head });
    });
    upstream.once("response", (response) => {
      if (isFinalStatus(response.statusCode)) resolve({ kind: "response", response });
      else fail("the upstream sent no valid status");
    });
    upstream.on("error", (cause) => reject(asUpstreamError(cause)));
    upstream.once("close", () =>
      reject(asUpstreamError(new Error("the upstream closed the connection"))),
    );
    upstream.end();
  });
}

/** The answer's head, rebuilt from its fields; a body is delimited by the end of the connection. */
function writeHead(
  client: Duplex,
  response: IncomingMessage,
  extra: ForwardExtra,
  connection: string[],
): void {
  writeUpgradeHead(client, {
    status: response.statusCode ?? 502,
    reason: response.statusMessage ?? "",
    headers: [...responseHeadersToForward(response.rawHeaders), ...extra.responseHeaders.flat()],
    connection,
  });
}
