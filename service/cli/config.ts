/** `stile config check FILE` and `stile config docs`: the configuration without starting anything. */
import { isStileError } from "../../wire/index.ts";
import { type Config, configSchema, loadConfig, rolesOf } from "../config/index.ts";
import { voprfEngines } from "../keys/voprf-engines.ts";
import { CliUsageError } from "./usage.ts";

export function configCommand(args: readonly string[]): Promise<number> {
  const [verb, file] = args;
  if (verb === "check" && file !== undefined) {
    const config = loadConfig(file, process.env);
    process.stdout.write("the configuration is valid\n");
    for (const warning of warningsOf(config)) process.stderr.write(`warning: ${warning}\n`);
  } else if (verb === "docs" && file === undefined) {
    process.stdout.write(configurationDocs());
  } else {
    throw new CliUsageError("expected: stile config check FILE, or stile config docs");
  }
  return Promise.resolve(0);
}

/** What this machine lacks for it: another one, where it is to run, may have it. */
function warningsOf({ issuer, role }: Config): readonly string[] {
  if (role === "edge" || role === "attester") return [];
  try {
    return voprfEngines(issuer).flatMap(({ warning }) => warning ?? []);
  } catch (error) {
    if (!isStileError(error, "TOKEN_ENGINE_MISSING")) throw error;
    return [`it would not start here: ${error.message}`];
  }
}

interface SchemaNode {
  readonly description?: string;
  readonly type?: string;
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly enum?: readonly string[];
  readonly const?: unknown;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, SchemaNode>>;
}

/** The reference of all settings, made from the schema. */
export function configurationDocs(): string {
  const rows = rowsOf(configSchema, "");
  return [
    "# Configuration",
    "",
    "One YAML file (`stile serve --config FILE`) and environment variables over it:",
    "`STILE_EDGE__ISSUER_NAME` sets `edge.issuerName`. Relative paths start at the working directory.",
    "Unknown settings stop the start, and so do those that have no effect in the `role` that is chosen: the last column",
    "says in which they have one; where it is empty, in every role. This page is made by `npm run stile -- config docs`.",
    "",
    "| setting | meaning | values | default | roles |",
    "|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

function rowsOf(node: SchemaNode, path: string): string[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, inner]) => {
    const at = path === "" ? name : `${path}.${name}`;
    if (inner.properties !== undefined) return rowsOf(inner, at);
    const absent = node.required?.includes(name) === true ? "required" : "none";
    const fallback = inner.default === undefined ? absent : `\`${JSON.stringify(inner.default)}\``;
    const meaning = inner.description ?? "";
    return [`| \`${at}\` | ${meaning} | ${valuesOf(inner)} | ${fallback} | ${rolesIn(at)} |`];
  });
}

function rolesIn(setting: string): string {
  const roles = rolesOf(setting);
  return roles.length === rolesOf("role").length ? "" : roles.join(", ");
}

function valuesOf(node: SchemaNode): string {
  if (node.const !== undefined) return `\`${JSON.stringify(node.const)}\``;
  if (node.enum !== undefined) return node.enum.map((word) => `\`${word}\``).join(", ");
  if (node.type === "integer" || node.type === "number")
    return `${node.minimum ?? ""} to ${node.maximum ?? ""}`;
  if (node.type === "boolean") return "`true`, `false`";
  return node.type === "array" ? "list" : "text";
}
