/**
 * An HTTP/2 request in the form of node:http's, for handlers that know no version. Node's own such form (compat)
 * shows pseudo-headers as headers, no Host, and takes a request for incomplete until somebody has read it.
 */
import type { IncomingHttpHeaders } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import { Readable } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { TranslatedHead } from "./request-head.ts";
import { readOn, resetStream } from "./stream-ends.ts";

export class Http2Request extends Readable {
  readonly httpVersion = "2.0";
  readonly httpVersionMajor = 2;
  readonly httpVersionMinor = 0;
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: string[];
  readonly rawTrailers: string[] = [];
  /** Of the connection, which other requests share. */
  readonly socket: TLSSocket;
  readonly #stream: ServerHttp2Stream;
  readonly #isTunnel: boolean;
  readonly #onContent: (bytes: number) => void;
  #hasEnded: boolean;
  /** The client's end of the stream was seen. */
  #isWhole = false;
  #isDiscarded = false;

  /** @param onContent hears of content as it is read */
  constructor(
    stream: ServerHttp2Stream,
    socket: TLSSocket,
    head: TranslatedHead,
    onContent: (bytes: number) => void,
  ) {
    super();
    this.method = head.method;
    this.url = head.url;
    this.headers = head.headers;
    this.rawHeaders = head.rawHeaders;
    this.socket = socket;
    this.#stream = stream;
    this.#isTunnel = head.isTunnel;
    this.#onContent = onContent;
    this.#hasEnded = stream.endAfterHeaders;
    if (this.#hasEnded || head.isTunnel) {
      this.push(null);
      return;
    }
    stream.on("trailers", (_headers, _flags, raw: string[]) => this.rawTrailers.push(...raw));
    stream.once("end", () => {
      // A stream that was closed early ends as well, and is not `aborted` where its answer was out: what came of the
      // body must not be taken for the whole.
      if (stream.aborted || this.#isDiscarded || (stream.closed && !this.#isWhole)) return;
      this.#hasEnded = true;
      this.push(null);
    });
    stream.once("close", () => this.#onStreamClose());
  }

  /** Everything of it has come, read or not. What a tunnel carries is no part of the request. */
  get complete(): boolean {
    if (this.#isTunnel || this.#hasEnded || this.#isWhole) return true;
    // NGHTTP2_STREAM_STATE_HALF_CLOSED_REMOTE. Of a stream that is closed nothing is known any more.
    this.#isWhole = !this.#stream.destroyed && this.#stream.state.remoteClose === 1;
    return this.#isWhole;
  }

  /** Every value of each field. */
  get headersDistinct(): NodeJS.Dict<string[]> {
    const distinct = Object.create(null) as Record<string, string[]>;
    for (let i = 0; i + 1 < this.rawHeaders.length; i += 2) {
      (distinct[this.rawHeaders[i] ?? ""] ??= []).push(this.rawHeaders[i + 1] ?? "");
    }
    return distinct;
  }

  /**
   * The answer is out, and nobody is to read on. What lies here unread would keep node:http2 from ever closing the
   * stream.
   */
  discard(): void {
    if (this.#hasEnded || this.#isTunnel) return;
    this.#isDiscarded = true;
    this.#stream.removeAllListeners("data").resume();
  }

  #onStreamClose(): void {
    if (this.#hasEnded || this.destroyed) return;
    this.emit("aborted");
    // As node:http: an error only for those who listen.
    const error = Object.assign(new Error("aborted"), { code: "ECONNRESET" });
    this.destroy(this.listenerCount("error") > 0 ? error : undefined);
  }

  override _read(): void {
    if (!this.#isDiscarded) readOn(this.#stream, this, this.#onContent);
  }

  /** Of what is not complete, the stream ends with it. */
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.complete) resetStream(this.#stream);
    done(error);
  }
}
