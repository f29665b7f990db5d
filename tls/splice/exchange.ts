/** A request of the fast path and what has become of its answer, from the decision to forward it to its end. */
import type { ForwardExtra } from "../forwarder.ts";
import { isRepeatable } from "../upstreams/attempts.ts";
import type { RequestHead } from "./request-head.ts";
import { addedLines } from "./write-head.ts";

export interface Exchange {
  readonly head: RequestHead;
  readonly extra: ForwardExtra;
  /** Header lines that the caller adds to the answer. */
  readonly added: string;
  isHeadOut: boolean;
  isReframed: boolean;
}

export function beginExchange(head: RequestHead, extra: ForwardExtra): Exchange {
  const added = addedLines(extra.responseHeaders);
  return { head, extra, added, isHeadOut: false, isReframed: false };
}

/** Whether a request may be sent again that an upstream may have read: it has no effect and no body. */
export function mayRepeat({ contentLength = 0, method }: RequestHead): boolean {
  return isRepeatable(method, contentLength > 0);
}
