/** What may go wrong at an upstream, and what a client is told of it. */
import { StileError } from "../../wire/index.ts";

/**
 * `connect`: no connection came about, and nothing of a request was sent. `broken`: the upstream closed before it
 * answered. `malformed`: what it answers is no answer. `timeout`: connected, and silent.
 */
export type UpstreamFailure = "connect" | "broken" | "malformed" | "timeout";

/** What a failed exchange with the upstream means to the client. */
export function asUpstreamError(cause: unknown): StileError {
  if (cause instanceof StileError) return cause;
  return new StileError("TLS_UPSTREAM_UNREACHABLE", "the upstream cannot be reached", { cause });
}

export function upstreamTimeout(): StileError {
  return new StileError("TLS_UPSTREAM_TIMEOUT", "the upstream did not answer in time");
}

/**
 * RFC 9110 §15: 200 to 599 is an answer. Node reports other 1xx apart, but passes a 101 without Upgrade, after
 * which nothing is HTTP, and 600 to 999 as answers.
 */
export function isFinalStatus(statusCode: number | undefined): boolean {
  return statusCode !== undefined && statusCode >= 200 && statusCode <= 599;
}

/** The status with which the upstream's answer began, or that there is none: by its fault, or by the client's. */
export type UpstreamOutcome = number | "failed" | "gone";

/** A body that was too large, say, tells nothing of the upstream. */
export function outcomeOf(error: unknown): UpstreamOutcome {
  return error instanceof StileError && error.code.startsWith("TLS_UPSTREAM_") ? "failed" : "gone";
}
