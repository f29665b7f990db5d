/**
 * One client connection in the fast path: reads a head, has it decided, passes the request on and its answer
 * back, then reads the next. One request at a time; what a client pipelines waits, and is not read on.
 * It decides nothing: what is not plainly a request to forward leaves for node:http with every byte of it.
 */
import type { TLSSocket } from "node:tls";
import { StileError } from "../../wire/index.ts";
import { asUpstreamError, outcomeOf, upstreamTimeout } from "../upstreams/failure.ts";
import { whenDecided } from "./decision.ts";
import { beginExchange, type Exchange, mayRepeat } from "./exchange.ts";
import { HeldBytes } from "./held-bytes.ts";
import { inChunks, joined, writeOut } from "./pieces.ts";
import { parseRequestHead, type RequestHead } from "./request-head.ts";
import type { ResponseHead } from "./response-head.ts";
import type {
  FastConnection,
  FastDecision,
  FastPathHost,
  LocalAnswer,
  SpliceContext,
} from "./splicer.ts";
import type { LinkOwner } from "./upstream-link.ts";
import { UpstreamSlot } from "./upstream-slot.ts";
import {
  answerText,
  type ConnectionExtra,
  isReframed,
  writeRequestHead,
  writeResponseHead,
} from "./write-head.ts";

/** A refused request with a body up to this size keeps its connection; a larger one is not read. */
const MAX_DISCARDED_BYTES = 65_536;
/** A head that comes in more pieces is node:http's. */
const MAX_HEAD_PIECES = 16;
/** Node adds a second to what it promises, against the client's clock being slow. */
const KEEP_ALIVE_GRACE_MS = 1_000;

/**
 * `discard`: refused, but the client sends its body. `full`: answered, but the client has to read first. `closing`: the last answer is on its way. `left`: closed, or
 * somebody else's.
 */
type State = "head" | "deciding" | "exchange" | "discard" | "full" | "closing" | "left";

export class SplicedConnection implements FastConnection {
  readonly #context: SpliceContext;
  readonly #socket: TLSSocket;
  readonly #host: FastPathHost;
  readonly #onLeave: () => void;
  readonly #remoteAddress: string | undefined;
  readonly #upstream: UpstreamSlot;
  #state: State = "head";
  /** What belongs to no body that is under way. */
  readonly #pending = new HeldBytes();
  /** Bytes that the client has yet to send of the body of the request under way. */
  #bodyLeft = 0;
  /** Heads that have come are being read. */
  #isReading = false;
  #answers = 0;
  #exchange: Exchange | undefined;
  #isLast = false;
  /** Round in which the head began, or in which the wait for it did. */
  #begun: number;
  /** Round in which the client last took or sent anything. */
  #active: number;

  constructor(context: SpliceContext, socket: TLSSocket, host: FastPathHost, onLeave: () => void) {
    this.#context = context;
    this.#socket = socket;
    this.#host = host;
    this.#onLeave = onLeave;
    this.#remoteAddress = socket.remoteAddress;
    this.#begun = context.now();
    this.#active = this.#begun;
    this.#upstream = new UpstreamSlot(context, {
      onPart: (...part) => this.#pass(...part),
      onFailure: (error) => this.#onFailure(error),
      onSilence: () => this.#onSilence(),
      onDrain: () => this.#readOn(),
    });
    socket.on("data", this.#onData);
    socket.on("drain", this.#onDrain);
    socket.on("end", this.#onEnd);
    socket.on("error", this.#onError);
    socket.on("close", this.#onClose);
  }

  readonly isIdle = (): boolean => this.#state === "head";
  readonly isAnswering = (): boolean => this.#exchange?.isHeadOut ?? false;
  readonly endAfterAnswer = (): void => {
    this.#isLast = true;
  };

  readonly #onData = (chunk: Buffer): void => {
    if (this.#state === "closing" || this.#state === "left") return;
    this.#active = this.#context.now();
    const rest = this.#bodyLeft > 0 ? this.#takeBody(chunk) : chunk;
    if (rest.length === 0) return;
    if (this.#pending.add(rest)) this.#begun = this.#context.now();
    if (this.#state === "head") this.#readHeads();
    else this.#socket.pause();
  };

  readonly #onDrain = (): void => {
    this.#active = this.#context.now();
    this.#upstream.resume();
    if (this.#state === "full") this.#next();
  };

  /** The listener's connections are not half-open: nothing can be answered any more. */
  readonly #onEnd = (): void => {
    if (this.#state !== "head" || this.#pending.length > 0) this.#socket.destroy();
  };

  readonly #onError = (): void => {
    this.#socket.destroy();
  };

  readonly #onClose = (): void => this.#leave();

  /** @returns what follows the body */
  #takeBody(chunk: Buffer): Buffer {
    const taken = Math.min(chunk.length, this.#bodyLeft);
    this.#bodyLeft -= taken;
    if (this.#state === "discard") {
      if (this.#bodyLeft === 0) this.#next();
    } else if (!this.#upstream.write(chunk.subarray(0, taken))) this.#socket.pause();
    return chunk.subarray(taken);
  }

  /** One request after the other, until one is not there yet or takes its time. */
  #readHeads(): void {
    // Within an answer to one of them: the loop below goes on.
    if (this.#isReading) return;
    this.#isReading = true;
    while (this.#state === "head" && this.#pending.length > 0) {
      if (!this.#readHead()) break;
    }
    this.#isReading = false;
  }

  /** @returns false where more of the head has to come */
  #readHead(): boolean {
    const head = parseRequestHead(this.#pending.bytes, this.#host.limits);
    if (head.kind === "incomplete" && this.#pending.pieces <= MAX_HEAD_PIECES) {
      this.#socket.resume();
      return false;
    }
    const isOurs =
      head.kind === "head" && (head.contentLength ?? 0) <= this.#context.forwarder.maxBodyBytes;
    if (!isOurs) {
      this.#handOver();
      return false;
    }
    this.#state = "deciding";
    whenDecided(
      () => this.#context.decide(head, this.#socket),
      (decision) => this.#act(head, decision),
      () => this.#socket.destroy(),
    );
    return true;
  }

  #act(head: RequestHead, decision: FastDecision): void {
    if (this.#state !== "deciding") {
      if (decision.kind === "forward") decision.extra.onOutcome?.("gone");
      return;
    }
    if (decision.kind === "other") {
      this.#handOver();
      return;
    }
    this.#pending.take(head.length);
    if (!head.keepAlive) this.#isLast = true;
    this.#bodyLeft = head.contentLength ?? 0;
    if (decision.kind === "answer") {
      this.#takeFromPending();
      this.#answer(decision.answer, head.method);
      return;
    }
    this.#state = "exchange";
    const exchange = beginExchange(head, decision.extra);
    const bytes = this.#requestBytes(exchange);
    this.#exchange = exchange;
    if (this.#context.underWay.enter()) {
      this.#forward(exchange, bytes);
      return;
    }
    const busy = "the upstream has as many requests as it may";
    this.#refuse(exchange, new StileError("TLS_UPSTREAM_BUSY", busy));
  }

  /** The head with what has come of the body. */
  #requestBytes({ extra, head }: Exchange): Buffer {
    const text = writeRequestHead(head, {
      remove: extra.removeRequestHeaders,
      add: extra.requestHeaders,
      remoteAddress: extra.clientAddress ?? this.#remoteAddress,
      forwardedHeader: this.#context.forwarder.forwardedHeader,
    });
    const begun = this.#takeFromPending();
    return joined(text, begun.length === 0 ? [] : [begun]);
  }

  /** What has come of the body with the head. */
  #takeFromPending(): Buffer {
    const begun = this.#pending.take(this.#bodyLeft);
    this.#bodyLeft -= begun.length;
    return begun;
  }

  #forward({ extra, head }: Exchange, bytes: Buffer): void {
    let isTaken = false;
    try {
      isTaken = this.#upstream.begin({
        method: head.method,
        bytes,
        isRepeatable: mayRepeat(head),
        client: { socket: this.#socket, address: extra.clientAddress },
      });
    } catch (error) {
      this.#onFailure(error);
      return;
    }
    if (isTaken && this.#pending.length === 0) this.#socket.resume();
    else this.#socket.pause();
  }

  #readOn(): void {
    if (this.#state === "exchange" && this.#pending.length === 0) this.#socket.resume();
  }

  /** Part of the answer, from the upstream to the client. */
  #pass(...[head, content, isEnd, done]: Parameters<LinkOwner["onPart"]>): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    let text = "";
    if (head !== undefined) {
      exchange.extra.onOutcome?.(head.status);
      text = this.#answerHead(exchange, head);
      exchange.isHeadOut = true;
      exchange.isReframed = isReframed(head) && exchange.head.method !== "HEAD";
    }
    const isTaken = writeOut(
      this.#socket,
      text,
      exchange.isReframed ? inChunks(content, isEnd) : content,
      done,
    );
    if (isEnd) this.#finish();
    else if (!isTaken) this.#upstream.pause();
  }

  #answerHead(exchange: Exchange, head: ResponseHead): string {
    // The rest of a body that nobody reads would be taken for the next request.
    if (this.#bodyLeft > 0) this.#isLast = true;
    return writeResponseHead(head, exchange.added, this.#connectionExtra());
  }

  #connectionExtra(): ConnectionExtra {
    const seconds = Math.floor(this.#host.limits.keepAliveTimeoutMs / 1_000);
    return {
      keepAliveSeconds: this.#isLast ? undefined : seconds,
      date: () => new Date(this.#context.clock()).toUTCString(),
    };
  }

  /** The answer is whole. */
  #finish(): void {
    this.#exchange = undefined;
    this.#answers += 1;
    this.#context.underWay.leave();
    if (this.#bodyLeft > 0 || this.#isLast) this.#upstream.destroy();
    else this.#upstream.keep();
    this.#next();
  }

  /** On to what the client asks next, once it has read what it asked before. */
  #next(): void {
    if (this.#isLast) {
      this.#state = "closing";
      this.#pending.clear();
      this.#socket.resume();
      this.#socket.destroySoon();
      return;
    }
    if (this.#socket.writableNeedDrain) {
      this.#state = "full";
      this.#socket.pause();
      return;
    }
    this.#state = "head";
    this.#bodyLeft = 0;
    this.#begun = this.#context.now();
    if (this.#pending.length > 0) this.#readHeads();
    else this.#socket.resume();
  }

  #onFailure(error: unknown): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    this.#context.underWay.leave();
    this.#refuse(exchange, asUpstreamError(error));
  }

  #onSilence(): void {
    // The upstream is not to blame where it waits for a body that the client does not send.
    if (this.#bodyLeft > 0 && !this.#upstream.isBlocked) {
      this.#socket.destroy();
      return;
    }
    this.#upstream.timeOut();
    this.#onFailure(upstreamTimeout());
  }

  /** The exchange has failed and is counted no more. */
  #refuse(exchange: Exchange, error: StileError): void {
    this.#exchange = undefined;
    exchange.extra.onOutcome?.(outcomeOf(error));
    // Asked for in any case: it is also how the caller hears of it.
    const answer = this.#context.refusal(error, exchange.head, exchange.extra);
    if (exchange.isHeadOut) {
      // Part of the answer is out: only cutting the connection tells the client that it is not whole.
      this.#socket.destroy();
      return;
    }
    this.#answer(answer, exchange.head.method);
  }

  /** An answer of our own; what the client still sends of its body is passed over. */
  #answer(answer: LocalAnswer, method: string): void {
    if (answer.isLast || this.#bodyLeft > MAX_DISCARDED_BYTES) this.#isLast = true;
    this.#socket.write(answerText(answer, method, this.#connectionExtra()));
    this.#answers += 1;
    if (this.#bodyLeft === 0 || this.#isLast) this.#next();
    else {
      this.#state = "discard";
      this.#socket.resume();
    }
  }

  /** Everything that is not answered goes with it. */
  #handOver(): void {
    const socket = this.#socket;
    const pending = this.#pending.bytes;
    socket.pause();
    this.#leave();
    socket.off("data", this.#onData);
    socket.off("drain", this.#onDrain);
    socket.off("end", this.#onEnd);
    socket.off("close", this.#onClose);
    if (!socket.destroyed) {
      if (pending.length > 0) socket.unshift(pending);
      this.#host.toHttp(socket);
      socket.off("error", this.#onError);
      socket.resume();
    }
  }

  #leave(): void {
    if (this.#state === "left") return;
    this.#state = "left";
    if (this.#exchange !== undefined) {
      this.#exchange.extra.onOutcome?.("gone");
      this.#exchange = undefined;
      this.#context.underWay.leave();
    }
    this.#upstream.destroy();
    this.#pending.clear();
    this.#onLeave();
  }

  /** Called by the sweep, which is as precise as Node's own check of these times. */
  checkTime(): void {
    const { limits } = this.#host;
    const now = this.#context.now();
    const isOver = (since: number, ms: number): boolean =>
      (now - since) * limits.timeoutCheckMs > ms;
    if (this.#state === "head") {
      const isWaiting = this.#pending.length === 0 && this.#answers > 0;
      if (!isWaiting && isOver(this.#begun, limits.headersTimeoutMs)) this.#tooLate();
      else if (isWaiting && isOver(this.#begun, limits.keepAliveTimeoutMs + KEEP_ALIVE_GRACE_MS)) {
        this.#socket.destroy();
      }
      return;
    }
    const isBodyMissing = this.#bodyLeft > 0;
    if (isBodyMissing && isOver(this.#begun, limits.requestTimeoutMs)) this.#tooLate();
    const isClientsTurn = isBodyMissing || this.#socket.writableLength > 0;
    if (isClientsTurn && isOver(this.#active, limits.idleTimeoutMs)) this.#socket.destroy();
  }

  #tooLate(): void {
    // A second answer would be taken for that to a request which is still to come.
    const isAnswered = this.#state === "discard" || this.isAnswering();
    this.#leave();
    if (isAnswered) this.#socket.destroy();
    else this.#host.tooLate(this.#socket);
  }
}
