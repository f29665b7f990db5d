/**
 * Response heads of an upstream (RFC 9112 §4 and §6.3), read from a buffer, and how the body behind one is
 * framed. What could be read in two ways is malformed: an upstream that is confused, or that was made to be,
 * must not have a second answer hidden in its first.
 */

import { lowerName } from "../header-hygiene.ts";
import { lineEnd, trimmed } from "./head-text.ts";

export type BodyFraming =
  | { readonly kind: "none" }
  | { readonly kind: "sized"; readonly bytes: number }
  | { readonly kind: "chunked" }
  /** Up to the end of the connection. */
  | { readonly kind: "until-close" };

export interface ResponseHead {
  readonly kind: "head";
  readonly status: number;
  readonly reason: string;
  /** Name, value, name, value, as Node gives them. Values may hold bytes above 0x7f, as latin1. */
  readonly rawHeaders: readonly string[];
  readonly framing: BodyFraming;
  /** The connection can carry another exchange. */
  readonly keepAlive: boolean;
  /** Bytes of the head, up to and with its empty line. */
  readonly length: number;
}

export type ParsedResponseHead =
  | ResponseHead
  | { readonly kind: "incomplete" }
  | { readonly kind: "malformed" };

/** As node:http's client has it. */
const MAX_HEAD_BYTES = 16_384;

const INCOMPLETE: ParsedResponseHead = Object.freeze({ kind: "incomplete" });
const MALFORMED: ParsedResponseHead = Object.freeze({ kind: "malformed" });
/** All of it, so that what follows need not look at bytes again. */
const HEAD =
  /^HTTP\/1\.[01] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?(?:\r\n[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\t\x20-\x7e\x80-\xff]*)*$/;
const CONTENT_LENGTH = /^[0-9]{1,15}$/;

/** @param bytes from the first byte of an answer on */
export function parseResponseHead(bytes: Buffer, requestMethod: string): ParsedResponseHead {
  const end = bytes.indexOf("\r\n\r\n", 0, "latin1");
  if (end < 0) return bytes.length < MAX_HEAD_BYTES ? INCOMPLETE : MALFORMED;
  if (end > MAX_HEAD_BYTES) return MALFORMED;
  const text = bytes.toString("latin1", 0, end);
  if (!HEAD.test(text)) return MALFORMED;
  const statusEnd = lineEnd(text, 0);
  const isHttp11 = text.charCodeAt(7) === 0x31;
  const status = Number(text.slice(9, 12));
  const rawHeaders: string[] = [];
  for (let at = statusEnd + 2; at < text.length;) {
    const to = lineEnd(text, at);
    const colon = text.indexOf(":", at);
    rawHeaders.push(text.slice(at, colon), trimmed(text, colon + 1, to));
    at = to + 2;
  }
  const said = whatIsSaid(rawHeaders);
  const framing = framingOf(said, requestMethod, status, isHttp11);
  if (framing === undefined) return MALFORMED;
  const keepAlive =
    framing.kind !== "until-close" &&
    !said.options.includes("close") &&
    (isHttp11 || said.options.includes("keep-alive"));
  const reason = text.slice(13, statusEnd);
  return { kind: "head", status, reason, rawHeaders, framing, keepAlive, length: end + 4 };
}

interface Said {
  readonly lengths: readonly string[];
  readonly codings: readonly string[];
  /** Of every Connection header, in lower case. */
  readonly options: readonly string[];
}

function whatIsSaid(rawHeaders: readonly string[]): Said {
  const lengths: string[] = [];
  const codings: string[] = [];
  const options: string[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const value = rawHeaders[i + 1] ?? "";
    const name = lowerName(rawHeaders[i] ?? "");
    if (name === "content-length") lengths.push(value);
    else if (name === "transfer-encoding") codings.push(value.toLowerCase());
    else if (name === "connection") {
      for (const option of value.split(",")) options.push(option.trim().toLowerCase());
    }
  }
  return { lengths, codings, options };
}

/** RFC 9112 §6.3, without what it leaves to the reader. Undefined for what has no single meaning. */
function framingOf(
  { codings, lengths }: Said,
  requestMethod: string,
  status: number,
  isHttp11: boolean,
): BodyFraming | undefined {
  if (lengths.length + codings.length > 1) return undefined;
  const [length] = lengths;
  const [coding] = codings;
  if (length !== undefined && !CONTENT_LENGTH.test(length)) return undefined;
  if (coding !== undefined && (coding !== "chunked" || !isHttp11)) return undefined;
  const hasNone = requestMethod === "HEAD" || status < 200 || status === 204 || status === 304;
  if (hasNone) return { kind: "none" };
  if (length !== undefined) return { kind: "sized", bytes: Number(length) };
  return { kind: coding === undefined ? "until-close" : "chunked" };
}
