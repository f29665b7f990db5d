/**
 * What a request head must not be (RFC 9110, RFC 9112): everything that Node's parser lets through and
 * another parser could read otherwise is refused here, before anything is decided or forwarded. A refused
 * head ends its connection. It judges form only; which hosts are served is not its business.
 */
import { type IncomingMessage, METHODS } from "node:http";
import type { Socket } from "node:net";
import { StileError } from "../wire/index.ts";
import { Http2Request } from "./h2/request.ts";
import { isSpoofable } from "./header-hygiene.ts";

/** Headers of which a second copy would let two readers see two requests. */
const AT_MOST_ONCE: ReadonlySet<string> = new Set([
  "authorization",
  "content-length",
  "cookie",
  "expect",
  "host",
  "transfer-encoding",
  "upgrade",
]);
/**
 * What HTTP/1.1's parser knows, but for methods that make no sense at a reverse proxy: CONNECT opens tunnels, TRACE
 * echoes credentials. HTTP/2 lets any token through, and node:http's client would send `delete` as DELETE, which no
 * rule has judged.
 */
const ALLOWED_METHODS: ReadonlySet<string> = new Set(
  METHODS.filter((method) => method !== "CONNECT" && method !== "TRACE"),
);
/** Headers that `Connection` must not name: removing them would change what the request is. */
const NOT_HOP_BY_HOP: ReadonlySet<string> = new Set([
  "authorization",
  "content-length",
  "cookie",
  "host",
  "transfer-encoding",
]);
/** origin-form (RFC 9112 §3.2.1), or the asterisk of OPTIONS. No control, space, fragment or backslash. */
const TARGET = /^(?:\/[\x21\x22\x24-\x5b\x5d-\x7e]*|\*)$/;
/** A NUL in any part of a path ends the string for some of those behind us. */
const ENCODED_NUL = /%00/;
/** RFC 9110 §7.2: a host name or address with an optional port; no userinfo, no path. */
const HOST = /^(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?$/;
const HEADER_NAME = /^[A-Za-z0-9!#$%&'*+.^`|~-]+$/;

/**
 * Connections of which a head was refused. What a client pipelined behind it was parsed by rules that are in
 * doubt since then (a smuggled request, say), and no answer would reach it. Streams of HTTP/2 are not read by
 * each other's rules.
 */
const refused = new WeakSet<Socket>();

/**
 * Call it synchronously, before anything else is done with the request.
 * @throws `TLS_HEAD_REJECTED`, also for every later request of the same connection
 */
export function checkRequestHead(request: IncomingMessage): void {
  if (refused.has(request.socket)) throw rejected("it follows a refused one");
  try {
    checkVersion(request);
    checkNames(request.rawHeaders);
    checkTarget(request);
    checkFraming(request);
    checkConnection(request.headers.connection);
    checkExpectations(request);
  } catch (error) {
    if (!isHttp2(request)) refused.add(request.socket);
    throw error;
  }
}

function isHttp2(request: object): boolean {
  return request instanceof Http2Request;
}

/** Node reads a request line without a version as HTTP/0.9, and headers behind it, which HTTP/0.9 has not. */
function checkVersion({ httpVersion }: IncomingMessage): void {
  if (httpVersion === "0.9") throw rejected("HTTP/0.9 is not spoken");
}

function checkNames(rawHeaders: readonly string[]): void {
  const seen = new Set<string>();
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] ?? "").toLowerCase();
    // "_" is a token character, but CGI-like servers read "X_Real_IP" as "X-Real-IP".
    if (!HEADER_NAME.test(name)) throw rejected("a header name is not allowed here");
    if (seen.has(name) && AT_MOST_ONCE.has(name)) throw rejected(`more than one ${name} header`);
    seen.add(name);
  }
}

function checkTarget(request: IncomingMessage): void {
  const { headers, method = "", url = "" } = request;
  if (!ALLOWED_METHODS.has(method)) throw rejected("the method is not allowed here");
  if (!TARGET.test(url) || ENCODED_NUL.test(url))
    throw rejected("the target is not in origin form");
  if (url === "*" && method !== "OPTIONS") throw rejected("the target is not in origin form");
  if (!HOST.test(headers.host ?? "")) throw rejected("the Host header is missing or malformed");
}

function checkFraming(request: IncomingMessage): void {
  const encoding = request.headers["transfer-encoding"];
  const length = request.headers["content-length"];
  if (encoding !== undefined) {
    if (encoding.toLowerCase() !== "chunked") throw rejected("the transfer coding is not chunked");
    if (length !== undefined) throw rejected("both Transfer-Encoding and Content-Length");
    if (request.httpVersion !== "1.1" && !isHttp2(request))
      throw rejected("a transfer coding before HTTP/1.1");
  }
  if (length !== undefined && !/^[0-9]{1,15}$/.test(length)) throw rejected("Content-Length");
}

function checkConnection(connection: string | undefined): void {
  for (const option of listOf(connection)) {
    if (NOT_HOP_BY_HOP.has(option) || isSpoofable(option)) {
      throw rejected("the Connection header names a header that must not be dropped");
    }
  }
}

function checkExpectations(request: IncomingMessage): void {
  const { expect, upgrade } = request.headers;
  if (expect !== undefined && expect.toLowerCase() !== "100-continue") {
    throw rejected("an unknown expectation");
  }
  if (upgrade !== undefined && upgrade.toLowerCase() !== "websocket") {
    throw rejected("an upgrade to something else than WebSocket");
  }
}

/** The options of a comma-separated header, in lower case. */
export function listOf(value: string | undefined): string[] {
  if (value === undefined) return [];
  return value.split(",").map((option) => option.trim().toLowerCase());
}

function rejected(message: string): StileError {
  return new StileError("TLS_HEAD_REJECTED", `request head: ${message}`);
}
