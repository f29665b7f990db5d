/**
 * The fast path for HTTP/1.1: a client connection's requests go to an upstream connection of its own, heads
 * written anew from their tokens, bodies passed through. It takes what its parser allows and its caller
 * admits; every other connection goes to node:http for good, before anything of the request in question
 * was done. Limits and times are those of the general path.
 */
import type { TLSSocket } from "node:tls";
import type { ForwarderOptions, ForwardExtra } from "../forwarder.ts";
import type { ListenerLimits } from "../listener.ts";
import { SplicedConnection } from "./connection.ts";
import type { ReadBuffers } from "./read-buffers.ts";
import type { RequestHead } from "./request-head.ts";

export type FastDecision =
  | { readonly kind: "forward"; readonly extra: ForwardExtra }
  | { readonly kind: "answer"; readonly answer: LocalAnswer }
  /** For the general path, which sees the request as if it came first there. */
  | { readonly kind: "other" };

/** An answer of our own, in full. */
export interface LocalAnswer {
  readonly status: number;
  readonly reason: string;
  /** Without framing and Connection. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
  /** Ends the connection. */
  readonly isLast: boolean;
}

export interface FastPathOptions {
  /** Must leave no trace where it answers `other`. What it throws counts as that. Made at once where nothing has to be waited for. */
  readonly decide: (head: RequestHead, socket: TLSSocket) => FastDecision | Promise<FastDecision>;
  /** What a client reads where forwarding failed before any of its answer was out. */
  readonly refusal: (error: unknown, head: RequestHead, extra: ForwardExtra) => LocalAnswer;
  /** Unix milliseconds. */
  readonly clock: () => number;
}

/** What a listener gives with a connection. */
export interface FastPathHost {
  readonly limits: ListenerLimits;
  /** Gives the connection to node:http, unread bytes and all. */
  readonly toHttp: (socket: TLSSocket) => void;
  /** The client took too long over a request: answered with 408, or cut. */
  readonly tooLate: (socket: TLSSocket) => void;
}

/** A connection in the fast path, as its listener sees it. */
export interface FastConnection {
  readonly isIdle: () => boolean;
  /** Part of an answer is out. */
  readonly isAnswering: () => boolean;
  /** Ends the connection with the answer under way. */
  readonly endAfterAnswer: () => void;
}

/** @returns undefined once the connection is node:http's */
export type FastPath = (
  socket: TLSSocket,
  host: FastPathHost,
  onLeave: () => void,
) => FastConnection;

/** Requests under way at the upstream, by whichever path. */
export interface UnderWay {
  /** @returns false where there are as many as there may be */
  readonly enter: () => boolean;
  readonly leave: () => void;
}

/** What upstream connections are made with. */
export interface SplicedForwarder extends ForwarderOptions {
  readonly readBuffers: ReadBuffers;
}

/** What the connections of one fast path share. */
export interface SpliceContext extends FastPathOptions {
  readonly forwarder: SplicedForwarder;
  readonly underWay: UnderWay;
  /** Upstream connections that wait for their client's next request. */
  readonly kept: UnderWay;
  /** Rounds of the sweep so far: a clock that is coarse, steady and costs nothing. */
  readonly now: () => number;
}

/** Of upstream connections, as many as the general path keeps. */
const MAX_KEPT = 256;

export function createFastPath(
  forwarder: SplicedForwarder,
  underWay: UnderWay,
  options: FastPathOptions,
): FastPath {
  const open = new Set<SplicedConnection>();
  let rounds = 0;
  let sweep: NodeJS.Timeout | undefined;
  const context: SpliceContext = {
    ...options,
    forwarder,
    underWay,
    kept: createUnderWay(MAX_KEPT),
    now: () => rounds,
  };

  /** One timer for all connections: setting one for each request would cost as much as parsing its head. */
  function startSweep(everyMs: number): void {
    sweep ??= setInterval(() => {
      rounds += 1;
      for (const connection of open) connection.checkTime();
    }, everyMs);
  }

  return (socket, host, onLeave) => {
    startSweep(host.limits.timeoutCheckMs);
    const connection = new SplicedConnection(context, socket, host, () => {
      open.delete(connection);
      if (open.size === 0) {
        clearInterval(sweep);
        sweep = undefined;
      }
      onLeave();
    });
    open.add(connection);
    return connection;
  };
}

export function createUnderWay(max: number): UnderWay {
  let count = 0;
  return {
    enter: () => {
      if (count >= max) return false;
      count += 1;
      return true;
    },
    leave: () => {
      count -= 1;
    },
  };
}
