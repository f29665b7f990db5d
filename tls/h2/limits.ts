/**
 * What one HTTP/2 connection may cost (RFC 9113 §10.5). Beside what the listener limits for both versions: how
 * many streams are open at once, how many may come to nothing, and how many bytes may be neither the head nor
 * the content of a request.
 */

export interface Http2Limits {
  /** Streams that are open at once: SETTINGS_MAX_CONCURRENT_STREAMS. */
  readonly maxStreams: number;
  /** Streams in a row that end without a whole answer, by whoever's reset; then the connection ends. */
  readonly maxAbortedStreams: number;
  /** As many of them are forgotten each second, and one with each whole answer. */
  readonly abortedStreamsPerSecond: number;
  /** Bytes in a row of frames that carry no request: PING, SETTINGS, PRIORITY, padding, empty DATA and the like. */
  readonly maxOverheadBytes: number;
  /** As many of them are forgotten each second. */
  readonly overheadBytesPerSecond: number;
}

export const DEFAULT_HTTP2_LIMITS: Http2Limits = {
  // RFC 9113 §6.5.2 advises against fewer.
  maxStreams: 100,
  // A browser that leaves a page cancels what it had asked for: at most maxStreams at once.
  maxAbortedStreams: 200,
  abortedStreamsPerSecond: 20,
  // 3,800 PINGs.
  maxOverheadBytes: 65_536,
  overheadBytesPerSecond: 4_096,
};

/** What may be spent at once, and what of it comes back with time. */
export interface Budget {
  /** @returns false where more was spent than there was */
  readonly spend: (amount: number) => boolean;
  readonly refill: (amount: number) => void;
}

export function createBudget(max: number): Budget {
  let left = max;
  return {
    spend: (amount) => {
      left -= amount;
      return left >= 0;
    },
    refill: (amount) => {
      left = Math.min(max, left + amount);
    },
  };
}
