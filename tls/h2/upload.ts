/**
 * The body of an HTTP/2 request on its way to an HTTP/1.1 upstream: of the length that its client said, or in chunks.
 * It is read as the upstream takes it. The last bytes of a length wait for the client's end of the stream: until
 * then the body may turn out to be longer, which no upstream may take for a whole request (RFC 9113 §8.1.1).
 */
import { bodyTooLarge, type RequestBody, wrongLength } from "../request-body.ts";
import { inChunks, joined } from "../splice/pieces.ts";
import { addedLines } from "../splice/write-head.ts";
import { requestTrailers } from "../trailers.ts";
import type { Http2Request } from "./request.ts";

/** What comes in one turn of the event loop leaves in one write, up to here. */
const MAX_GATHERED_BYTES = 65_536;

/** Both return false where the upstream has to take what it has first: see {@link Upload.resume}. */
export interface UploadSink {
  /** The head, with what there is of the body. What it throws goes to `onFailure`. */
  readonly begin: (bytes: Buffer) => boolean;
  readonly write: (bytes: Buffer) => boolean;
  /** Nothing more is written, and what was is not the whole. */
  readonly onFailure: (error: unknown) => void;
}

export type SentBody = Exclude<RequestBody, { readonly kind: "none" }>;

export class Upload {
  readonly #request: Http2Request;
  readonly #body: SentBody;
  readonly #sink: UploadSink;
  /** Until it has left. */
  #head: string | undefined;
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** Of the body, so far. */
  #bytes = 0;
  #timer: NodeJS.Immediate | undefined;
  #isWhole = false;

  /** @param head text of it, in latin1 */
  constructor(request: Http2Request, body: SentBody, head: string, sink: UploadSink) {
    this.#request = request;
    this.#body = body;
    this.#head = head;
    this.#sink = sink;
  }

  /** @param isHeadAwaited the client sends the body once it knows that the head went well */
  start(isHeadAwaited: boolean): void {
    this.#request.on("data", this.#onData).once("end", this.#onEnd);
    if (isHeadAwaited) this.#flush(false);
    else this.#flushSoon();
  }

  /** The client has to send first. */
  get isMissing(): boolean {
    return !this.#request.complete;
  }

  /** The upstream has taken what it had. */
  resume(): void {
    this.#request.resume();
  }

  /** Nothing more is read or written. @returns whether all of it was */
  stop(): boolean {
    clearImmediate(this.#timer);
    this.#held = [];
    this.#request.off("data", this.#onData).off("end", this.#onEnd).pause();
    return this.#isWhole;
  }

  readonly #onData = (chunk: Buffer): void => {
    const { length, maxBytes } = this.#body;
    this.#bytes += chunk.length;
    if (this.#bytes > (length ?? maxBytes)) {
      this.#fail(length === undefined ? bodyTooLarge() : wrongLength());
      return;
    }
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes >= MAX_GATHERED_BYTES) this.#flush(false);
    else this.#flushSoon();
  };

  readonly #onEnd = (): void => {
    const { length } = this.#body;
    if (length !== undefined && length !== this.#bytes) this.#fail(wrongLength());
    else this.#flush(true);
  };

  /** A write for each frame would cost more than all else; a small body comes in the same read as its head. */
  #flushSoon(): void {
    this.#timer ??= setImmediate(() => this.#flush(false));
  }

  #flush(isEnd: boolean): void {
    clearImmediate(this.#timer);
    this.#timer = undefined;
    try {
      if (!this.#write(isEnd) && !isEnd) this.#request.pause();
    } catch (error) {
      this.#fail(error);
    }
  }

  #write(isEnd: boolean): boolean {
    const { length } = this.#body;
    const kept = !isEnd && this.#bytes === length ? this.#held.pop() : undefined;
    const framed = length === undefined ? inChunks(this.#held, false) : this.#held;
    if (isEnd && length === undefined) framed.push(this.#lastChunk());
    this.#held = kept === undefined ? [] : [kept];
    this.#heldBytes = kept?.length ?? 0;
    if (isEnd) this.#isWhole = true;
    const head = this.#head;
    this.#head = undefined;
    const [first] = framed;
    if (head !== undefined) return this.#sink.begin(joined(head, framed));
    if (first === undefined) return true;
    return this.#sink.write(framed.length === 1 ? first : joined("", framed));
  }

  #lastChunk(): Buffer {
    const trailers = requestTrailers(this.#request.rawTrailers);
    return Buffer.from(`0\r\n${addedLines(trailers)}\r\n`, "latin1");
  }

  #fail(error: unknown): void {
    this.stop();
    this.#sink.onFailure(error);
  }
}
