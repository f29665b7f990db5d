/**
 * HTTP/2 connections of the listener (RFC 9113): sessions of node:http2 on the listener's own TLS connections,
 * whose requests go to the same handlers as those of HTTP/1.1. node:http2 has no time limits of a server's and
 * no count of what comes to nothing: both are kept here, in rounds of one timer for all connections.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  constants,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from "node:http2";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { isStileError } from "../../wire/index.ts";
import type { RawHeaders } from "../header-hygiene.ts";
import type { ListenerLimits } from "../listener.ts";
import type { FastConnection } from "../splice/splicer.ts";
import { Exchange } from "./exchange.ts";
import { type Budget, createBudget } from "./limits.ts";
import { type TranslatedHead, translateHead } from "./request-head.ts";
import { Http2Request } from "./request.ts";
import { Http2Response } from "./response.ts";
import { Http2Tunnel } from "./tunnel.ts";

/** What is counted of HTTP/2. A closed set, so that it can label a metric. */
export type Http2Event =
  | "h2-connection"
  /** A head was refused before any handler saw it. */
  | "h2-head-rejected"
  /** A stream or a connection was ended because of a time limit. */
  | "h2-timeout"
  /** A connection was ended since too much on it came to nothing. */
  | "h2-calmed"
  /** The client broke the protocol, or its connection broke. */
  | "h2-error";

export interface Http2Options {
  readonly limits: ListenerLimits;
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
  readonly observe: (event: Http2Event) => void;
  readonly random: (length: number) => Uint8Array;
}

/** Takes a connection on which HTTP/2 was agreed (ALPN `h2`) and nothing was read. */
export type ServeHttp2 = (socket: TLSSocket) => FastConnection;

interface Shared extends Http2Options {
  readonly session: ServerOptions;
  /** Rounds of the timer so far. */
  readonly now: () => number;
}

const NOTHING: Buffer = Buffer.alloc(0);
/** What a client may send without our reading it: of one stream the protocol's default, of all this much. */
const STREAM_WINDOW = 65_535;
const CONNECTION_WINDOW = 262_144;
/** RFC 9113 §6.8: the largest there is, while it is not known which streams are on their way. */
const LAST_STREAM_OF_ALL = 2 ** 31 - 1;
/** As node:http, against the client's clock being slow. */
const KEEP_ALIVE_GRACE_MS = 1_000;
/** A connection that was told to end gets this long to take it. */
const FAREWELL_MS = 1_000;
/** Frame header, padding length and a little; and a priority beside a head (RFC 9218). */
const FRAME_BYTES = 16;
const HEAD_BYTES = 128;
/** Clients give credit for what they read, in frames of 13 bytes: at most for every frame of ours. */
const WRITTEN_FOR_ONE_READ = 4;
const WEBSOCKET_KEY_BYTES = 16;

export function createHttp2(options: Http2Options): ServeHttp2 {
  const open = new Set<Http2Connection>();
  let rounds = 0;
  let timer: NodeJS.Timeout | undefined;
  const { limits } = options;
  const shared: Shared = { ...options, session: sessionOptions(limits), now: () => rounds };

  return (socket) => {
    timer ??= setInterval(() => {
      rounds += 1;
      for (const connection of open) connection.checkTime();
    }, limits.timeoutCheckMs);
    const connection = new Http2Connection(shared, socket, () => {
      open.delete(connection);
      if (open.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    });
    open.add(connection);
    return connection;
  };
}

function sessionOptions(limits: ListenerLimits): ServerOptions {
  return {
    // Pseudo-headers are four more, or five.
    maxHeaderListPairs: limits.maxHeaders + 5,
    maxSessionInvalidFrames: 100,
    maxSettings: 32,
    // What an upstream says twice is not ours to refuse.
    strictSingleValueFields: false,
    settings: {
      maxConcurrentStreams: limits.maxStreams,
      maxHeaderListSize: limits.maxHeaderBytes,
      initialWindowSize: STREAM_WINDOW,
      enablePush: false,
      enableConnectProtocol: true,
    },
  };
}

class Http2Connection implements FastConnection {
  readonly #shared: Shared;
  readonly #socket: TLSSocket;
  readonly #session: ServerHttp2Session;
  readonly #exchanges = new Set<Exchange>();
  readonly #aborted: Budget;
  /** Bytes read that carried requests, and those that are forgotten. */
  #accounted = 0;
  #hasBegun = false;
  /** Round in which the connection began, in which its last stream ended, or in which it was told to end. */
  #idleSince: number;
  /** Round from which on the session is over and its connection may still be there. */
  #goneSince: number | undefined;
  #isEnding = false;
  #isCalmed = false;

  constructor(shared: Shared, socket: TLSSocket, onClose: () => void) {
    this.#shared = shared;
    this.#socket = socket;
    this.#idleSince = shared.now();
    this.#aborted = createBudget(shared.limits.maxAbortedStreams);
    const session = performServerHandshake(socket, shared.session);
    this.#session = session;
    session.on("error", () => shared.observe(this.#isCalmed ? "h2-calmed" : "h2-error"));
    session.on("stream", (stream, _headers, _flags, raw: unknown) =>
      this.#onStream(stream, raw as RawHeaders),
    );
    session.once("close", onClose);
    session.setLocalWindowSize(CONNECTION_WINDOW);
    shared.observe("h2-connection");
  }

  /** It is never cut at once: GOAWAY says which requests can be sent anew. */
  readonly isIdle = (): boolean => false;
  readonly isAnswering = (): boolean => true;

  /** RFC 9113 §6.8: first the announcement, then, a round trip later, which stream was the last. */
  readonly endAfterAnswer = (): void => {
    if (this.#isEnding || this.#session.destroyed) return;
    this.#isEnding = true;
    this.#idleSince = this.#shared.now();
    this.#session.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM_OF_ALL);
    this.#session.ping(() => this.#close());
  };

  #close(): void {
    this.#isEnding = true;
    this.#idleSince = this.#shared.now();
    // With the last stream the connection ends.
    this.#session.close();
  }

  #onStream(stream: ServerHttp2Stream, raw: RawHeaders): void {
    this.#hasBegun = true;
    // A reset is told by 'close'; whatever it is called, there is nothing more to do about it.
    stream.on("error", () => undefined);
    const bytes = raw.reduce((sum, part) => sum + part.length, 0);
    this.#accounted += bytes + HEAD_BYTES;
    if (stream.destroyed || stream.closed) {
      this.#countAborted();
      return;
    }
    // SETTINGS_MAX_HEADER_LIST_SIZE holds only once the client has acknowledged it, if it ever does.
    if (bytes > this.#shared.limits.maxHeaderBytes) {
      this.#reject(stream, 431);
      return;
    }
    const head = this.#translate(stream, raw);
    if (head !== undefined) this.#begin(stream, head);
  }

  /** RFC 9113 §8.1.1 lets a malformed request be answered. A reset at once would overtake the answer. */
  #reject(stream: ServerHttp2Stream, status: number): void {
    this.#shared.observe("h2-head-rejected");
    stream.respond([":status", String(status)], { endStream: true });
    this.#countAborted();
  }

  #translate(stream: ServerHttp2Stream, raw: RawHeaders): TranslatedHead | undefined {
    try {
      return translateHead(raw, !stream.endAfterHeaders, () =>
        Buffer.from(this.#shared.random(WEBSOCKET_KEY_BYTES)).toString("base64"),
      );
    } catch (error) {
      if (!isStileError(error)) throw error;
      this.#reject(stream, 400);
      return undefined;
    }
  }

  #begin(stream: ServerHttp2Stream, head: TranslatedHead): void {
    const { handler, now, upgrade } = this.#shared;
    const onContent = (bytes: number): void => {
      this.#accounted += bytes + FRAME_BYTES;
      exchange.touch(now());
    };
    const request = new Http2Request(stream, this.#socket, head, onContent);
    const answer = head.isTunnel
      ? new Http2Tunnel(stream, onContent)
      : new Http2Response(stream, request);
    const exchange = new Exchange(stream, request, answer, now());
    this.#exchanges.add(exchange);
    stream.once("close", () => {
      this.#exchanges.delete(exchange);
      this.#idleSince = now();
      // What came of a body that nobody read.
      if (!stream.endAfterHeaders && !request.readableEnded) this.#accounted += STREAM_WINDOW;
      if (!stream.headersSent || !answer.writableFinished) this.#countAborted();
      // A proxy's connection carries the resets of many clients, beside the answers that they took.
      else this.#aborted.refill(1);
    });
    // The handlers know these by their interface alone.
    const incoming = request as unknown as IncomingMessage;
    if (answer instanceof Http2Tunnel) upgrade(incoming, answer, NOTHING);
    else handler(incoming, answer as unknown as ServerResponse);
  }

  /** Resets are cheap to send and dear to serve (CVE-2023-44487, CVE-2025-8671). */
  #countAborted(): void {
    if (!this.#aborted.spend(1)) this.#calm();
  }

  #calm(): void {
    if (this.#session.destroyed) return;
    this.#isCalmed = true;
    // With a number, Node's types and Node itself disagree about which parameter it is.
    this.#session.destroy(new Error("calmed"), constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }

  /** One round. */
  checkTime(): void {
    const { limits, now, observe } = this.#shared;
    if (this.#session.destroyed) {
      this.#checkFarewell();
      return;
    }
    this.#aborted.refill((limits.abortedStreamsPerSecond * limits.timeoutCheckMs) / 1_000);
    this.#checkOverhead();
    for (const exchange of this.#exchanges) {
      if (!exchange.checkTime(now(), limits)) observe("h2-timeout");
    }
    if (this.#exchanges.size === 0) this.#checkIdle();
  }

  /** Node waits for the client to read what is left and to end its side: that may be never. */
  #checkFarewell(): void {
    const { limits, now } = this.#shared;
    this.#goneSince ??= now();
    if ((now() - this.#goneSince) * limits.timeoutCheckMs > FAREWELL_MS) this.#socket.destroy();
  }

  #checkIdle(): void {
    const { limits, now, observe } = this.#shared;
    const isOver = (ms: number): boolean => (now() - this.#idleSince) * limits.timeoutCheckMs > ms;
    if (this.#isEnding) {
      if (isOver(FAREWELL_MS)) this.#socket.destroy();
      return;
    }
    const limit = this.#hasBegun
      ? limits.keepAliveTimeoutMs + KEEP_ALIVE_GRACE_MS
      : limits.headersTimeoutMs;
    if (!isOver(limit)) return;
    // That a kept connection ends is no event.
    if (!this.#hasBegun) observe("h2-timeout");
    this.#close();
  }

  /** Frames that carry no request are work for nothing, and node:http2 does not show them: their bytes do. */
  #checkOverhead(): void {
    const { limits } = this.#shared;
    const { bytesRead, bytesWritten } = this.#socket;
    const overhead = bytesRead - bytesWritten / WRITTEN_FOR_ONE_READ - this.#accounted;
    if (overhead > limits.maxOverheadBytes + CONNECTION_WINDOW) {
      this.#calm();
      return;
    }
    const forgotten = (limits.overheadBytesPerSecond * limits.timeoutCheckMs) / 1_000;
    this.#accounted += Math.min(overhead, forgotten);
  }
}
