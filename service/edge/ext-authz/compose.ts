/** The listener that Envoy asks by gRPC (`edge.extAuthz`), on this machine only. */
import { chmodSync, rmSync } from "node:fs";
import { StileError } from "../../../wire/index.ts";
import type { Config, EdgeConfig } from "../../config/index.ts";
import { parseLocalListen } from "../../http/local-listen.ts";
import type { Composition } from "../../sidecar.ts";
import { type AnswerOptions, createAnswer } from "./answer.ts";
import { createUnaryServer } from "./grpc.ts";

/** service Authorization { rpc Check(CheckRequest) returns (CheckResponse) {} } of external_auth.proto */
const CHECK_PATH = "/envoy.service.auth.v3.Authorization/Check";
/** For the proxy's user, who has to be in the socket's group. */
const SOCKET_MODE = 0o660;
const CALL_TIMEOUT_MS = 5_000;

/** @throws `SERVICE_CONFIG_INVALID`, and where the address cannot be listened on */
export async function listenExtAuthz(
  { config, onClose, proxies }: Pick<Composition, "config" | "onClose" | "proxies">,
  listen: string,
  options: AnswerOptions,
): Promise<void> {
  const target = parseLocalListen(listen, "edge.extAuthz.listen");
  const isUnix = target.kind === "unix";
  const { close, server } = createUnaryServer({
    path: CHECK_PATH,
    isTrusted: isUnix ? () => true : proxies.isTrusted,
    call: createAnswer(options),
    callTimeoutMs: CALL_TIMEOUT_MS,
  });
  if (isUnix) rmSync(target.path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    if (isUnix) server.listen(target.path, resolve);
    else server.listen(target.port, target.host, resolve);
  });
  if (isUnix) chmodSync(target.path, SOCKET_MODE);
  onClose(() => close(config.limits.drainSeconds * 1_000));
}

/** @throws `SERVICE_CONFIG_INVALID` for settings that would not hold for what Envoy asks about */
export function checkExtAuthz({ listen: { trustedProxies } }: Config, edge: EdgeConfig): void {
  if (edge.extAuthz === undefined) return;
  const { kind } = parseLocalListen(edge.extAuthz.listen, "edge.extAuthz.listen");
  if (kind === "tcp" && trustedProxies.length === 0) {
    throw invalid("edge.extAuthz.listen must be unix:/path where listen.trustedProxies is empty");
  }
  if (edge.redemptionContext === "connection") {
    throw invalid("edge.redemptionContext must not be connection where edge.extAuthz is set");
  }
  if (edge.rules.length > 0 || edge.mode !== "enforce") {
    throw invalid("edge.extAuthz must not be set where edge.rules or edge.mode are");
  }
}

function invalid(message: string): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `configuration: ${message}`);
}
