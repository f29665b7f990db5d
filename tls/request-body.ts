/**
 * Sends a request's body to the upstream, capped and with back-pressure. It never destroys the request:
 * that would cut the client's connection before it could be told why.
 */
import type { ClientRequest, IncomingMessage } from "node:http";
import { Transform } from "node:stream";
import { StileError } from "../wire/index.ts";
import { requestTrailers } from "./trailers.ts";

/** What a request says of its body. */
export type RequestBody =
  | { readonly kind: "none" }
  | { readonly kind: "sized" | "chunked"; readonly maxBytes: number };

/** @throws `TLS_BODY_TOO_LARGE` where the length alone says so */
export function requestBodyOf(request: IncomingMessage, maxBytes: number): RequestBody {
  if (request.headers["transfer-encoding"] !== undefined) return { kind: "chunked", maxBytes };
  const length = Number(request.headers["content-length"] ?? "0");
  if (length > maxBytes) throw bodyTooLarge();
  return length > 0 ? { kind: "sized", maxBytes } : { kind: "none" };
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
  let bytes = 0;
  const cap = new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      bytes += chunk.length;
      if (bytes > body.maxBytes) done(bodyTooLarge());
      else done(null, chunk);
    },
    flush: (done) => {
      if (body.kind === "chunked") upstream.addTrailers(requestTrailers(request.rawTrailers));
      done();
    },
  });
  cap.once("error", onError);
  request.pipe(cap).pipe(upstream);
}

function bodyTooLarge(): StileError {
  return new StileError("TLS_BODY_TOO_LARGE", "the request body is larger than the limit");
}
