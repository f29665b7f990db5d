/**
 * Whether the upstream ended its TLS, or somebody cut the connection below it. An answer without a length is whole only
 * where a close_notify ended it (RFC 9112 §9.8, RFC 8446 §6.1): anybody on the way can make a FIN, and a process that
 * dies leaves one, too. Node reports both as the same 'end'.
 */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { constants } from "node:os";
import type { TLSSocket } from "node:tls";
import { StileError } from "../../wire/index.ts";

/** Whose TLS came to its end without a close_notify. */
const cut = new WeakSet<Socket>();

/** Of Node's sockets, and not documented. */
interface ReadingHandle {
  readonly reading?: boolean;
  /** @returns 0, or the negative code of an error: `EALREADY` where it reads */
  readonly readStart: () => number;
}

/**
 * @param secure TLS on `raw`, which nothing was read of yet. Where a Node does it in another way, every connection counts
 * as cut; test/tls/upstreams/closure.test.ts sees both.
 */
export function watchClosure(secure: TLSSocket, raw: Socket): void {
  const push = secure.push.bind(secure);
  secure.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
    if (chunk === null && !isEndedByAlert(secure, raw)) cut.add(secure);
    return push(chunk, encoding);
  };
}

/** False of a connection without TLS, of which nobody can tell. */
export function isCut(socket: Socket): boolean {
  return cut.has(socket);
}

/**
 * The end of TLS comes with the alert, while the connection below is being read, or with that connection's own end,
 * at which libuv has stopped reading it.
 */
function isEndedByAlert(secure: TLSSocket, raw: Socket): boolean {
  // What nobody reads does not end: the alert was in what came before.
  if (handleOf(secure)?.reading === false) return true;
  return handleOf(raw)?.readStart() === -constants.errno.EALREADY;
}

function handleOf(socket: Socket): ReadingHandle | null | undefined {
  return (socket as unknown as { readonly _handle?: ReadingHandle | null })._handle;
}

/** The body of an answer, for a pipeline. @throws `TLS_UPSTREAM_UNREACHABLE` at its end where it was cut there */
export function bodyOfAnswer(
  answer: IncomingMessage,
  method: string | undefined,
): IncomingMessage | AsyncIterable<Buffer> {
  return isUntilClose(answer, method) ? uncut(answer, answer.socket) : answer;
}

/** RFC 9112 §6.3. */
function isUntilClose(
  { headers, statusCode }: IncomingMessage,
  method: string | undefined,
): boolean {
  if (method === "HEAD" || statusCode === 204 || statusCode === 304) return false;
  return headers["content-length"] === undefined && headers["transfer-encoding"] === undefined;
}

async function* uncut(answer: AsyncIterable<Buffer>, socket: Socket): AsyncGenerator<Buffer> {
  yield* answer;
  // node:http takes a connection that was reset for one that was closed.
  if (isCut(socket) || socket.errored !== null) throw cutError();
}

export function cutError(): StileError {
  return new StileError("TLS_UPSTREAM_UNREACHABLE", "the upstream's connection was cut");
}
