/**
 * `stile keys`: the issuer keys of a running sidecar, through its operator listener. `rotate` brings the next
 * key forward, `revoke` ends one at once and takes every unspent token of it along.
 */
import { parseArgs } from "node:util";
import type { IssuerKeyView } from "../keys/issuer-keys.ts";
import { askOperator, reasonOf } from "./operator-client.ts";
import { CliUsageError } from "./usage.ts";

const USAGE =
  "keys list | rotate [--type N] [--issuer NAME] | revoke TOKEN_KEY_ID  (--config FILE | --operator ADDRESS) [--json]";
/** A new RSA key takes a second or two, and there may be one for each issuer. */
const TIMEOUT_MS = 120_000;
const TOKEN_KEY_ID = /^[0-9a-f]{64}$/;

type ShownKey = IssuerKeyView & { readonly issuer?: string };

export async function keysCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      config: { type: "string" },
      operator: { type: "string" },
      type: { type: "string" },
      issuer: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const call = callOf(positionals, values);
  const answer = await askOperator(values, call, TIMEOUT_MS);
  if (answer.status !== 200) {
    process.stderr.write(`stile: ${reasonOf(answer)}\n`);
    return 1;
  }
  if (values.json === true) process.stdout.write(`${answer.text}\n`);
  else show((JSON.parse(answer.text) as { readonly keys: readonly ShownKey[] }).keys);
  return 0;
}

function callOf(
  [verb, id]: readonly string[],
  { issuer, type }: { readonly issuer?: string; readonly type?: string },
): Parameters<typeof askOperator>[1] {
  if (verb === "list") return { method: "GET", path: "/keys" };
  if (verb === "rotate") {
    const tokenType = type === undefined ? undefined : Number(type);
    return { method: "POST", path: "/keys/rotate", body: { issuer, tokenType } };
  }
  if (verb !== "revoke") throw new CliUsageError(`expected: stile ${USAGE}`);
  if (id === undefined || !TOKEN_KEY_ID.test(id)) {
    throw new CliUsageError("expected the identifier of a key, as keys list shows it");
  }
  return { method: "POST", path: `/keys/${id}/revoke` };
}

function show(keys: readonly ShownKey[]): void {
  for (const { issuer = "", notBefore, retireAt, state, tokenKeyId, tokenType } of keys) {
    const type = `0x${tokenType.toString(16).padStart(4, "0")}`;
    process.stdout.write(
      `${tokenKeyId}  ${type}  ${state.padEnd(9)}  ${notBefore} to ${retireAt}  ${issuer}\n`,
    );
  }
}
