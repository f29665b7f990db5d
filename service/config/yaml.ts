/** YAML of configurations and policies. Aliases are refused: nested ones expand without bound. */
import { parse } from "yaml";
import { StileError } from "../../wire/index.ts";

/** @param where names the source in errors. @throws `SERVICE_CONFIG_INVALID` */
export function parseYaml(content: string, where: string): unknown {
  try {
    return parse(content, { strict: true, uniqueKeys: true, maxAliasCount: 0 });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new StileError("SERVICE_CONFIG_INVALID", `${where}: ${reason}`, { cause });
  }
}
