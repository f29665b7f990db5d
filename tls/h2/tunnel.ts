/**
 * The stream of an extended CONNECT (RFC 8441) in place of the socket that an HTTP/1.1 upgrade leaves: bytes both
 * ways once it was answered. Its abrupt end resets the stream.
 */
import { constants, type ServerHttp2Stream } from "node:http2";
import { Duplex } from "node:stream";
import { readOn, resetStream, StreamWriter } from "./stream-ends.ts";

export class Http2Tunnel extends Duplex {
  readonly #stream: ServerHttp2Stream;
  readonly #onContent: (bytes: number) => void;
  readonly #writer: StreamWriter;

  /** @param onContent hears of what the client sends as it is read */
  constructor(stream: ServerHttp2Stream, onContent: (bytes: number) => void) {
    super();
    this.#stream = stream;
    this.#writer = new StreamWriter(stream);
    this.#onContent = onContent;
    stream.once("end", () => {
      // A reset is an end, too, but none to pass on.
      if (stream.rstCode === constants.NGHTTP2_NO_ERROR) this.push(null);
    });
    stream.once("close", () => this.destroy());
  }

  /** @param headers name, value, name, value */
  respond(status: number, headers: readonly string[]): void {
    const stream = this.#stream;
    if (!stream.destroyed && !stream.closed)
      stream.respond([":status", String(status), ...headers]);
  }

  get headersSent(): boolean {
    return this.#stream.headersSent;
  }

  /** The client has to read first. */
  get isBlocked(): boolean {
    return this.#writer.isBlocked;
  }

  override _read(): void {
    readOn(this.#stream, this, this.#onContent);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#writer.write(chunk, done);
  }

  override _final(done: () => void): void {
    this.#writer.end(done);
  }

  override _destroy(_error: Error | null, done: () => void): void {
    if (!this.writableFinished || !this.readableEnded) resetStream(this.#stream);
    done();
  }
}
