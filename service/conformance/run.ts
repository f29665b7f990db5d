/** Runs the checks in order, one at a time: what one is answered must not depend on another under way. */
import { isStileError } from "../../wire/index.ts";
import { CHALLENGE_CHECKS } from "./challenge.ts";
import { firstOriginAnswer } from "./challenge-view.ts";
import { DIRECTORY_CHECKS } from "./directory.ts";
import { firstDirectoryAnswer } from "./directory-view.ts";
import type { ConformanceHttp } from "./http.ts";
import { ISSUANCE_CHECKS } from "./issuance.ts";
import { type Check, type Context, type Result, Verdict } from "./model.ts";
import { REDEMPTION_CHECKS } from "./redemption.ts";

export const CONFORMANCE_CHECKS: readonly Check[] = [
  ...DIRECTORY_CHECKS,
  ...ISSUANCE_CHECKS,
  ...CHALLENGE_CHECKS,
  ...REDEMPTION_CHECKS,
];

export interface ConformanceOptions {
  readonly issuer: URL | undefined;
  readonly origin: URL | undefined;
  readonly http: ConformanceHttp;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** Cryptographically secure: blinded elements are made of it. */
  readonly random: (length: number) => Uint8Array;
  readonly checks: readonly Check[];
}

/** @returns undefined where neither the issuer nor the origin can be reached */
export async function runConformance(
  options: ConformanceOptions,
): Promise<readonly Result[] | undefined> {
  const context = createContext(options);
  if (!(await isReachable(context))) return undefined;
  const results: Result[] = [];
  for (const check of options.checks) results.push(await runCheck(check, context));
  return results;
}

function createContext({ clock, http, issuer, origin, random }: ConformanceOptions): Context {
  const computed = new Map<string, Promise<unknown>>();
  return {
    issuer,
    origin,
    http,
    clock,
    random,
    once: async <T>(name: string, compute: () => Promise<T>): Promise<T> => {
      const promise = (computed.get(name) as Promise<T> | undefined) ?? compute();
      computed.set(name, promise);
      return promise;
    },
  };
}

async function isReachable(context: Context): Promise<boolean> {
  const answers = await Promise.allSettled([
    firstDirectoryAnswer(context),
    firstOriginAnswer(context),
  ]);
  return answers.some(({ status }) => status === "fulfilled");
}

async function runCheck(check: Check, context: Context): Promise<Result> {
  const startedMs = context.clock();
  const verdict = await check.run(context).catch(verdictOf);
  const durationMs = Math.max(context.clock() - startedMs, 0);
  if (verdict === undefined) return { check, outcome: "pass", durationMs };
  return { check, outcome: verdict.outcome, reason: verdict.message, durationMs };
}

/** A server that does not answer, or breaks off, has not met what was asked of it. */
function verdictOf(error: unknown): Verdict {
  if (error instanceof Verdict) return error;
  if (isStileError(error)) return new Verdict("fail", error.message);
  throw error;
}
