/**
 * Which headers do not pass through (RFC 9110 §7.6.1), and which a client must not be able to set at the
 * upstream because they are ours, or another proxy's, to say.
 */

/** Meant for one connection only. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** What HTTP/2 does not have (RFC 9113 §8.2.2), in lower case. `TE` may say `trailers`. */
export const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);

/** What upstreams believe of a client because a proxy said so. In lower case, with `-` for `_`. */
const SPOOFABLE: ReadonlySet<string> = new Set([
  "cf-connecting-ip",
  "client-cert",
  "client-cert-chain",
  "client-ip",
  "fastly-client-ip",
  "forwarded",
  // CGI makes it HTTP_PROXY, which programs take for the proxy of their own requests (CVE-2016-5385).
  "proxy",
  "proxy-client-ip",
  "true-client-ip",
  "wl-proxy-client-ip",
  "x-client-ip",
  "x-cluster-client-ip",
  "x-forwarded",
  "x-host",
  "x-http-host-override",
  "x-originating-ip",
  "x-real-ip",
  "x-remote-addr",
  "x-remote-ip",
  "x-rewrite-url",
]);
const SPOOFABLE_PREFIXES = [
  "ssl-",
  "stile-",
  "x-client-cert",
  "x-envoy-",
  "x-forwarded-",
  "x-original-",
  "x-ssl-",
  "x-stile-",
] as const;
/**
 * In lower case. Others stay behind, as at nginx (`ignore_invalid_headers`): lighttpd's CGI writes `_` for every
 * other character, so that `X.Real.IP` is HTTP_X_REAL_IP.
 */
const PLAIN_NAME = /^[a-z0-9-]+$/;

/** What a header's name alone says. */
interface HeaderName {
  readonly lower: string;
  readonly isSpoofable: boolean;
  /** It may go on to an upstream, unless something else of its message speaks against it. */
  readonly isRequests: boolean;
  /** The same of the way back to a client. */
  readonly isResponses: boolean;
}

/** The same few names come with every message: each is looked into once. Their spelling is hostile. */
const known = new Map<string, HeaderName>();
const MAX_KNOWN = 1_024;
const LEARNED_NAME = /^[A-Za-z0-9_-]{1,64}$/;

function headerName(text: string): HeaderName {
  return known.get(text) ?? learnName(text);
}

function learnName(text: string): HeaderName {
  if (!LEARNED_NAME.test(text)) return lookInto(text);
  // A slice would keep the whole head that it was cut from (seen with Node 24).
  const copy = Buffer.from(text, "latin1").toString("latin1");
  const name = lookInto(copy);
  if (known.size >= MAX_KNOWN) known.clear();
  known.set(copy, name);
  return name;
}

function lookInto(text: string): HeaderName {
  const lower = text.toLowerCase();
  // Case and `_` for `-` make no difference to the servers that are to be protected.
  const plain = lower.replaceAll("_", "-");
  const isSpoofed =
    SPOOFABLE.has(plain) || SPOOFABLE_PREFIXES.some((prefix) => plain.startsWith(prefix));
  const isHop = HOP_BY_HOP.has(lower);
  return {
    lower,
    isSpoofable: isSpoofed,
    isRequests: PLAIN_NAME.test(lower) && !isHop && !isSpoofed && lower !== "expect",
    // An upstream does not speak for the edge either.
    isResponses: !isHop && !plain.startsWith("stile-"),
  };
}

/** For comparing names: in lower case. */
export function lowerName(name: string): string {
  return headerName(name).lower;
}

/** True for a header that only a proxy may set. */
export function isSpoofable(name: string): boolean {
  return headerName(name).isSpoofable;
}

/** A header list as Node gives and takes it: name, value, name, value. */
export type RawHeaders = readonly string[];

/**
 * The headers of a request that go on to the upstream, in their order and spelling.
 * @param remove further names, in lower case
 */
export function requestHeadersToForward(raw: RawHeaders, remove: readonly string[]): string[] {
  const dropped = connectionOptions(raw);
  return filterHeaders(
    raw,
    ({ isRequests, lower }) => isRequests && !remove.includes(lower) && !dropped.has(lower),
  );
}

/** The headers of an answer that go back to the client, in their order and spelling. */
export function responseHeadersToForward(raw: RawHeaders): string[] {
  const dropped = connectionOptions(raw);
  // Not hop-by-hop whatever an upstream says (RFC 9110 §7.6.1): the client would not know where the answer ends.
  const isDropped = (lower: string): boolean => dropped.has(lower) && lower !== "content-length";
  return filterHeaders(raw, ({ isResponses, lower }) => isResponses && !isDropped(lower));
}

function filterHeaders(raw: RawHeaders, keep: (name: HeaderName) => boolean): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name, value] = [raw[i] ?? "", raw[i + 1] ?? ""];
    if (keep(headerName(name))) kept.push(name, value);
  }
  return kept;
}

const NO_OPTIONS: ReadonlySet<string> = new Set();

/** The names that every Connection header lists. */
function connectionOptions(raw: RawHeaders): ReadonlySet<string> {
  let names: Set<string> | undefined;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (headerName(raw[i] ?? "").lower !== "connection") continue;
    names ??= new Set();
    for (const option of (raw[i + 1] ?? "").split(",")) names.add(option.trim().toLowerCase());
  }
  return names ?? NO_OPTIONS;
}
