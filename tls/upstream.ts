/** Where admitted requests go: an HTTP/1.1 server over TCP or a Unix socket. */
import { connect, type Socket } from "node:net";
import { StileError } from "../wire/index.ts";

export type Upstream =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** @param text `http://host:port` or `unix:/path`. @throws RangeError for anything else */
export function parseUpstream(text: string): Upstream {
  if (text.startsWith("unix:/")) return { kind: "unix", path: text.slice("unix:".length) };
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain =
    url?.protocol === "http:" &&
    url.username === "" &&
    url.password === "" &&
    url.pathname === "/" &&
    url.search === "" &&
    url.hash === "";
  if (url === undefined || !isPlain)
    throw new RangeError("expected http://host:port or unix:/path");
  const host = url.hostname.replace(/^\[(?<address>.*)\]$/, "$<address>");
  return { kind: "tcp", host, port: url.port === "" ? 80 : Number(url.port) };
}

/** As `node:http` takes it. */
export function upstreamAddress(
  upstream: Upstream,
): { host: string; port: number } | { socketPath: string } {
  return upstream.kind === "tcp"
    ? { host: upstream.host, port: upstream.port }
    : { socketPath: upstream.path };
}

/** A connection outside the pool. A tunnel's two directions end one by one, hence half-open. */
export function connectHalfOpen(upstream: Upstream): Socket {
  return upstream.kind === "tcp"
    ? connect({ host: upstream.host, port: upstream.port, allowHalfOpen: true })
    : connect({ path: upstream.path, allowHalfOpen: true });
}

/**
 * RFC 9110 §15: 200 to 599 is an answer. Node reports other 1xx apart, but passes a 101 without Upgrade, after
 * which nothing is HTTP, and 600 to 999 as answers.
 */
export function isFinalStatus(statusCode: number | undefined): boolean {
  return statusCode !== undefined && statusCode >= 200 && statusCode <= 599;
}

/** What a failed exchange with the upstream means to the client. */
export function asUpstreamError(cause: unknown): StileError {
  if (cause instanceof StileError) return cause;
  return new StileError("TLS_UPSTREAM_UNREACHABLE", "the upstream cannot be reached", { cause });
}

/** The status with which the upstream's answer began, or that there is none: by its fault, or by the client's. */
export type UpstreamOutcome = number | "failed" | "gone";

/** A body that was too large, say, tells nothing of the upstream. */
export function outcomeOf(error: unknown): UpstreamOutcome {
  return error instanceof StileError && error.code.startsWith("TLS_UPSTREAM_") ? "failed" : "gone";
}
