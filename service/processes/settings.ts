/** What an operator is told of a changed configuration: names of settings, never values; and what is wrong with it. */
import { isStileError } from "../../wire/index.ts";
import type { Config } from "../config/index.ts";

/** By their full paths. */
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

/** Of a configuration the message may be told: it names settings and files, and the operator wrote them. */
export function reloadFault(error: unknown): { readonly code: string; readonly reason?: string } {
  if (!isStileError(error)) return { code: "INTERNAL" };
  return { code: error.code, reason: error.message };
}
