/**
 * Which windows of an allowance store are kept, and the removal of the others.
 *
 * A charge counts in the window of its own instant. Kept are the present window and the one before the
 * last change. So a clock that jumps ahead and back again finds the old counts and gives no device a
 * second allowance; and a jump leaves nothing behind for ever, for whatever is outside the two kept
 * windows, past or future, is removed: a bounded number of entries with each write.
 */
import type { Level, LevelWrite } from "./level.ts";

/** Sorts before every entry and is shorter than one. Its value: `present[6] || previous[6]`. */
export const KEPT_WINDOWS_KEY: Uint8Array = Uint8Array.of(0);

/** The present window and the one before the last change; the same one twice at the very first. */
export type KeptWindows = readonly [present: number, previous: number];

const WINDOW_BYTES = 6;
const MAX_WINDOW = 2 ** (8 * WINDOW_BYTES) - 1;
/** Entries removed with one write: a small part of what the write itself costs. */
const SWEEP_LIMIT = 1_000;

export class AllowanceWindows {
  /** Where the sweep goes on; `undefined` once it has seen everything since the last change. */
  #cursor: Uint8Array | undefined = encodeWindow(0);

  /** The windows to keep after charges in `windows`, in their order. */
  advance(stored: Uint8Array | undefined, windows: readonly number[]): KeptWindows {
    let [present, previous] = decodeKeptWindows(stored);
    for (const window of windows) {
      if (window === present) continue;
      [present, previous] = [window, present];
      this.#cursor = encodeWindow(0);
    }
    return [present ?? 0, previous ?? present ?? 0];
  }

  /** The next deletions. It starts where the last one stopped: deleted keys are slow to step over. */
  async sweep(level: Level, kept: KeptWindows): Promise<readonly LevelWrite[]> {
    const found: Uint8Array[] = [];
    const [low, high] = [Math.min(...kept), Math.max(...kept)];
    const stale = [
      [0, low],
      [low + 1, high],
      [high + 1, MAX_WINDOW],
    ] as const;
    for (const [first, end] of stale) {
      if (this.#cursor === undefined || found.length >= SWEEP_LIMIT) break;
      const from = laterOf(encodeWindow(first), this.#cursor);
      const to = encodeWindow(end);
      if (Buffer.compare(from, to) >= 0) continue;
      found.push(...(await level.keys(from, to, SWEEP_LIMIT - found.length)));
    }
    this.#cursor = found.length >= SWEEP_LIMIT ? found.at(-1) : undefined;
    return found.map((key) => ({ key }));
  }
}

/** The first part of an entry's key: big-endian, so that keys sort by window. */
export function encodeWindow(window: number): Uint8Array {
  const bytes = Buffer.alloc(WINDOW_BYTES);
  bytes.writeUIntBE(window, 0, WINDOW_BYTES);
  return bytes;
}

/** The value of {@link KEPT_WINDOWS_KEY}. */
export function encodeKeptWindows([present, previous]: KeptWindows): Uint8Array {
  return Buffer.concat([encodeWindow(present), encodeWindow(previous)]);
}

function decodeKeptWindows(value: Uint8Array | undefined): [number?, number?] {
  if (value?.length !== 2 * WINDOW_BYTES) return [];
  const bytes = Buffer.from(value);
  return [bytes.readUIntBE(0, WINDOW_BYTES), bytes.readUIntBE(WINDOW_BYTES, WINDOW_BYTES)];
}

function laterOf(a: Uint8Array, b: Uint8Array): Uint8Array {
  return Buffer.compare(a, b) >= 0 ? a : b;
}
