/** What the fuzz test of attest/ runs: a parser or verifier, its valid inputs, and what it may accept. */
import { mutateBytes, mutateJson, mutateText, pick, type Random } from "../../../support/fuzz.ts";

/** One mutated input. */
export interface FuzzCase {
  /** For the report of a failure. */
  readonly input: string;
  readonly run: () => unknown;
  /** Why the result must not have come, or undefined. Missing where whatever is accepted is as good. */
  readonly fault?: (result: unknown) => string | undefined;
}

export interface FuzzTarget {
  readonly name: string;
  /** Of the cases, relative to the other targets: less for what is slow. */
  readonly share: number;
  /** The inputs before they are changed, all of which must be accepted. */
  readonly sound: readonly (() => unknown)[];
  readonly next: (random: Random) => FuzzCase;
}

/** A parser of bytes that nothing signs. `again` gives the bytes of what was accepted (checklist G5). */
export function bytesTarget<T>(options: {
  readonly name: string;
  readonly share: number;
  readonly seeds: readonly Uint8Array[];
  readonly parse: (bytes: Uint8Array) => T | Promise<T>;
  readonly fault?: (result: T, bytes: Uint8Array, seed: Uint8Array) => string | undefined;
}): FuzzTarget {
  const { name, share, seeds, parse, fault } = options;
  return {
    name,
    share,
    sound: seeds.map((seed) => () => parse(seed)),
    next: (random) => {
      const seed = pick(random, seeds);
      const bytes = mutateBytes(seed, random, seeds);
      return {
        input: Buffer.from(bytes).toString("hex"),
        run: () => parse(bytes),
        ...(fault === undefined ? {} : { fault: (result) => fault(result as T, bytes, seed) }),
      };
    },
  };
}

/** The same for text. */
export function textTarget<T>(options: {
  readonly name: string;
  readonly share: number;
  readonly seeds: readonly string[];
  readonly parse: (text: string) => T | Promise<T>;
  readonly fault?: (result: T, text: string, seed: string) => string | undefined;
}): FuzzTarget {
  const { name, share, seeds, parse, fault } = options;
  return {
    name,
    share,
    sound: seeds.map((seed) => () => parse(seed)),
    next: (random) => {
      const seed = pick(random, seeds);
      const text = mutateText(seed, random, seeds);
      return {
        input: JSON.stringify(text),
        run: () => parse(text),
        ...(fault === undefined ? {} : { fault: (result) => fault(result as T, text, seed) }),
      };
    },
  };
}

/** The same for what JSON.parse gave. `encode` gives the JSON of what was accepted. */
export function jsonTarget<T>(options: {
  readonly name: string;
  readonly share: number;
  readonly seeds: readonly unknown[];
  readonly parse: (json: unknown) => T | Promise<T>;
  readonly fault: (result: T, json: unknown) => string | undefined;
}): FuzzTarget {
  const { name, share, seeds, parse, fault } = options;
  return {
    name,
    share,
    sound: seeds.map((seed) => () => parse(seed)),
    next: (random) => {
      const mutated = mutateJson(pick(random, seeds), random, seeds);
      const text = JSON.stringify(mutated);
      const json: unknown = JSON.parse(text);
      return {
        input: text.slice(0, 4_000),
        run: () => parse(json),
        fault: (result) => fault(result as T, json),
      };
    },
  };
}

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
