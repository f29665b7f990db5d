/**
 * `stile clearance-key`: the keys that clearances are signed with, of a running sidecar. Without a verb it gives what
 * clearances are verified with as PEM, for proxies that cannot read a JWKS (HAProxy's `jwt_verify`). It replaces a file
 * only where the key changed, so that a proxy needs to be reloaded only then (docs/deploy.md).
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { ClearanceKeyView } from "../edge/clearance-keys.ts";
import { askOperator, reasonOf } from "./operator-client.ts";
import { CliUsageError } from "./usage.ts";

const USAGE =
  "clearance-key [list [--json] | rotate | revoke KID] (--config FILE | --operator ADDRESS) [--out FILE] [--other-out FILE]";
const TIMEOUT_MS = 10_000;
const KID = /^[A-Za-z0-9_-]{22}$/;

export async function clearanceKeyCommand(args: readonly string[]): Promise<number> {
  const { kid, others } = withoutKid(args);
  const { positionals, values } = parseArgs({
    args: others,
    allowPositionals: true,
    options: {
      config: { type: "string" },
      operator: { type: "string" },
      out: { type: "string" },
      "other-out": { type: "string" },
      json: { type: "boolean" },
    },
  });
  const answer = await askOperator(values, callOf(positionals, kid), TIMEOUT_MS);
  if (answer.status !== 200) {
    const isElsewhere = answer.status === 404 && positionals[0] !== "revoke";
    const why = isElsewhere ? "the keys of clearances are not this sidecar's" : reasonOf(answer);
    process.stderr.write(`stile: ${why}\n`);
    return 1;
  }
  const { keys } = JSON.parse(answer.text) as { readonly keys: readonly ClearanceKeyView[] };
  if (positionals.length === 0) return give(keys, values);
  if (values.json === true) process.stdout.write(`${answer.text}\n`);
  else show(keys);
  return 0;
}

/** One in 64 begins as an option does. */
function withoutKid(args: readonly string[]): { kid: string | undefined; others: string[] } {
  const at = args.indexOf("revoke") + 1;
  const kid = at > 0 ? args[at] : undefined;
  if (kid === undefined || !KID.test(kid)) return { kid: undefined, others: [...args] };
  return { kid, others: args.filter((_, i) => i !== at) };
}

function callOf(
  [verb]: readonly string[],
  kid: string | undefined,
): Parameters<typeof askOperator>[1] {
  if (verb === undefined || verb === "list") return { method: "GET", path: "/clearance-keys" };
  if (verb === "rotate") return { method: "POST", path: "/clearance-keys/rotate" };
  if (verb !== "revoke") throw new CliUsageError(`expected: stile ${USAGE}`);
  if (kid === undefined) {
    throw new CliUsageError("expected the identifier of a key, as clearance-key list shows it");
  }
  return { method: "POST", path: `/clearance-keys/${kid}/revoke` };
}

function show(keys: readonly ClearanceKeyView[]): void {
  for (const { destroyAt, kid, notBefore, retireAt, signs, state } of keys) {
    const what = signs ? "signs" : state;
    process.stdout.write(
      `${kid}  ${what.padEnd(9)}  ${notBefore} to ${retireAt}, verifies until ${destroyAt}\n`,
    );
  }
}

function give(
  keys: readonly ClearanceKeyView[],
  files: { readonly out?: string; readonly "other-out"?: string },
): number {
  const signing = keys.find(({ signs }) => signs);
  if (signing === undefined) {
    process.stderr.write("stile: no key signs clearances now\n");
    return 1;
  }
  const { out } = files;
  const other = files["other-out"];
  if (out === undefined && other === undefined) process.stdout.write(signing.publicKeyPem);
  else {
    const changed = [
      other !== undefined && replaceIfChanged(other, otherOf(keys, signing).publicKeyPem),
      out !== undefined && replaceIfChanged(out, signing.publicKeyPem),
    ];
    process.stdout.write(changed.includes(true) ? "changed\n" : "unchanged\n");
  }
  return 0;
}

/** What is to be known beside the key that signs: the one that will, else the one that did, newest first. */
function otherOf(keys: readonly ClearanceKeyView[], signing: ClearanceKeyView): ClearanceKeyView {
  const others = keys.filter(({ signs }) => !signs);
  return others.find(({ state }) => state === "published") ?? others[0] ?? signing;
}

/** In one step: a proxy that starts meanwhile reads the old key or the new one, never half of one. */
function replaceIfChanged(path: string, pem: string): boolean {
  if (existsSync(path) && readFileSync(path, "utf8") === pem) return false;
  writeFileSync(`${path}.new`, pem, { mode: 0o644 });
  renameSync(`${path}.new`, path);
  return true;
}
