/** The times of renewal: pure functions of a certificate, of what the server said, and of what failed. */
import { isStileError } from "../../wire/index.ts";
import type { Validity } from "./issued.ts";
import type { RenewalInfo } from "./renewal-info.ts";

const DEFAULT_SHARE = 1 / 3;
/** A setting that is longer than the certificate's life must not make it renewed all the time. */
const LARGEST_SHARE = 1 / 2;
/** Edges that were started together do not renew together. */
const JITTER_SHARE = 1 / 10;
const FIRST_RETRY_MS = 60_000;
/** After a refusal: of failed validations, servers allow some five an hour. */
const FIRST_REFUSED_RETRY_MS = 300_000;
const MAX_RETRY_MS = 6 * 3_600_000;
const SHORTEST_SHARE = 1 / 10;
/** Where the server does not say how often (RFC 9773 §4.3.2). */
const ASK_MS = 6 * 3_600_000;
const MIN_ASK_MS = 3_600_000;
const MAX_ASK_MS = 24 * 3_600_000;

/** @param jitter from 0 up to 1, here as below */
export function renewAtMs(
  { notAfterMs, notBeforeMs }: Validity,
  renewBeforeMs: number | undefined,
  jitter: number,
): number {
  const lifeMs = notAfterMs - notBeforeMs;
  const beforeMs = Math.min(renewBeforeMs ?? lifeMs * DEFAULT_SHARE, lifeMs * LARGEST_SHARE);
  return Math.floor(notAfterMs - beforeMs * (1 + JITTER_SHARE * jitter));
}

/** A clock that is wrong, or an odd server, must not make each certificate due as soon as it is there. */
export function shortestMs({ notAfterMs, notBeforeMs }: Validity): number {
  return (notAfterMs - notBeforeMs) * SHORTEST_SHARE;
}

/** Not at the start, so that restarts ask for nothing. */
export function firstAskMs(jitter: number): number {
  return (ASK_MS / 2) * (1 + jitter);
}

export function askAgainMs(info: RenewalInfo | undefined): number {
  const askedMs = info?.retryAfterSeconds === undefined ? ASK_MS : info.retryAfterSeconds * 1_000;
  return Math.min(MAX_ASK_MS, Math.max(MIN_ASK_MS, askedMs));
}

export function retryMs(error: unknown, failures: number, jitter: number): number {
  const isRefusal = isStileError(error) && error.code !== "SERVICE_ACME_UNAVAILABLE";
  const firstMs = isRefusal ? FIRST_REFUSED_RETRY_MS : FIRST_RETRY_MS;
  const backOffMs = Math.min(MAX_RETRY_MS, firstMs * 2 ** (failures - 1));
  const askedMs = ((isStileError(error) && error.retryAfterSeconds) || 0) * 1_000;
  return Math.floor(Math.max(askedMs, backOffMs) * (1 + JITTER_SHARE * jitter));
}
