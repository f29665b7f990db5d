/**
 * Reads the configuration: a YAML file, then environment variables over it, then the check.
 * `STILE_EDGE__UPSTREAM` sets `edge.upstream`: two underscores go one level down, one underscore
 * separates the words of a name. Values of the environment are read as YAML scalars.
 */
import { readFileSync } from "node:fs";
import { StileError } from "../../wire/index.ts";
import { checkConfig, configSchema } from "./schema.ts";
import type { Config } from "./types.ts";
import { parseYaml } from "./yaml.ts";

/** Variables with our prefix that are not settings. */
const NOT_SETTINGS: ReadonlySet<string> = new Set(["STILE_CONFIG", "STILE_SKIP_SETUP"]);
/** A configuration is a page or two: more is a mistake, and is refused before it is parsed. */
const MAX_FILE_CHARS = 1_048_576;

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * @param path the YAML file, or undefined where the environment says everything
 * @throws `SERVICE_CONFIG_INVALID`
 */
export function loadConfig(path: string | undefined, environment: Environment): Config {
  const settings = path === undefined ? {} : readSettings(path);
  for (const [name, value] of Object.entries(environment)) {
    if (value === undefined || !name.startsWith("STILE_") || NOT_SETTINGS.has(name)) continue;
    setByPath(settings, pathOfVariable(name), parseYaml(value, name));
  }
  return checkConfig(settings);
}

function readSettings(path: string): Record<string, unknown> {
  let content: string;
  try {
    content = readFileSync(path, "utf8");
  } catch (cause) {
    throw new StileError("SERVICE_CONFIG_INVALID", `cannot read the configuration ${path}`, {
      cause,
    });
  }
  if (content.length > MAX_FILE_CHARS) {
    throw new StileError("SERVICE_CONFIG_INVALID", `the configuration ${path} is too large`);
  }
  const value: unknown = parseYaml(content, path) ?? {};
  if (!isRecord(value)) {
    throw new StileError("SERVICE_CONFIG_INVALID", `${path}: expected settings by name`);
  }
  return value;
}

/** `STILE_EDGE__ISSUER_NAME` is `edge.issuerName`; a name that no setting has is kept and refused. */
function pathOfVariable(name: string): string[] {
  const path: string[] = [];
  let schema: unknown = configSchema;
  for (const part of name.slice("STILE_".length).split("__")) {
    const wanted = part.replaceAll("_", "").toLowerCase();
    const properties =
      isRecord(schema) && isRecord(schema["properties"]) ? schema["properties"] : {};
    const key = Object.keys(properties).find((known) => known.toLowerCase() === wanted);
    path.push(key ?? part.toLowerCase());
    schema = key === undefined ? undefined : properties[key];
  }
  return path;
}

function setByPath(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = target;
  for (const key of path.slice(0, -1)) {
    const inner = at[key];
    const next: Record<string, unknown> = isRecord(inner) ? inner : {};
    at[key] = next;
    at = next;
  }
  const last = path.at(-1);
  if (last !== undefined) at[last] = value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
