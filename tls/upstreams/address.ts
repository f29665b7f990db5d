/** Where admitted requests go: an HTTP/1.1 server over TCP, over TLS, or at a Unix socket. */

export type UpstreamAddress =
  | { readonly kind: "tcp" | "tls"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

const SCHEMES = {
  "http:": { kind: "tcp", port: 80 },
  "https:": { kind: "tls", port: 443 },
} as const;

/** @param text `http://host:port`, `https://host:port` or `unix:/path`. @throws RangeError for anything else */
export function parseUpstream(text: string): UpstreamAddress {
  if (text.startsWith("unix:/")) return { kind: "unix", path: text.slice("unix:".length) };
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const scheme =
    url?.protocol === "http:" || url?.protocol === "https:" ? SCHEMES[url.protocol] : undefined;
  const isPlain =
    url?.username === "" &&
    url.password === "" &&
    url.pathname === "/" &&
    url.search === "" &&
    url.hash === "";
  if (url === undefined || scheme === undefined || !isPlain)
    throw new RangeError("expected http://host:port, https://host:port or unix:/path");
  const host = url.hostname.replace(/^\[(?<address>.*)\]$/, "$<address>");
  return { kind: scheme.kind, host, port: url.port === "" ? scheme.port : Number(url.port) };
}
