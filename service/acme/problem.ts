/** What an ACME server says is wrong (RFC 8555 §6.7), reduced to what may be logged: one of the registered words. */
import { isStileError, StileError } from "../../wire/index.ts";
import type { ExchangeAnswer } from "../agent/exchange.ts";

/** RFC 8555 §6.7 and later registrations begin with it; anything else is not repeated. */
const ACME_ERROR = /^urn:ietf:params:acme:error:(?<word>[A-Za-z]{1,40})$/;
const MAX_RETRY_AFTER_SECONDS = 7 * 86_400;
/** Where the server says `rateLimited` and not until when. */
const RATE_LIMIT_SECONDS = 3_600;

/** `badNonce` of `urn:ietf:params:acme:error:badNonce`. @param problem hostile */
export function problemWord(problem: unknown): string {
  const type = memberOf(problem, "type");
  return (typeof type === "string" && ACME_ERROR.exec(type)?.groups?.["word"]) || "unknown";
}

/** @param nowMs for an HTTP date. @returns undefined where the server does not say it in one of the two forms */
export function retryAfterSeconds(
  { headers }: Pick<ExchangeAnswer, "headers">,
  nowMs: number,
): number | undefined {
  const value = headers["retry-after"];
  if (value === undefined) return undefined;
  const seconds = /^\d{1,9}$/.test(value) ? Number(value) : (Date.parse(value) - nowMs) / 1_000;
  if (Number.isNaN(seconds)) return undefined;
  return Math.min(MAX_RETRY_AFTER_SECONDS, Math.max(0, Math.ceil(seconds)));
}

/** The error for an answer that is none of success. */
export function refusalOf(answer: ExchangeAnswer, nowMs: number): StileError {
  const wait = retryAfterSeconds(answer, nowMs);
  const word = problemWord(jsonOf(answer.body));
  const options = wait === undefined ? {} : { retryAfterSeconds: wait };
  if (answer.status >= 500) return unavailable(`it answers with ${answer.status}`, options);
  const limit =
    word === "rateLimited" ? { retryAfterSeconds: wait ?? RATE_LIMIT_SECONDS } : options;
  return new StileError("SERVICE_ACME_REFUSED", `the ACME server refuses: ${word}`, limit);
}

export function unavailable(
  reason: string,
  options: { readonly retryAfterSeconds?: number; readonly cause?: unknown } = {},
): StileError {
  return new StileError(
    "SERVICE_ACME_UNAVAILABLE",
    `no answer of an ACME server: ${reason}`,
    options,
  );
}

/** @returns undefined for what is no JSON */
export function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return undefined;
  }
}

/** @param value hostile */
export function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Record<string, unknown>)[name];
}

/** Why an attempt failed, in words that are ours or registered. */
export function reasonOf(error: unknown): string {
  return isStileError(error) ? error.message : "internal";
}
