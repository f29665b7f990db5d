/**
 * Events a second, as an exponentially weighted mean over about `meanMs`: two numbers and no history, whatever
 * comes. Between events it only falls, so when it will have fallen to a level is known beforehand.
 */
export interface EventRate {
  readonly add: (nowMs: number) => void;
  /** Events a second. @param nowMs not before the last event */
  readonly at: (nowMs: number) => number;
  /** When it will have fallen to `level` if nothing more comes; `nowMs` where it is there already. */
  readonly fallsTo: (level: number, nowMs: number) => number;
}

export function createEventRate(meanMs: number): EventRate {
  let rate = 0;
  let atMs = 0;
  const at = (nowMs: number): number => rate * Math.exp((atMs - nowMs) / meanMs);
  return {
    add: (nowMs) => {
      rate = at(nowMs) + 1_000 / meanMs;
      atMs = nowMs;
    },
    at,
    fallsTo: (level, nowMs) => {
      const now = at(nowMs);
      return now <= level ? nowMs : nowMs + meanMs * Math.log(now / level);
    },
  };
}
