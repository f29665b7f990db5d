/**
 * Writes heads anew from their tokens, so that the next reader can read them in one way only. What goes through
 * and what stays behind is as in the general path: the same functions decide it.
 */
import { type ForwardedHeader, forwardedHeadersOf } from "../forwarded-headers.ts";
import { lowerName, requestHeadersToForward, responseHeadersToForward } from "../header-hygiene.ts";
import { BODYLESS_METHODS } from "../request-body.ts";
import type { RequestHead } from "./request-head.ts";
import type { ResponseHead } from "./response-head.ts";
import type { LocalAnswer } from "./splicer.ts";

type Headers = readonly (readonly [name: string, value: string])[];

/** Of what the caller adds; the rest was read by strict parsers. */
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const UNSAFE = /[\u0000-\u0008\u000a-\u001f\u007f]|[^\u0000-\u00ff]/;

export interface RequestHeadExtra {
  readonly remove: readonly string[];
  readonly add: Headers;
  readonly remoteAddress: string | undefined;
  readonly forwardedHeader: ForwardedHeader;
}

/** @throws TypeError where an added header could end its line */
export function writeRequestHead(head: RequestHead, extra: RequestHeadExtra): string {
  let text = `${head.method} ${head.target} HTTP/1.1\r\n`;
  text += linesOf(requestHeadersToForward(head.rawHeaders, extra.remove));
  text += linesOf(forwardedHeadersOf(extra.forwardedHeader, extra.remoteAddress, head.host));
  text += addedLines(extra.add);
  if (head.contentLength === undefined && !BODYLESS_METHODS.has(head.method)) {
    text += "Content-Length: 0\r\n";
  }
  return `${text}Connection: keep-alive\r\n\r\n`;
}

/** What an answer says of its connection and its time. */
export interface ConnectionExtra {
  /** Seconds that the connection is kept; undefined where this answer is its last. */
  readonly keepAliveSeconds: number | undefined;
  /** Value of a Date header, for an answer without one (RFC 9110 §6.6.1). */
  readonly date: () => string;
}

/** @param added lines of {@link addedLines} */
export function writeResponseHead(
  head: ResponseHead,
  added: string,
  extra: ConnectionExtra,
): string {
  const headers = responseHeadersToForward(head.rawHeaders);
  let text = `HTTP/1.1 ${head.status} ${head.reason}\r\n`;
  let hasDate = false;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? "";
    const lower = lowerName(name);
    // RFC 9110 §8.6: a 204 has none, and some clients would wait for what it promises.
    if (lower === "content-length" && head.status === 204) continue;
    if (lower === "date") hasDate = true;
    text += `${name}: ${headers[i + 1] ?? ""}\r\n`;
  }
  text += added;
  if (!hasDate) text += `Date: ${extra.date()}\r\n`;
  if (isReframed(head)) text += "Transfer-Encoding: chunked\r\n";
  return `${text}${connectionLines(extra.keepAliveSeconds)}\r\n`;
}

/** The length is not known from the head: the body goes on in chunks of our own. */
export function isReframed({ framing }: ResponseHead): boolean {
  return framing.kind === "chunked" || framing.kind === "until-close";
}

function connectionLines(keepAliveSeconds: number | undefined): string {
  return keepAliveSeconds === undefined
    ? "Connection: close\r\n"
    : `Connection: keep-alive\r\nKeep-Alive: timeout=${keepAliveSeconds}\r\n`;
}

/** An answer of our own in full. @throws TypeError where a header's value could end its line */
export function answerText(
  { body, headers, reason, status }: LocalAnswer,
  method: string,
  { date, keepAliveSeconds }: ConnectionExtra,
): string {
  const length = `Content-Length: ${Buffer.byteLength(body)}\r\n`;
  const head = `HTTP/1.1 ${status} ${reason}\r\n${addedLines(headers)}Date: ${date()}\r\n${length}`;
  const text = `${head}${connectionLines(keepAliveSeconds)}\r\n`;
  return method === "HEAD" ? text : text + body;
}

function linesOf(headers: readonly string[]): string {
  let text = "";
  for (let i = 0; i + 1 < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  return text;
}

/** @throws TypeError where a value could end its line */
export function addedLines(headers: Headers): string {
  let text = "";
  for (const [name, value] of headers) text += safeLine(name, value);
  return text;
}

/** @param headers name, value, name, value. @throws TypeError where a value could end its line */
export function safeLines(headers: readonly string[]): string {
  let text = "";
  for (let i = 0; i + 1 < headers.length; i += 2) {
    text += safeLine(headers[i] ?? "", headers[i + 1] ?? "");
  }
  return text;
}

function safeLine(name: string, value: string): string {
  if (UNSAFE.test(value)) throw new TypeError(`a value of ${name} cannot be in a head`);
  return `${name}: ${value}\r\n`;
}
