/**
 * The request heads of the fast path (RFC 9112 §2 to §6), read from a buffer. An allow-list: what it takes
 * is read in one way by every parser we know of, and whatever is refused by others, unusual or merely new
 * is `other`. Those connections go to node:http and `checkRequestHead`, which answer or refuse; so a rule
 * that is missing there is not made up here, and one that is too strict here costs speed only.
 */

import { lowerName } from "../header-hygiene.ts";
import { lineEnd, trimmed } from "./head-text.ts";

/** A head that can be forwarded by its tokens. Every string is printable ASCII and hostile. */
export interface RequestHead {
  readonly kind: "head";
  readonly method: string;
  /** In origin form. */
  readonly target: string;
  /** Value of the one Host header. */
  readonly host: string;
  /** Name, value, name, value, as Node gives them: no name comes twice. */
  readonly rawHeaders: readonly string[];
  /** By name in lower case. */
  readonly fields: ReadonlyMap<string, string>;
  /** Bytes of the body; undefined where nothing was said, which is none. */
  readonly contentLength: number | undefined;
  readonly keepAlive: boolean;
  /** Bytes of the head, up to and with its empty line. */
  readonly length: number;
}

export type ParsedRequestHead =
  | RequestHead
  | { readonly kind: "incomplete" }
  /** For node:http to answer or to refuse. */
  | { readonly kind: "other" };

export interface HeadLimits {
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
}

const INCOMPLETE: ParsedRequestHead = Object.freeze({ kind: "incomplete" });
const OTHER: ParsedRequestHead = Object.freeze({ kind: "other" });

const METHODS: ReadonlySet<string> = new Set([
  "DELETE",
  "GET",
  "HEAD",
  "OPTIONS",
  "PATCH",
  "POST",
  "PUT",
]);
/** A body here is legal and read by some servers only (RFC 9110 §9.3.1). */
const WITHOUT_BODY: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
/**
 * All of it. In the target what RFC 3986 allows in a path and a query, and the brackets that everybody sends; two
 * slashes at its start are a path here and an authority to those who resolve it as a reference. Names are narrower
 * than a token: nginx drops headers with other characters in theirs.
 */
const HEAD =
  /^[A-Z]{3,7} \/(?!\/)[A-Za-z0-9._~!$&'()*+,;=:@/?%[\]-]* HTTP\/1\.1(?:\r\n[A-Za-z0-9-]+:[\x20-\x7e]*)*$/;
const VERSION_CHARS = " HTTP/1.1".length;
/**
 * Escapes that are none, encoded controls, and segments that name another place: nginx answers 400 to some of
 * them and rewrites others.
 */
const ODD_TARGET = /%(?![2-9A-Fa-f][0-9A-Fa-f])|%7f|\/(?:\.|%2e){1,2}(?:[/?;]|$)/i;
/** A name or an IPv4 address, with an optional port. Labels are not empty: nginx refuses `a..b`. */
const HOST = /^(?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+(?::[0-9]{1,5})?$/;
const MAX_HOST_CHARS = 259;
/** Without leading zeros, and below 2^53. */
const CONTENT_LENGTH = /^(?:0|[1-9][0-9]{0,14})$/;
/** What changes how the message, or the connection, is to be read. */
const LEFT_TO_NODE: ReadonlySet<string> = new Set([
  "expect",
  "http2-settings",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
/** Bytes that a head may still turn out to be made of. */
const BEGINNING = /^[A-Z](?:[\x20-\x7e]|\r\n)*\r?$/;

/** @param bytes from the first byte of a request on; what follows its head is not looked at */
export function parseRequestHead(bytes: Buffer, limits: HeadLimits): ParsedRequestHead {
  const end = bytes.indexOf("\r\n\r\n", 0, "latin1");
  if (end < 0) return beginningOf(bytes, limits);
  if (end + 4 > limits.maxHeaderBytes) return OTHER;
  const text = bytes.toString("latin1", 0, end);
  if (!HEAD.test(text)) return OTHER;
  const method = text.slice(0, text.indexOf(" "));
  const lineTo = lineEnd(text, 0);
  const target = text.slice(method.length + 1, lineTo - VERSION_CHARS);
  if (!METHODS.has(method) || ODD_TARGET.test(target)) return OTHER;
  const rawHeaders: string[] = [];
  const fields = new Map<string, string>();
  for (let at = lineTo + 2; at < text.length;) {
    const to = lineEnd(text, at);
    const colon = text.indexOf(":", at);
    const name = text.slice(at, colon);
    const lower = lowerName(name);
    // Which of two counts differs from server to server.
    if (LEFT_TO_NODE.has(lower) || fields.has(lower)) return OTHER;
    const value = trimmed(text, colon + 1, to);
    fields.set(lower, value);
    rawHeaders.push(name, value);
    at = to + 2;
  }
  if (fields.size > limits.maxHeaders) return OTHER;
  return headOf({ method, target, rawHeaders, fields, length: end + 4 });
}

function beginningOf(bytes: Buffer, { maxHeaderBytes }: HeadLimits): ParsedRequestHead {
  if (bytes.length >= maxHeaderBytes) return OTHER;
  // Node refuses a bad byte when it comes: to wait for the end of the head would let it lie.
  return bytes.length === 0 || BEGINNING.test(bytes.toString("latin1")) ? INCOMPLETE : OTHER;
}

function headOf(
  head: Pick<RequestHead, "method" | "target" | "rawHeaders" | "fields" | "length">,
): ParsedRequestHead {
  const { fields, method } = head;
  const host = fields.get("host") ?? "";
  if (host.length > MAX_HOST_CHARS || !HOST.test(host)) return OTHER;
  const length = fields.get("content-length");
  if (length !== undefined && !CONTENT_LENGTH.test(length)) return OTHER;
  const contentLength = length === undefined ? undefined : Number(length);
  if ((contentLength ?? 0) > 0 && WITHOUT_BODY.has(method)) return OTHER;
  const connection = (fields.get("connection") ?? "keep-alive").toLowerCase();
  if (connection !== "keep-alive" && connection !== "close") return OTHER;
  return { ...head, kind: "head", host, contentLength, keepAlive: connection === "keep-alive" };
}
