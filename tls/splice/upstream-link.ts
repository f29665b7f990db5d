/**
 * An upstream connection of a client connection: one exchange after the other, never two at once.
 * It reads answers and tells what is in each piece of them; what becomes of that is its owner's business.
 * Bytes that nobody asked for end it: they would be taken for the next answer.
 */
import type { Socket } from "node:net";
import { StileError } from "../../wire/index.ts";
import { cutError, isCut } from "../upstreams/closure.ts";
import { isFinalStatus, type UpstreamFailure } from "../upstreams/failure.ts";
import type { ClientEnds } from "../upstreams/proxy-out.ts";
import type { Upstream } from "../upstreams/upstream.ts";
import { type ChunkedBody, createChunkedBody } from "./chunked-body.ts";
import { type ReadBuffers, ReadPiece } from "./read-buffers.ts";
import { type BodyFraming, parseResponseHead, type ResponseHead } from "./response-head.ts";

export interface LinkOptions {
  /** From the request to the first byte of its answer. */
  readonly firstByteTimeoutMs: number;
  /** Silence within an answer. */
  readonly idleTimeoutMs: number;
  /** How long it is kept without an exchange. */
  readonly keepMs: number;
  readonly readBuffers: ReadBuffers;
}

export interface LinkOwner {
  /**
   * What one read of the connection holds of the answer.
   * @param head with the first part; no interim answer comes here
   * @param content views that are valid until `done` is called
   * @param isEnd the answer is whole
   * @param done to be called once nothing uses the views any more; their memory is read into again
   */
  readonly onPart: (
    head: ResponseHead | undefined,
    content: Buffer[],
    isEnd: boolean,
    done: () => void,
  ) => void;
  /** Of the exchange under way; the connection is closed. */
  readonly onFailure: (error: Error, failure: UpstreamFailure) => void;
  /** It ended between two exchanges. */
  readonly onGone: () => void;
  /** What was written before is on its way. */
  readonly onConnect: () => void;
  /** The upstream is silent; the connection is open. */
  readonly onSilence: () => void;
  /** What was written is out. */
  readonly onDrain: () => void;
}

/** 100, 102 and 103 before one answer. */
const MAX_INTERIM = 16;
const NOTHING: Buffer = Buffer.alloc(0);

export class UpstreamLink {
  readonly upstream: Upstream;
  readonly #tlsVersion: number;
  readonly #owner: LinkOwner;
  readonly #options: LinkOptions;
  readonly #stopDialling: () => void;
  /** Undefined until it is connected. */
  #socket: Socket | undefined;
  /** What was written by then. */
  readonly #waiting: Buffer[] = [];
  #method = "";
  #isBusy = false;
  #framing: BodyFraming | undefined;
  #chunked: ChunkedBody | undefined;
  #left = 0;
  /** What came of a head that is not whole. */
  #held: Buffer = NOTHING;
  /** Lent to Node for its next read. */
  #readInto: Buffer | undefined;
  /** The read that is looked at, until somebody is given views of it. */
  #piece: ReadPiece | undefined;
  #interim = 0;
  #keepAlive = true;
  #exchanges = 0;
  /** Part of an answer has come. */
  #hasAnswered = false;

  constructor(
    upstream: Upstream,
    client: ClientEnds | undefined,
    options: LinkOptions,
    owner: LinkOwner,
  ) {
    this.upstream = upstream;
    this.#tlsVersion = upstream.tlsVersion;
    this.#options = options;
    this.#owner = owner;
    this.#stopDialling = upstream.dial(
      client,
      false,
      (error, socket) => {
        if (socket === undefined) this.#fail(error ?? closedError(), "connect");
        else this.#begin(socket);
      },
      {
        buffer: () => (this.#readInto = options.readBuffers.take()),
        callback: (bytes) => this.#onRead(bytes),
      },
    );
  }

  /** Node fills one buffer, tells how far, and asks for the next. */
  #onRead(bytes: number): boolean {
    const buffer = this.#readInto;
    this.#readInto = undefined;
    if (buffer === undefined) return false;
    const { giveBack } = this.#options.readBuffers;
    this.#take(new ReadPiece(buffer.subarray(0, bytes), () => giveBack(buffer)));
    return true;
  }

  #take(piece: ReadPiece): void {
    this.#piece = piece;
    this.#read(piece.bytes);
    // Nobody was given any of it.
    this.#piece?.done();
    this.#piece = undefined;
  }

  #pass(head: ResponseHead | undefined, content: Buffer[], isEnd: boolean): void {
    const piece = this.#piece;
    this.#piece = undefined;
    this.#owner.onPart(head, content, isEnd, piece?.done ?? nothing);
  }

  #begin(socket: Socket): void {
    this.#socket = socket;
    // With TLS; without it, `onRead` takes what comes.
    socket.on("data", (chunk: Buffer) => this.#take(new ReadPiece(chunk)));
    socket.on("drain", () => this.#owner.onDrain());
    socket.on("timeout", () => this.#onTimeout());
    socket.on("error", (error) => this.#failSent(error));
    socket.on("end", () => this.#onEnd());
    socket.on("close", () => {
      const unused = this.#readInto;
      this.#readInto = undefined;
      if (unused !== undefined) this.#options.readBuffers.giveBack(unused);
      this.#failSent(closedError());
    });
    socket.setTimeout(this.#options.firstByteTimeoutMs);
    for (const bytes of this.#waiting.splice(0)) socket.write(bytes);
    this.#owner.onConnect();
  }

  /** It waits for the next exchange, and nothing speaks against one. */
  get isFree(): boolean {
    const isCurrent = this.#tlsVersion === this.upstream.tlsVersion;
    if (!isCurrent || this.#isBusy || !this.#keepAlive) return false;
    // Of an upstream that answered before it had taken the whole body, nobody knows whether it ever will.
    return this.#socket?.writable === true && this.#socket.writableLength === 0;
  }

  get isConnected(): boolean {
    return this.#socket !== undefined;
  }

  /** An earlier exchange went well: the upstream may have closed it since. */
  get isReused(): boolean {
    return this.#exchanges > 1;
  }

  /** Bytes wait to be taken by the upstream. */
  get isBlocked(): boolean {
    return this.#socket?.writableNeedDrain ?? true;
  }

  /** @returns false where the caller should wait for `onConnect` or `onDrain` */
  begin(method: string, bytes: Buffer): boolean {
    this.#method = method;
    this.#isBusy = true;
    this.#hasAnswered = false;
    this.#interim = 0;
    this.#exchanges += 1;
    this.#socket?.setTimeout(this.#options.firstByteTimeoutMs);
    return this.write(bytes);
  }

  write(bytes: Buffer): boolean {
    if (this.#socket !== undefined) return this.#socket.write(bytes);
    this.#waiting.push(bytes);
    return false;
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  /** Ends it without a word to its owner. */
  destroy(): void {
    this.#isBusy = false;
    this.#keepAlive = false;
    if (this.#socket === undefined) this.#stopDialling();
    else this.#socket.destroy();
  }

  #fail(error: Error, failure: UpstreamFailure): void {
    const wasBusy = this.#isBusy;
    const wasKept = this.#keepAlive;
    this.destroy();
    if (wasBusy) this.#owner.onFailure(error, failure);
    else if (wasKept) this.#owner.onGone();
  }

  #failSent(error: Error): void {
    this.#fail(error, this.#hasAnswered ? "malformed" : "broken");
  }

  #onTimeout(): void {
    const socket = this.#socket;
    if (!this.#isBusy) this.#failSent(closedError());
    // It is not read since the client does not read, whose own time is limited.
    else if (socket?.isPaused() === true) socket.setTimeout(this.#options.idleTimeoutMs);
    else this.#owner.onSilence();
  }

  #onEnd(): void {
    const isEnd = this.#isBusy && this.#framing?.kind === "until-close";
    if (isEnd && this.#socket !== undefined && isCut(this.#socket)) this.#failSent(cutError());
    else if (isEnd) this.#finish(undefined, []);
    else this.#failSent(closedError());
  }

  #read(chunk: Buffer): void {
    if (!this.#isBusy) {
      this.#failSent(malformed());
      return;
    }
    this.#hasAnswered = true;
    if (this.#framing !== undefined) {
      this.#readBody(undefined, this.#framing, chunk);
      return;
    }
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    for (;;) {
      const head = parseResponseHead(bytes, this.#method);
      if (head.kind === "incomplete") {
        // What was read may be overwritten.
        this.#held = bytes === chunk ? Buffer.from(bytes) : bytes;
        return;
      }
      if (head.kind === "malformed") {
        this.#fail(malformed(), "malformed");
        return;
      }
      bytes = bytes.subarray(head.length);
      if (head.status >= 200) {
        this.#takeHead(head, bytes);
        return;
      }
      this.#interim += 1;
      // Behind a 101 nothing is HTTP.
      if (head.status === 101 || this.#interim > MAX_INTERIM) {
        this.#fail(malformed(), "malformed");
        return;
      }
    }
  }

  #takeHead(head: ResponseHead, rest: Buffer): void {
    if (!isFinalStatus(head.status)) {
      this.#fail(malformed(), "malformed");
      return;
    }
    const { firstByteTimeoutMs, idleTimeoutMs } = this.#options;
    if (firstByteTimeoutMs !== idleTimeoutMs) this.#socket?.setTimeout(idleTimeoutMs);
    this.#held = NOTHING;
    this.#framing = head.framing;
    this.#keepAlive = head.keepAlive;
    if (head.framing.kind === "sized") this.#left = head.framing.bytes;
    if (head.framing.kind === "chunked") this.#chunked = createChunkedBody();
    this.#readBody(head, head.framing, rest);
  }

  #readBody(head: ResponseHead | undefined, framing: BodyFraming, bytes: Buffer): void {
    const content: Buffer[] = [];
    let end: number | "more" | "malformed" | undefined;
    if (framing.kind === "chunked") end = this.#chunked?.read(bytes, content);
    else if (framing.kind === "until-close") {
      end = "more";
      if (bytes.length > 0) content.push(bytes);
    } else {
      const taken = framing.kind === "none" ? 0 : Math.min(this.#left, bytes.length);
      if (taken > 0) content.push(taken === bytes.length ? bytes : bytes.subarray(0, taken));
      this.#left -= taken;
      end = framing.kind === "none" || this.#left === 0 ? taken : "more";
    }
    if (end === "more") {
      this.#pass(head, content, false);
      return;
    }
    if (typeof end !== "number") {
      this.#fail(malformed(), "malformed");
      return;
    }
    // Unasked: the answer is whole, but nothing more is believed of this connection.
    if (end < bytes.length) this.#keepAlive = false;
    this.#finish(head, content);
  }

  #finish(head: ResponseHead | undefined, content: Buffer[]): void {
    this.#isBusy = false;
    this.#framing = undefined;
    this.#chunked = undefined;
    if (this.#keepAlive) this.#socket?.setTimeout(this.#options.keepMs);
    else this.#socket?.destroy();
    this.#pass(head, content, true);
  }
}

function nothing(): void {}

function malformed(): StileError {
  return new StileError("TLS_UPSTREAM_UNREACHABLE", "the upstream's answer is malformed");
}

function closedError(): Error {
  return new Error("the upstream closed the connection");
}
