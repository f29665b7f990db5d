/** What was written, before defaults: only there a setting without effect differs from one that was left out. */

/** @returns undefined where it was not */
export function givenAt(raw: unknown, setting: string): unknown {
  let at = raw;
  for (const name of setting.split(".")) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, name)) return undefined;
    at = Reflect.get(at, name);
  }
  return at;
}
