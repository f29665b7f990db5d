/**
 * `stile clearance-key`: the public key that clearances are verified with, as PEM, for proxies that cannot read
 * a JWKS (HAProxy's `jwt_verify`). It asks the running sidecar, and replaces the file only where the key changed,
 * so that a proxy needs to be reloaded only then (docs/deploy.md).
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { askOperator } from "./operator-client.ts";

const TIMEOUT_MS = 2_000;

export async function clearanceKeyCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: { config: { type: "string" }, out: { type: "string" } },
  });
  const call = { method: "GET", path: "/clearance-key.pem" } as const;
  const { status, text } = await askOperator(values, call, TIMEOUT_MS);
  if (status !== 200) {
    const why = status === 0 ? "the sidecar does not answer" : "this sidecar gives no clearances";
    process.stderr.write(`stile: ${why} at its operator listener\n`);
    return 1;
  }
  if (values.out === undefined) process.stdout.write(text);
  else process.stdout.write(replaceIfChanged(values.out, text) ? "changed\n" : "unchanged\n");
  return 0;
}

/** In one step: a proxy that starts meanwhile reads the old key or the new one, never half of one. */
function replaceIfChanged(path: string, pem: string): boolean {
  if (existsSync(path) && readFileSync(path, "utf8") === pem) return false;
  writeFileSync(`${path}.new`, pem, { mode: 0o644 });
  renameSync(`${path}.new`, path);
  return true;
}
