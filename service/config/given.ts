/** What was written, before defaults: only there a setting without effect differs from one that was left out. */
import { isDeepStrictEqual } from "node:util";

/** @returns undefined where it was not */
export function givenAt(raw: unknown, setting: string): unknown {
  let at = raw;
  for (const name of setting.split(".")) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, name)) return undefined;
    at = Reflect.get(at, name);
  }
  return at;
}

/**
 * Whether a setting was written that says something else than if it were left out: a file that a program wrote may have
 * all of them.
 */
export function isSet(raw: unknown, setting: string, schema: object): boolean {
  const value = givenAt(raw, setting);
  return value !== undefined && !isDeepStrictEqual(value, Reflect.get(schema, "default"));
}
