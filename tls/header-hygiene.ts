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

/** What upstreams believe of a client because a proxy said so. Names as they compare: see {@link canonical}. */
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

/** Case and `_` for `-` make no difference to the servers that are to be protected. */
function canonical(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

/** True for a header that only a proxy may set. */
export function isSpoofable(name: string): boolean {
  const plain = canonical(name);
  return SPOOFABLE.has(plain) || SPOOFABLE_PREFIXES.some((prefix) => plain.startsWith(prefix));
}

/** A header list as Node gives and takes it: name, value, name, value. */
export type RawHeaders = readonly string[];

/**
 * In lower case. Others stay behind, as at nginx (`ignore_invalid_headers`): lighttpd's CGI writes `_` for every
 * other character, so that `X.Real.IP` is HTTP_X_REAL_IP.
 */
const PLAIN_NAME = /^[a-z0-9-]+$/;

/**
 * The headers of a request that go on to the upstream, in their order and spelling.
 * @param remove further names, in lower case
 */
export function requestHeadersToForward(raw: RawHeaders, remove: readonly string[]): string[] {
  const dropped = new Set([...connectionOptions(raw), ...remove]);
  return filterHeaders(raw, (name) => {
    const isMeant = PLAIN_NAME.test(name) && !dropped.has(name) && name !== "expect";
    return isMeant && !HOP_BY_HOP.has(name) && !isSpoofable(name);
  });
}

/** The headers of an answer that go back to the client, in their order and spelling. */
export function responseHeadersToForward(raw: RawHeaders): string[] {
  const dropped = connectionOptions(raw);
  // Not hop-by-hop whatever an upstream says (RFC 9110 §7.6.1): the client would not know where the answer ends.
  dropped.delete("content-length");
  // An upstream does not speak for the edge either.
  return filterHeaders(raw, (name) => {
    return !HOP_BY_HOP.has(name) && !dropped.has(name) && !canonical(name).startsWith("stile-");
  });
}

function filterHeaders(raw: RawHeaders, keep: (name: string) => boolean): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name, value] = [raw[i] ?? "", raw[i + 1] ?? ""];
    if (keep(name.toLowerCase())) kept.push(name, value);
  }
  return kept;
}

/** The names that every Connection header lists. */
function connectionOptions(raw: RawHeaders): Set<string> {
  const names = new Set<string>();
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (raw[i]?.toLowerCase() !== "connection") continue;
    for (const option of (raw[i + 1] ?? "").split(",")) names.add(option.trim().toLowerCase());
  }
  return names;
}
