/**
 * Forwards HTTP/2 requests without a body on the fast path's upstream connections rather than node:http's, which
 * cost more than all the rest of such a request. A connection is lent to one exchange at a time, whichever client's,
 * and comes back after a whole answer.
 */
import type { ForwardExtra } from "../forwarder.ts";
import { type RawHeaders, responseHeadersToForward } from "../header-hygiene.ts";
import { createUnderWay, type SplicedForwarder, type UnderWay } from "../splice/splicer.ts";
import type { LinkOwner } from "../splice/upstream-link.ts";
import { UpstreamSlot } from "../splice/upstream-slot.ts";
import { addedLines } from "../splice/write-head.ts";
import { isRepeatable } from "../upstreams/attempts.ts";
import { upstreamTimeout } from "../upstreams/failure.ts";
import type { Http2Request } from "./request.ts";
import type { Http2Response } from "./response.ts";

/** Upstream connections that are kept between exchanges. */
const MAX_KEPT = 256;

/** What becomes of one exchange. */
interface Exchange {
  readonly response: Http2Response;
  readonly extra: ForwardExtra;
  readonly onEnd: () => void;
  readonly onFailure: (error: Error) => void;
}

export interface Http2Exchange {
  readonly request: Http2Request;
  readonly response: Http2Response;
  /** Of the request to the upstream. */
  readonly headers: RawHeaders;
  readonly extra: ForwardExtra;
}

export class Http2UpstreamPool {
  readonly #options: SplicedForwarder;
  readonly #kept: UnderWay = createUnderWay(MAX_KEPT);
  readonly #free: PooledSlot[] = [];
  readonly #lent = new Set<PooledSlot>();

  constructor(options: SplicedForwarder) {
    this.#options = options;
  }

  /** False where a connection tells who its client is: that one serves no other. */
  get isUsable(): boolean {
    const { isSpliced, upstreams } = this.#options;
    return isSpliced && upstreams.all.every(({ settings }) => settings.proxyProtocol === "off");
  }

  /** Ends when the answer is out, or the client gone. @throws what failed at the upstream */
  forward({ extra, headers, request, response }: Http2Exchange): Promise<void> {
    return new Promise((resolve, reject) => {
      const pooled = this.#free.pop() ?? new PooledSlot(this.#options, this.#kept);
      this.#lent.add(pooled);
      let isUnderWay = true;
      const giveBack = (isWhole: boolean): void => {
        if (!isUnderWay) return;
        isUnderWay = false;
        this.#lent.delete(pooled);
        if (pooled.end(isWhole)) this.#free.push(pooled);
      };
      response.once("close", () => {
        giveBack(false);
        resolve();
      });
      response.on("drain", () => {
        if (isUnderWay) pooled.slot.resume();
      });
      const fail = (error: Error): void => {
        giveBack(false);
        reject(error);
      };
      try {
        const exchange = { response, extra, onEnd: () => giveBack(true), onFailure: fail };
        pooled.begin(request, headers, exchange);
      } catch (error) {
        giveBack(false);
        throw error;
      }
    });
  }

  close(): void {
    for (const pooled of [...this.#free.splice(0), ...this.#lent]) pooled.end(false);
  }
}

class PooledSlot {
  readonly slot: UpstreamSlot;
  #exchange: Exchange | undefined;

  constructor(forwarder: SplicedForwarder, kept: UnderWay) {
    this.slot = new UpstreamSlot(
      { forwarder, kept },
      {
        onPart: (...part) => this.#pass(...part),
        onFailure: (error) => this.#exchange?.onFailure(error),
        onSilence: () => {
          this.slot.timeOut();
          this.#exchange?.onFailure(upstreamTimeout());
        },
        onDrain: () => undefined,
      },
    );
  }

  begin(request: Http2Request, headers: RawHeaders, exchange: Exchange): void {
    const { method, socket, url } = request;
    const pairs = headers.flatMap((name, i): [string, string][] =>
      i % 2 === 0 ? [[name, headers[i + 1] ?? ""]] : [],
    );
    const text = `${method} ${url} HTTP/1.1\r\n${addedLines(pairs)}Connection: keep-alive\r\n\r\n`;
    this.#exchange = exchange;
    this.slot.begin({
      method,
      bytes: Buffer.from(text, "latin1"),
      isRepeatable: isRepeatable(method, false),
      client: { socket, address: exchange.extra.clientAddress },
    });
  }

  /** @returns whether it can be lent again */
  end(isWhole: boolean): boolean {
    this.#exchange = undefined;
    if (isWhole) return this.slot.keep();
    this.slot.destroy();
    return false;
  }

  #pass(...[head, content, isEnd, done]: Parameters<LinkOwner["onPart"]>): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    const { extra, response } = exchange;
    if (head !== undefined) {
      extra.onOutcome?.(head.status);
      const headers = responseHeadersToForward(head.rawHeaders);
      response.writeHead(head.status, [...headers, ...extra.responseHeaders.flat()]);
    }
    let isTaken = true;
    // Copies: a frame may wait for its window long after the next read.
    for (const chunk of content) isTaken = response.write(Buffer.from(chunk));
    done();
    if (isEnd) {
      exchange.onEnd();
      response.end();
    } else if (!isTaken) this.slot.pause();
  }
}
