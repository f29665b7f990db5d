/**
 * The WebSocket handshake (RFC 6455 §4) through the edge: after 101 the two connections are joined byte by
 * byte; any other answer is passed on as it is and ends the connection.
 */
import type { ClientRequest, IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ForwardExtra } from "./forwarder.ts";
import { responseHeadersToForward } from "./header-hygiene.ts";
import { asUpstreamError } from "./upstream.ts";

/** @throws `TLS_UPSTREAM_UNREACHABLE`, `TLS_UPSTREAM_TIMEOUT` before anything is out */
export async function tunnelUpgrade(
  upstream: ClientRequest,
  client: Duplex,
  clientHead: Buffer,
  extra: ForwardExtra,
  idleTimeoutMs: number,
): Promise<void> {
  client.once("close", () => upstream.destroy());
  const answer = await handshake(upstream);
  if (answer.kind === "response") {
    client.write(headOf(answer.response, extra, ["Connection", "close"]));
    await pipeline(answer.response, client);
    return;
  }
  const { socket, head, response } = answer;
  client.write(headOf(response, extra, ["Connection", "Upgrade", "Upgrade", "websocket"]));
  if (head.length > 0) client.write(head);
  if (clientHead.length > 0) socket.write(clientHead);
  endWhenIdle(socket, client, idleTimeoutMs);
  try {
    await Promise.all([pipeline(client, socket), pipeline(socket, client)]);
  } catch {
    // One side went away in the middle: the other one cannot be told more than that.
    client.destroy();
    socket.destroy();
  }
}

type Handshake =
  | { readonly kind: "response"; readonly response: IncomingMessage }
  | {
      readonly kind: "upgraded";
      readonly response: IncomingMessage;
      readonly socket: Duplex;
      readonly head: Buffer;
    };

function handshake(upstream: ClientRequest): Promise<Handshake> {
  return new Promise((resolve, reject) => {
    upstream.once("upgrade", (response, socket, head) =>
      resolve({ kind: "upgraded", response, socket, head }),
    );
    upstream.once("response", (response) => resolve({ kind: "response", response }));
    upstream.once("error", (cause) => reject(asUpstreamError(cause)));
    upstream.once("close", () =>
      reject(asUpstreamError(new Error("the upstream closed the connection"))),
    );
    upstream.end();
  });
}

/** The answer's head, rebuilt from its fields; a body is delimited by the end of the connection. */
function headOf(response: IncomingMessage, extra: ForwardExtra, connection: string[]): string {
  const headers = responseHeadersToForward(response.rawHeaders);
  headers.push(...connection, ...extra.responseHeaders.flat());
  const lines = [`HTTP/1.1 ${response.statusCode ?? 502} ${response.statusMessage ?? ""}`];
  for (let i = 0; i + 1 < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

interface Timed {
  setTimeout(ms: number, listener?: () => void): unknown;
}

function endWhenIdle(upstream: Duplex, client: Duplex, idleTimeoutMs: number): void {
  for (const socket of [upstream, client]) {
    if (!isTimed(socket)) continue;
    socket.setTimeout(idleTimeoutMs, () => {
      upstream.destroy();
      client.destroy();
    });
  }
}

function isTimed(socket: Duplex): socket is Duplex & Timed {
  return "setTimeout" in socket && typeof socket.setTimeout === "function";
}
