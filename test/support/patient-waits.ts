/** Waits of tests end when what they wait for is there; how long that may take is for the busiest machine to say. */
import { vi } from "vitest";

/** Vitest's own is one second. */
const TIMEOUT_MS = 10_000;

const { waitFor, waitUntil } = vi;
const patient = (options?: Parameters<typeof waitFor>[1]): Parameters<typeof waitFor>[1] =>
  typeof options === "number" ? options : { timeout: TIMEOUT_MS, ...options };

vi.waitFor = (callback, options) => waitFor(callback, patient(options));
vi.waitUntil = (callback, options) => waitUntil(callback, patient(options));
