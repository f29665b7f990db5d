/** One exchange with the operator listener of a sidecar on this machine, found by its configuration. */
import { request } from "node:http";
import { loadConfig } from "../config/index.ts";
import { parseLocalListen } from "../http/local-listen.ts";

export interface OperatorAnswer {
  /** 0 where nothing answered. */
  readonly status: number;
  readonly text: string;
}

export function askOperator(
  where: { readonly config?: string | undefined; readonly operator?: string | undefined },
  call: { readonly method: "GET" | "POST"; readonly path: string; readonly body?: object },
  timeoutMs: number,
): Promise<OperatorAnswer> {
  const listen = where.operator ?? loadConfig(where.config, process.env).operator.listen;
  const target = parseLocalListen(listen, "operator.listen");
  const address =
    target.kind === "unix" ? { socketPath: target.path } : { host: target.host, port: target.port };
  const body = call.body === undefined ? "" : JSON.stringify(call.body);
  const headers = call.body === undefined ? {} : { "content-type": "application/json" };
  return new Promise((resolve) => {
    const options = { ...address, method: call.method, path: call.path, headers };
    const asked = request({ ...options, timeout: timeoutMs }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.once("error", () => resolve({ status: 0, text: "" }));
      response.once("end", () => {
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") });
      });
    });
    asked.once("timeout", () => asked.destroy());
    asked.once("error", () => resolve({ status: 0, text: "" }));
    asked.end(body);
  });
}

/** Why it did not do what it was asked for. */
export function reasonOf({ status, text }: OperatorAnswer): string {
  if (status === 0) return "no sidecar answers at its operator listener";
  try {
    const { detail, title } = JSON.parse(text) as { detail?: string; title?: string };
    return detail ?? title ?? `status ${status}`;
  } catch {
    return `status ${status}`;
  }
}
