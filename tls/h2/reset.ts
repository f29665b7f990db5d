/**
 * Ends a stream before its time, so that nobody takes what was sent for the whole: `close()` of node:http2 with a
 * code ends the writable side first, and END_STREAM goes out before the reset does.
 */
import type { ServerHttp2Stream } from "node:http2";

/** With RST_STREAM, INTERNAL_ERROR. */
export function resetStream(stream: ServerHttp2Stream): void {
  if (!stream.destroyed) stream.destroy(new Error("reset"));
}
