/** `stile health`: asks the operator listener whether the sidecar is ready. For container health checks. */
import { parseArgs } from "node:util";
import { askOperator } from "./operator-client.ts";

const TIMEOUT_MS = 2_000;

export async function healthCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { config: { type: "string" } } });
  const { status } = await askOperator(values, { method: "GET", path: "/readyz" }, TIMEOUT_MS);
  process.stdout.write(status === 200 ? "ready\n" : "not ready\n");
  return status === 200 ? 0 : 1;
}
