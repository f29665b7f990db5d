/** The ends of a stream of node:http2, for what stands in its place: with back-pressure, and an end before its time. */
import type { ServerHttp2Stream } from "node:http2";
import type { Readable } from "node:stream";

/** Lets `target` read on. @param onContent hears of what comes, as it is read */
export function readOn(
  stream: ServerHttp2Stream,
  target: Readable,
  onContent: (bytes: number) => void,
): void {
  if (stream.listenerCount("data") === 0) {
    stream.on("data", (chunk: Buffer) => {
      onContent(chunk.length);
      if (!target.push(chunk)) stream.pause();
    });
  }
  stream.resume();
}

export class StreamWriter {
  readonly #stream: ServerHttp2Stream;
  /** The client has to read first. */
  isBlocked = false;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  write(chunk: Buffer, done: () => void): void {
    const stream = this.#stream;
    if (stream.destroyed || stream.writableEnded || stream.write(chunk)) {
      done();
      return;
    }
    this.isBlocked = true;
    stream.once("drain", () => {
      this.isBlocked = false;
      done();
    });
  }

  /** `done` once everything is out. */
  end(done: () => void): void {
    const stream = this.#stream;
    this.isBlocked = true;
    const finish = (): void => {
      this.isBlocked = false;
      done();
    };
    if (stream.writableFinished) finish();
    else if (stream.writableEnded) stream.once("finish", finish);
    else stream.end(finish);
  }
}

/**
 * RST_STREAM with INTERNAL_ERROR, so that nobody takes what was sent for the whole: `close()` with a code ends the
 * writable side first, and END_STREAM goes out before the reset does.
 */
export function resetStream(stream: ServerHttp2Stream): void {
  if (!stream.destroyed) stream.destroy(new Error("reset"));
}
