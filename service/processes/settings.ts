/** Which settings differ between two configurations, by their full paths: names, never values. */
import type { Config } from "../config/index.ts";

export function changedSettings(before: Config, after: Config): readonly string[] {
  return differences(before, after, "");
}

/** Lists are compared whole: their items have no names. */
function differences(before: unknown, after: unknown, path: string): string[] {
  if (isSection(before) && isSection(after)) {
    const names = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...names].flatMap((name) =>
      differences(before[name], after[name], path === "" ? name : `${path}.${name}`),
    );
  }
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [path];
}

function isSection(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
