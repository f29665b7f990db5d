/**
 * CORS (Fetch, §3.2) for pages of other origins that call an API behind the edge. The edge answers preflights,
 * which can carry no token, and lets such pages read its own refusals and endpoints; what the application's
 * answers may be read by, stays the application's to say.
 */
import type { IncomingMessage, ServerResponse } from "node:http";

interface WithOrigin {
  readonly headers: { readonly origin?: string | undefined };
}

export interface Cors {
  /** Headers of an answer of ours to this request: none for an origin that is not listed. */
  readonly headersFor: (request: WithOrigin) => Readonly<Record<string, string>>;
  /** Answers a preflight of a listed origin. @returns whether it was one */
  readonly answerPreflight: (request: IncomingMessage, response: ServerResponse) => boolean;
}

const EXPOSED = "www-authenticate, retry-after, dpop-nonce";
const MAX_AGE_SECONDS = "600";
/** Of names in a list: what is echoed must not be able to be anything else. */
const NAMES = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*$/;
const MAX_NAMES_LENGTH = 1_024;

/** @param origins as browsers spell them: scheme, host, and port where it is not the default */
export function createCors(origins: readonly string[]): Cors {
  const listed: ReadonlySet<string> = new Set(origins);
  const originOf = ({ headers: { origin } }: WithOrigin): string | undefined =>
    origin !== undefined && listed.has(origin) ? origin : undefined;
  const headersFor: Cors["headersFor"] = (request) => {
    if (listed.size === 0) return {};
    const origin = originOf(request);
    // Caches must tell origins apart even where this one gets nothing.
    if (origin === undefined) return { vary: "origin" };
    return {
      "access-control-allow-origin": origin,
      "access-control-allow-credentials": "true",
      "access-control-expose-headers": EXPOSED,
      vary: "origin",
    };
  };
  return {
    headersFor,
    answerPreflight: (request, response) => {
      const method = request.headers["access-control-request-method"];
      if (request.method !== "OPTIONS" || method === undefined) return false;
      const names = request.headers["access-control-request-headers"] ?? "";
      if (originOf(request) === undefined || !isListOfNames(method)) return false;
      response.writeHead(204, {
        ...headersFor(request),
        "access-control-allow-methods": method,
        ...(isListOfNames(names) ? { "access-control-allow-headers": names } : {}),
        "access-control-max-age": MAX_AGE_SECONDS,
        vary: "origin, access-control-request-method, access-control-request-headers",
      });
      response.end();
      return true;
    },
  };
}

function isListOfNames(text: string): boolean {
  return text.length <= MAX_NAMES_LENGTH && NAMES.test(text);
}
