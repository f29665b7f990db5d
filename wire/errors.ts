/**
 * The one error class for hostile input and failed conditions.
 * A caller's own programming mistake is a `TypeError` or `RangeError` instead.
 * Messages are lower case and use the specification's words; they never carry a nonce, a token,
 * a key or a device identity.
 */
import type { ErrorCode } from "./error-codes.ts";

/** Where in a structure a parser stopped. Offsets are in bytes from the start of the structure. */
export interface WireErrorDetail {
  readonly structure: string;
  readonly field: string;
  readonly offset: number;
}

/** Options of {@link StileError}: public facts only. */
export interface StileErrorOptions {
  readonly wire?: WireErrorDetail;
  /** Seconds after which the caller may try again, where that is known. */
  readonly retryAfterSeconds?: number;
  readonly cause?: unknown;
}

export class StileError extends Error {
  override readonly name = "StileError";
  readonly code: ErrorCode;
  readonly wire: WireErrorDetail | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string, options: StileErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.wire = options.wire;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

/** True for a {@link StileError}, optionally one with the given code. */
export function isStileError(error: unknown, code?: ErrorCode): error is StileError {
  return error instanceof StileError && (code === undefined || error.code === code);
}
