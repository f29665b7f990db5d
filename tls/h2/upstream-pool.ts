/**
 * Forwards HTTP/2 requests on the fast path's upstream connections rather than node:http's, which cost more than all
 * the rest of such a request. A connection is lent to one exchange at a time, whichever client's, and comes back
 * after a whole answer to a whole request.
 */
import type { ForwardExtra } from "../forwarder.ts";
import { type RawHeaders, responseHeadersToForward } from "../header-hygiene.ts";
import type { RequestBody } from "../request-body.ts";
import { createUnderWay, type SplicedForwarder, type UnderWay } from "../splice/splicer.ts";
import type { LinkOwner } from "../splice/upstream-link.ts";
import { UpstreamSlot } from "../splice/upstream-slot.ts";
import { safeLines } from "../splice/write-head.ts";
import { isRepeatable } from "../upstreams/attempts.ts";
import { upstreamTimeout } from "../upstreams/failure.ts";
import type { Http2Request } from "./request.ts";
import type { Http2Response } from "./response.ts";
import { Upload } from "./upload.ts";

/** Upstream connections that are kept between exchanges. */
const MAX_KEPT = 256;

export interface Http2Exchange {
  readonly request: Http2Request;
  readonly response: Http2Response;
  /** Of the request to the upstream. */
  readonly headers: RawHeaders;
  readonly body: RequestBody;
  readonly extra: ForwardExtra;
}

/** What becomes of one exchange. */
interface Exchange extends Http2Exchange {
  readonly onEnd: () => void;
  readonly onFailure: (error: unknown) => void;
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
  forward(exchange: Http2Exchange): Promise<void> {
    const { response } = exchange;
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
      const fail = (error: unknown): void => {
        giveBack(false);
        reject(error instanceof Error ? error : new Error("forwarding failed", { cause: error }));
      };
      try {
        pooled.begin({ ...exchange, onEnd: () => giveBack(true), onFailure: fail });
      } catch (error) {
        fail(error);
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
  #upload: Upload | undefined;

  constructor(forwarder: SplicedForwarder, kept: UnderWay) {
    this.slot = new UpstreamSlot(
      { forwarder, kept },
      {
        onPart: (...part) => this.#pass(...part),
        onFailure: (error) => this.#exchange?.onFailure(error),
        onSilence: () => this.#onSilence(),
        onDrain: () => this.#upload?.resume(),
      },
    );
  }

  /** @throws as the slot, where there is no body; else `onFailure` is told */
  begin(exchange: Exchange): void {
    const { body, extra, headers, request, response } = exchange;
    const { method, socket, url } = request;
    const text = `${method} ${url} HTTP/1.1\r\n${safeLines(headers)}Connection: keep-alive\r\n\r\n`;
    const begin = (bytes: Buffer): boolean =>
      this.slot.begin({
        method,
        bytes,
        isRepeatable: isRepeatable(method, body.kind !== "none"),
        client: { socket, address: extra.clientAddress },
      });
    this.#exchange = exchange;
    if (body.kind === "none") {
      begin(Buffer.from(text, "latin1"));
      return;
    }
    const isHeadAwaited = request.headers.expect !== undefined;
    this.#upload = new Upload(request, body, text, {
      begin: (bytes) => {
        const isTaken = begin(bytes);
        if (isHeadAwaited) response.writeContinue();
        return isTaken;
      },
      write: (bytes) => this.slot.write(bytes),
      onFailure: exchange.onFailure,
    });
    this.#upload.start(isHeadAwaited);
  }

  /** @param isWhole the answer is. @returns whether it can be lent again */
  end(isWhole: boolean): boolean {
    this.#exchange = undefined;
    const isSent = this.#upload?.stop() ?? true;
    this.#upload = undefined;
    if (isWhole && isSent) return this.slot.keep();
    this.slot.destroy();
    return false;
  }

  #onSilence(): void {
    const exchange = this.#exchange;
    // The upstream is not to blame where it waits for a body that the client does not send.
    if (this.#upload?.isMissing === true && !this.slot.isBlocked) exchange?.request.destroy();
    else {
      this.slot.timeOut();
      exchange?.onFailure(upstreamTimeout());
    }
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
