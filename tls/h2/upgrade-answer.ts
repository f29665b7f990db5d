/**
 * How a WebSocket handshake is answered: in HTTP/1.1 by text on the socket, in HTTP/2 by the head of the stream
 * (RFC 8441 §5), with 200 where HTTP/1.1 has 101.
 */
import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import type { Duplex } from "node:stream";
import type { RawHeaders } from "../header-hygiene.ts";
import { Http2Tunnel } from "./tunnel.ts";

export interface UpgradeAnswer {
  readonly status: number;
  readonly reason: string;
  readonly headers: RawHeaders;
  /** What HTTP/1.1 says of the connection. */
  readonly connection: RawHeaders;
}

/** RFC 6455 §1.3. */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

export function writeUpgradeHead(client: Duplex, answer: UpgradeAnswer): void {
  const { connection, headers, reason, status } = answer;
  if (client instanceof Http2Tunnel) {
    client.respond(status === 101 ? 200 : status, headers);
    return;
  }
  const fields = [...headers, ...connection];
  const lines = [`HTTP/1.1 ${status} ${reason}`];
  for (let i = 0; i + 1 < fields.length; i += 2) lines.push(`${fields[i]}: ${fields[i + 1]}`);
  client.write(`${lines.join("\r\n")}\r\n\r\n`);
}

/**
 * Whether the upstream has read the handshake. A client could check that itself, but need not want to: behind a 101
 * that only looks like an answer, what it sends is requests that nobody has admitted.
 */
export function isHandshakeProven(key: string, headers: IncomingHttpHeaders): boolean {
  const proof = createHash("sha1").update(`${key}${GUID}`).digest("base64");
  return headers["sec-websocket-accept"] === proof;
}
