/**
 * Sends a request's body to the upstream, capped and with back-pressure. It never destroys the request:
 * that would cut the client's connection before it could be told why.
 */
import type { ClientRequest, IncomingMessage } from "node:http";
import { Transform } from "node:stream";
import { StileError } from "../wire/index.ts";
import { requestTrailers } from "./trailers.ts";

/** Without a body their length need not be said (RFC 9110 §8.6). */
export const BODYLESS_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "DELETE"]);

/** What a request says of its body. */
export type RequestBody =
  | { readonly kind: "none" }
  | { readonly kind: "sized"; readonly length: number; readonly maxBytes: number }
  | { readonly kind: "chunked"; readonly length: undefined; readonly maxBytes: number };

/** @throws `TLS_BODY_TOO_LARGE` where the length alone says so */
export function requestBodyOf(request: IncomingMessage, maxBytes: number): RequestBody {
  if (request.headers["transfer-encoding"] !== undefined) {
    return { kind: "chunked", length: undefined, maxBytes };
  }
  const length = Number(request.headers["content-length"] ?? "0");
  if (length > maxBytes) throw bodyTooLarge();
  return length > 0 ? { kind: "sized", length, maxBytes } : { kind: "none" };
}

/** Content-Length goes through as received; the rest of the framing is said anew. */
export function framingHeaders(request: IncomingMessage, body: RequestBody): string[] {
  if (body.kind === "chunked") return ["Transfer-Encoding", "chunked"];
  const isSaid = request.headers["content-length"] !== undefined;
  // Without a body Node would announce a chunked one for these methods.
  return isSaid || BODYLESS_METHODS.has(request.method ?? "GET") ? [] : ["Content-Length", "0"];
}

/** `onError` hears of a body above the cap; what the upstream has of it is then to be thrown away. */
export function sendBody(
  request: IncomingMessage,
  body: RequestBody,
  upstream: ClientRequest,
  onError: (error: Error) => void,
): void {
  if (body.kind === "none") {
    upstream.end();
    return;
  }
  const { length, maxBytes } = body;
  let bytes = 0;
  let last: Buffer | undefined;
  const cap = new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      bytes += chunk.length;
      if (bytes > (length ?? maxBytes)) done(length === undefined ? bodyTooLarge() : wrongLength());
      else if (bytes < (length ?? Infinity)) done(null, chunk);
      else {
        // Over HTTP/2 more may follow: before its client's end no upstream may take it for whole (RFC 9113 §8.1.1).
        last = chunk;
        done();
      }
    },
    flush: (done) => {
      if (length === undefined) upstream.addTrailers(requestTrailers(request.rawTrailers));
      if (bytes === (length ?? bytes)) done(null, last);
      else done(wrongLength());
    },
  });
  cap.once("error", onError);
  request.pipe(cap).pipe(upstream);
}

/** The parsers do not let it come to this, but for bytes behind a length over HTTP/2. */
export function wrongLength(): StileError {
  return new StileError("TLS_HEAD_REJECTED", "request head: the body is not as long as it says");
}

export function bodyTooLarge(): StileError {
  return new StileError("TLS_BODY_TOO_LARGE", "the request body is larger than the limit");
}
