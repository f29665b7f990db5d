/**
 * Trailer fields through the edge (RFC 9110 §6.5): from a client whose body has no length, to the upstream; and
 * from the upstream to a client that says `TE: trailers`, which is then said upstream, too. What a field may not say
 * so late, because it was needed before (§6.5.1) or is not for the other side to say, is left out.
 */
import type { IncomingMessage } from "node:http";
import {
  type RawHeaders,
  requestHeadersToForward,
  responseHeadersToForward,
} from "./header-hygiene.ts";

/** Framing, routing, methods, credentials, conditions, and what says how the content is to be read. */
const NOT_LATE: ReadonlySet<string> = new Set([
  "accept-ranges",
  "age",
  "authorization",
  "cache-control",
  "content-encoding",
  "content-length",
  "content-range",
  "content-type",
  "cookie",
  "date",
  "expect",
  "expires",
  "host",
  "location",
  "max-forwards",
  "pragma",
  "range",
  "retry-after",
  "set-cookie",
  "vary",
  "warning",
  "www-authenticate",
  "x-http-method",
  "x-http-method-override",
  "x-method-override",
]);
const NAME = /^[A-Za-z0-9!#$%&'*+.^`|~-]+$/;

type Trailers = readonly [name: string, value: string][];

export function takesTrailers({ headers }: IncomingMessage): boolean {
  const { te } = headers as { readonly te?: string };
  return te?.toLowerCase() === "trailers";
}

export function requestTrailers(raw: RawHeaders): Trailers {
  return late(requestHeadersToForward(raw, []));
}

export function responseTrailers(raw: RawHeaders): Trailers {
  return late(responseHeadersToForward(raw));
}

function late(fields: RawHeaders): Trailers {
  const kept: [string, string][] = [];
  for (let i = 0; i + 1 < fields.length; i += 2) {
    const [name, value] = [fields[i] ?? "", fields[i + 1] ?? ""];
    const plain = name.toLowerCase();
    if (NAME.test(name) && !NOT_LATE.has(plain) && !plain.startsWith("if-"))
      kept.push([name, value]);
  }
  return kept;
}
