/**
 * One unary method over gRPC (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md) on cleartext HTTP/2: one message in, one
 * out, nothing compressed. For neighbours on this machine, but bounded all the same: size, time, streams, sessions.
 */
import {
  constants,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { isStileError, Reader } from "../../../wire/index.ts";

/** Envoy's limit of a request's headers is 60 KiB by default; a body is not read, and is not to be sent. */
const MAX_MESSAGE_BYTES = 262_144;
const PREFIX_BYTES = 5;
const MAX_CONNECTIONS = 1_000;
const MAX_CONCURRENT_STREAMS = 1_000;
/** For a session without a call. */
const SESSION_TIMEOUT_MS = 600_000;

/** Status codes of gRPC (doc/statuscodes.md). */
export const GRPC_STATUS: {
  readonly invalidArgument: 3;
  readonly permissionDenied: 7;
  readonly resourceExhausted: 8;
  readonly unimplemented: 12;
  readonly internal: 13;
} = {
  invalidArgument: 3,
  permissionDenied: 7,
  resourceExhausted: 8,
  unimplemented: 12,
  internal: 13,
};

/** Ends a call with that status. The message is for people and holds nothing of the request. */
export class GrpcError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface UnaryOptions {
  /** `/package.Service/Method` */
  readonly path: string;
  /** From the first byte of a call to the last of its answer. */
  readonly callTimeoutMs: number;
  /** Of the connection's other end; a Unix socket's has no address. */
  readonly isTrusted: (address: string | undefined) => boolean;
  /** @throws GrpcError, or `WIRE_…` for a message that cannot be read */
  readonly call: (message: Uint8Array) => Promise<Uint8Array>;
}

export interface UnaryServer {
  readonly server: Http2Server;
  /** Lets open calls end for this long. */
  readonly close: (drainMs: number) => Promise<void>;
}

export function createUnaryServer(options: UnaryOptions): UnaryServer {
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer({
    settings: { maxConcurrentStreams: MAX_CONCURRENT_STREAMS, enableConnectProtocol: false },
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on("session", (session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    session.on("error", () => undefined);
    session.setTimeout(SESSION_TIMEOUT_MS, () => session.destroy());
  });
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    // A client that went away is no error of ours.
    stream.on("error", () => undefined);
    const cut = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), options.callTimeoutMs);
    stream.once("close", () => clearTimeout(cut));
    serve(options, stream, headers).catch((error: unknown) => refuse(stream, error));
  });
  return {
    server,
    close: async (drainMs) => {
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      for (const session of sessions) session.close();
      const cut = setTimeout(() => {
        for (const session of sessions) session.destroy();
      }, drainMs);
      await closed;
      clearTimeout(cut);
    },
  };
}

async function serve(
  { call, isTrusted, path }: UnaryOptions,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
): Promise<void> {
  if (!isTrusted(stream.session?.socket.remoteAddress)) {
    throw new GrpcError(GRPC_STATUS.permissionDenied, "expected one of listen.trustedProxies");
  }
  if (headers[":method"] !== "POST" || headers[":path"] !== path) {
    throw new GrpcError(GRPC_STATUS.unimplemented, `expected POST ${path}`);
  }
  if (!/^application\/grpc(?:\+proto)?$/.test(headers["content-type"] ?? "")) {
    // As the protocol asks, so that no client of another kind takes the answer for a success.
    stream.resume().respond({ ":status": 415 }, { endStream: true });
    return;
  }
  const answer = await call(parseFrame(await readBody(stream)));
  if (stream.destroyed) return;
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.end(frameOf(answer));
}

/** Rejects where it is larger than a message may be. A stream that is cut before its end settles nothing. */
function readBody(stream: ServerHttp2Stream): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    stream.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length <= PREFIX_BYTES + MAX_MESSAGE_BYTES) chunks.push(chunk);
      else reject(new GrpcError(GRPC_STATUS.resourceExhausted, "the message is too large"));
    });
    stream.once("end", () => resolve(Buffer.concat(chunks)));
  });
}

/** Length-Prefixed-Message → Compressed-Flag Message-Length Message */
function parseFrame(bytes: Uint8Array): Uint8Array {
  const reader = new Reader(bytes, "Length-Prefixed-Message");
  if (reader.u8("Compressed-Flag") !== 0) {
    throw new GrpcError(GRPC_STATUS.unimplemented, "compression is not spoken");
  }
  const message = reader.bytes("Message", reader.u32("Message-Length"));
  reader.end();
  return message;
}

function frameOf(message: Uint8Array): Uint8Array {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** Trailers alone. What of the request is still to come is thrown away, for as long as a call may take. */
function refuse(stream: ServerHttp2Stream, error: unknown): void {
  if (stream.closed || stream.destroyed) return;
  const { message, status } = asGrpcError(error);
  const headers = { "content-type": "application/grpc", "grpc-status": String(status) };
  const trailersOnly = { ":status": 200, ...headers, "grpc-message": message };
  stream.resume().respond(trailersOnly, { endStream: true });
}

function asGrpcError(error: unknown): GrpcError {
  if (error instanceof GrpcError) return error;
  if (isStileError(error) && error.code.startsWith("WIRE_")) {
    return new GrpcError(GRPC_STATUS.invalidArgument, error.message);
  }
  return new GrpcError(GRPC_STATUS.internal, "internal error");
}
