/** Bytes of messages on their way out: framed, and put together so that a small message is one write. */
import type { Writable } from "node:stream";

/** Up to here a piece of an answer is copied behind its head, so that both are one TLS record. */
const MAX_JOINED_BYTES = 16_384;

/**
 * @param text latin1
 * @param done called once the stream uses `content` no more, at once or when it has written all of it
 * @returns false where the caller should wait for the stream to drain
 */
export function writeOut(
  stream: Writable,
  text: string,
  content: readonly Buffer[],
  done: () => void,
): boolean {
  let bytes = 0;
  for (const piece of content) bytes += piece.length;
  if (bytes <= MAX_JOINED_BYTES) {
    const whole = joined(text, content);
    done();
    return whole.length === 0 || stream.write(whole);
  }
  stream.cork();
  if (text !== "") stream.write(text, "latin1");
  let isTaken = true;
  for (const [i, piece] of content.entries()) {
    isTaken = i + 1 === content.length ? stream.write(piece, done) : stream.write(piece);
  }
  stream.uncork();
  return isTaken;
}

/** RFC 9112 §7.1: the pieces as one chunk, and the last one behind them. */
export function inChunks(content: readonly Buffer[], isEnd: boolean): Buffer[] {
  let bytes = 0;
  for (const piece of content) bytes += piece.length;
  const end = isEnd ? "0\r\n\r\n" : "";
  if (bytes === 0) return isEnd ? [Buffer.from(end, "latin1")] : [];
  const size = Buffer.from(`${bytes.toString(16)}\r\n`, "latin1");
  return [size, ...content, Buffer.from(`\r\n${end}`, "latin1")];
}

/** A copy. @param text latin1 */
export function joined(text: string, pieces: readonly Buffer[]): Buffer {
  let bytes = text.length;
  for (const piece of pieces) bytes += piece.length;
  const whole = Buffer.allocUnsafe(bytes);
  let at = whole.write(text, "latin1");
  for (const piece of pieces) at += piece.copy(whole, at);
  return whole;
}
