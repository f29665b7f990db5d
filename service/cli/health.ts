/** `stile health`: asks the operator listener whether the sidecar is ready. For container health checks. */
import { request } from "node:http";
import { parseArgs } from "node:util";
import { loadConfig } from "../config/index.ts";
import { parseOperatorListen } from "../operator/listener.ts";

const TIMEOUT_MS = 2_000;

export async function healthCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { config: { type: "string" } } });
  const config = loadConfig(values.config, process.env);
  const target = parseOperatorListen(config.operator.listen);
  const where =
    target.kind === "unix" ? { socketPath: target.path } : { host: target.host, port: target.port };
  const status = await new Promise<number>((resolve) => {
    const asked = request({ ...where, path: "/readyz", timeout: TIMEOUT_MS }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    asked.once("timeout", () => asked.destroy());
    asked.once("error", () => resolve(0));
    asked.end();
  });
  process.stdout.write(status === 200 ? "ready\n" : "not ready\n");
  return status === 200 ? 0 : 1;
}
