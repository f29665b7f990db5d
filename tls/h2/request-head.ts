/**
 * The head of an HTTP/2 request as the HTTP/1.1 head that says the same (RFC 9113 §8.3, RFC 8441 §5), so that
 * one set of rules judges both (checkRequestHead). nghttp2 has refused what is malformed by itself: pseudo-headers
 * that are missing, doubled or late, upper case, Content-Length that is not the content's. Here is refused what
 * would be lost or read otherwise in the other form.
 */
import type { IncomingHttpHeaders } from "node:http";
import { StileError } from "../../wire/index.ts";
import { CONNECTION_SPECIFIC, type RawHeaders } from "../header-hygiene.ts";

export interface TranslatedHead {
  readonly method: string;
  readonly url: string;
  /** Without pseudo-headers, with Host. */
  readonly rawHeaders: string[];
  readonly headers: IncomingHttpHeaders;
  /** A WebSocket handshake (RFC 8441 §4), told as that of RFC 6455. */
  readonly isTunnel: boolean;
}

/** RFC 8441 §5 has no use for it, and Node's WebSocket client sends it all the same. */
const WEBSOCKET_KEY = "sec-websocket-key";

interface Pseudo {
  readonly [name: string]: string | undefined;
}

/**
 * @param raw names and values as received, pseudo-headers first
 * @param hasBody whether the stream was left open behind the head
 * @param webSocketKey made only where it is needed
 * @throws `TLS_HEAD_REJECTED`
 */
export function translateHead(
  raw: RawHeaders,
  hasBody: boolean,
  webSocketKey: () => string,
): TranslatedHead {
  const { fields, pseudo } = split(raw);
  const { ":method": method = "", ":path": url = "", ":protocol": protocol } = pseudo;
  if (pseudo[":scheme"] !== "https") {
    // CONNECT that opens a tunnel to anywhere has none.
    throw rejected(method === "CONNECT" ? "the method is not allowed here" : "the scheme");
  }
  const authority = authorityOf(pseudo, fields);
  const isTunnel = method === "CONNECT";
  if (isTunnel !== (protocol !== undefined)) throw rejected("the method is not allowed here");
  const rawHeaders = ["host", authority, ...joinCookies(fields)];
  if (isTunnel) rawHeaders.push(...handshakeFields(protocol, fields, webSocketKey));
  else if (hasBody && !hasField(fields, "content-length")) {
    // The length is not known, which HTTP/1.1 says in this way.
    rawHeaders.push("transfer-encoding", "chunked");
  }
  return {
    method: isTunnel ? "GET" : method,
    url,
    rawHeaders,
    headers: headersOf(rawHeaders),
    isTunnel,
  };
}

function split(raw: RawHeaders): { pseudo: Pseudo; fields: string[] } {
  const pseudo: Record<string, string> = {};
  const fields: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name, value] = [raw[i] ?? "", raw[i + 1] ?? ""];
    if (name.startsWith(":")) pseudo[name] = value;
    else if (CONNECTION_SPECIFIC.has(name)) throw rejected("a field of another version's");
    else if (name === "te" && value.toLowerCase() !== "trailers") throw rejected("TE");
    else fields.push(name, value);
  }
  return { pseudo, fields };
}

/** Of two readers one may go by Host, the other by :authority (RFC 9113 §8.3.1). Host is taken out of `fields`. */
function authorityOf(pseudo: Pseudo, fields: string[]): string {
  let authority = pseudo[":authority"];
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] !== "host") continue;
    const host = fields[i + 1] ?? "";
    if (authority !== undefined && authority.toLowerCase() !== host.toLowerCase()) {
      throw rejected("Host is not :authority, or comes twice");
    }
    authority = host;
    fields.splice(i, 2);
    i -= 2;
  }
  return authority ?? "";
}

/** RFC 9113 §8.2.3: cookies may come in crumbs, and leave in one field. */
function joinCookies(fields: RawHeaders): string[] {
  const joined: string[] = [];
  let at = -1;
  for (let i = 0; i + 1 < fields.length; i += 2) {
    const [name, value] = [fields[i] ?? "", fields[i + 1] ?? ""];
    if (name === "cookie" && at >= 0) {
      joined[at] = `${joined[at]}; ${value}`;
      continue;
    }
    if (name === "cookie") at = joined.length + 1;
    joined.push(name, value);
  }
  return joined;
}

function handshakeFields(
  protocol: string | undefined,
  fields: RawHeaders,
  webSocketKey: () => string,
): string[] {
  if (protocol !== "websocket") throw rejected("a tunnel for something else than WebSocket");
  const handshake = ["connection", "Upgrade", "upgrade", "websocket"];
  return hasField(fields, WEBSOCKET_KEY)
    ? handshake
    : [...handshake, WEBSOCKET_KEY, webSocketKey()];
}

function hasField(fields: RawHeaders, wanted: string): boolean {
  return fields.some((name, i) => i % 2 === 0 && name === wanted);
}

/** As node:http makes them: of fields that may come once the first counts, others are joined. */
function headersOf(raw: RawHeaders): IncomingHttpHeaders {
  const headers = Object.create(null) as Record<string, string>;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name, value] = [raw[i] ?? "", raw[i + 1] ?? ""];
    const known = headers[name];
    if (known === undefined) headers[name] = value;
    else if (!FIRST_COUNTS.has(name)) headers[name] = `${known}, ${value}`;
  }
  return headers;
}

/** Of node:http, those of requests. */
const FIRST_COUNTS: ReadonlySet<string> = new Set([
  "age",
  "authorization",
  "content-length",
  "content-type",
  "expires",
  "from",
  "host",
  "if-modified-since",
  "if-unmodified-since",
  "max-forwards",
  "proxy-authorization",
  "referer",
  "user-agent",
]);

function rejected(message: string): StileError {
  return new StileError("TLS_HEAD_REJECTED", `request head: ${message}`);
}
