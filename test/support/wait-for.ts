import { vi } from "vitest";

/** Vitest's own is one second: how long it may take until something is there is for the busiest machine to say. */
const TIMEOUT_MS = 10_000;

interface WaitOptions {
  readonly timeout?: number;
  readonly interval?: number;
}

/** As `vi.waitFor`: what `callback` returns, once it throws no more. @throws what it threw last */
export function waitFor<T>(callback: () => T | Promise<T>, options?: WaitOptions): Promise<T> {
  return vi.waitFor(callback, { timeout: TIMEOUT_MS, ...options });
}
