/** One stream: a request with its answer, or a tunnel, and how long each end of it may take. */
import { constants, type ServerHttp2Stream } from "node:http2";
import type { ListenerLimits } from "../listener.ts";
import type { Http2Request } from "./request.ts";
import { resetStream } from "./stream-ends.ts";
import type { Http2Response } from "./response.ts";
import type { Http2Tunnel } from "./tunnel.ts";

export class Exchange {
  readonly #stream: ServerHttp2Stream;
  readonly #request: Http2Request;
  readonly #answer: Http2Response | Http2Tunnel;
  readonly #begun: number;
  /** Round in which the client last sent or took anything. */
  #active: number;

  constructor(
    stream: ServerHttp2Stream,
    request: Http2Request,
    answer: Http2Response | Http2Tunnel,
    now: number,
  ) {
    this.#stream = stream;
    this.#request = request;
    this.#answer = answer;
    this.#begun = now;
    this.#active = now;
  }

  /** Content came, in this round. */
  touch(now: number): void {
    this.#active = now;
  }

  /** @returns false where its time is over: the stream was ended */
  checkTime(now: number, limits: ListenerLimits): boolean {
    const isOver = (since: number, ms: number): boolean =>
      (now - since) * limits.timeoutCheckMs > ms;
    const isBodyMissing = !this.#request.complete;
    if (isBodyMissing && isOver(this.#begun, limits.requestTimeoutMs)) return this.#end();
    // While an answer waits for its upstream, or a tunnel for either side, the silence is not the client's.
    if (!isBodyMissing && !this.#answer.isBlocked) this.#active = now;
    return isOver(this.#active, limits.idleTimeoutMs) ? this.#end() : true;
  }

  /** 408 where that can still be said. */
  #end(): false {
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return false;
    if (stream.headersSent) resetStream(stream);
    else {
      stream.respond([":status", "408"], { endStream: true });
      stream.close(constants.NGHTTP2_NO_ERROR);
      this.#request.discard();
    }
    return false;
  }
}
