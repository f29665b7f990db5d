/**
 * A place that a child of one kind fills: when the child ends by itself it is replaced at once, and later and later
 * where its successors end, too.
 */
import type { Child } from "./child.ts";
import type { ExitReason } from "./messages.ts";

export interface SlotOptions {
  /** A child that is on its way; the slot waits until it is ready. */
  readonly start: () => Child;
  /** Makes it ready. @throws where it cannot be */
  readonly open: (child: Child) => Promise<void>;
  readonly monotonicMs: () => number;
  readonly onExit: (reason: ExitReason) => void;
  /** After each change of what `child.isReady` says. */
  readonly onChange: () => void;
}

/** A child that lived this long is no part of a loop of crashes. */
const STEADY_MS = 10_000;
const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 5_000;

export class Slot {
  readonly #options: SlotOptions;
  #child: Child;
  #failures = 0;
  #isClosed = false;
  #retry: NodeJS.Timeout | undefined;

  /** @param child is ready */
  constructor(options: SlotOptions, child: Child) {
    this.#options = options;
    this.#child = child;
    void this.#watch(child);
  }

  get child(): Child {
    return this.#child;
  }

  /** Children in a row that did not come up or did not last. */
  get failures(): number {
    return this.#failures;
  }

  /** Puts another in its place, and gives back the one that was there. @param child is ready */
  replace(child: Child): Child {
    clearTimeout(this.#retry);
    const before = this.#child;
    this.#child = child;
    this.#failures = 0;
    void this.#watch(child);
    this.#options.onChange();
    return before;
  }

  /** Nothing is replaced any more. */
  close(): Child {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    return this.#child;
  }

  async #watch(child: Child): Promise<void> {
    const { monotonicMs, onChange, onExit } = this.#options;
    const reason = await child.gone;
    if (reason !== undefined) onExit(reason);
    if (this.#child !== child || this.#isClosed) return;
    const hasLasted = monotonicMs() - child.startedMs >= STEADY_MS;
    this.#failures = hasLasted ? 0 : this.#failures + 1;
    onChange();
    const isFirst = this.#failures <= 1;
    const delayMs = isFirst ? 0 : Math.min(FIRST_DELAY_MS * 2 ** this.#failures, MAX_DELAY_MS);
    this.#retry = setTimeout(() => void this.#refill(), delayMs);
  }

  async #refill(): Promise<void> {
    const { onChange, open, start } = this.#options;
    const child = start();
    this.#child = child;
    void this.#watch(child);
    try {
      await open(child);
    } catch {
      // Its end counts as any other.
      child.kill();
    }
    onChange();
  }
}
