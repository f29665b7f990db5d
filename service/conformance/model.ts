/**
 * The suite's terms: a check is one requirement of one section, put to a running issuer or origin over HTTPS.
 * What cannot be tried is skipped with its reason and never passes. Reasons hold statuses and public values
 * only: no token, no blinded message, no header that was given to ask with.
 */
import type { ExchangeAnswer } from "../agent/exchange.ts";
import type { ConformanceHttp } from "./http.ts";

/** As the section words it; only a failed MUST fails a run. */
export type Level = "MUST" | "SHOULD";

export interface Check {
  /** `group.name`, stable: what `--only` takes. */
  readonly id: string;
  /** The specification and section that asks for it. */
  readonly section: string;
  readonly level: Level;
  readonly title: string;
  /** Returns where the requirement is met. @throws {@link Verdict} where it is not, or cannot be tried */
  readonly run: (context: Context) => Promise<void>;
}

export interface Result {
  readonly check: Check;
  readonly outcome: "pass" | "fail" | "skipped";
  /** Of a failed or skipped check, for people. */
  readonly reason?: string;
  readonly durationMs: number;
}

/** A directory as far as it can be read: what is wrong with it, the checks of the directory say. Hostile. */
export interface DirectoryView {
  readonly answer: ExchangeAnswer;
  /** The members of its JSON object. */
  readonly members: Readonly<Record<string, unknown>>;
  readonly keys: readonly ListedKey[];
}

/** An element of `token-keys` whose type and key can be read; the key itself is unchecked. */
export interface ListedKey {
  readonly tokenType: number;
  /** As it is spelt. */
  readonly text: string;
  readonly tokenKey: Uint8Array;
  readonly tokenKeyId: Uint8Array;
  /** `not-before`, whatever it is. */
  readonly notBefore: unknown;
}

/** What all checks of a run share; what is fetched for several is fetched once. */
export interface Context {
  /** Without a path. */
  readonly issuer: URL | undefined;
  readonly origin: URL | undefined;
  readonly http: ConformanceHttp;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly random: (length: number) => Uint8Array;
  /** Computes once for the run, whoever asks first; a rejection is kept too. */
  readonly once: <T>(name: string, compute: () => Promise<T>) => Promise<T>;
}

/** Ends a check before its end. */
export class Verdict extends Error {
  override readonly name = "Verdict";
  readonly outcome: "fail" | "skipped";

  constructor(outcome: "fail" | "skipped", reason: string) {
    super(reason);
    this.outcome = outcome;
  }
}

/** @throws Verdict */
export function fail(reason: string): never {
  throw new Verdict("fail", reason);
}

/** @throws Verdict */
export function skip(reason: string): never {
  throw new Verdict("skipped", reason);
}

/** @throws Verdict */
export function expectThat(condition: boolean, reason: string): asserts condition {
  if (!condition) fail(reason);
}

const MAX_QUOTED_CHARS = 80;

/** A hostile text in a reason: one line, short, nothing that a terminal would obey. */
export function quoted(text: string | undefined): string {
  if (text === undefined) return "none";
  const visible = text.slice(0, MAX_QUOTED_CHARS).replaceAll(/[^\x20-\x7e]/g, "?");
  return `"${visible}${text.length > MAX_QUOTED_CHARS ? "..." : ""}"`;
}
