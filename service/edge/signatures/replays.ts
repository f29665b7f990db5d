/**
 * Which signatures were used already, for as long as they could be used again: two generations, of which the
 * older one is dropped. Bounded; where it is full nothing is accepted.
 */
export interface Replays {
  /** True for the first use. @param key of fixed length */
  readonly useOnce: (key: string, nowMs: number) => boolean;
}

/** Of one generation: some 10 MB. */
export const MAX_REMEMBERED = 131_072;

/** @param lifeMs how long after its first use a signature could still be accepted */
export function createReplays(lifeMs: number, max: number = MAX_REMEMBERED): Replays {
  let current = new Set<string>();
  let previous = new Set<string>();
  let generation = Number.NEGATIVE_INFINITY;

  /** A clock that goes back drops nothing. */
  function turn(nowMs: number): void {
    const now = Math.floor(nowMs / lifeMs);
    if (!(now > generation)) return;
    previous = now === generation + 1 ? current : new Set();
    current = new Set();
    generation = now;
  }

  return {
    useOnce: (key, nowMs) => {
      turn(nowMs);
      if (current.has(key) || previous.has(key) || current.size >= max) return false;
      current.add(key);
      return true;
    },
  };
}
