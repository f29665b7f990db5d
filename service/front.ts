/** What the public listener does before TLS, as the configuration says it (docs/front.md). */
import { DEFAULT_LISTENER_LIMITS, type FrontOptions, type ListenerLimits } from "../tls/index.ts";
import { StileError } from "../wire/index.ts";
import type { Config } from "./config/index.ts";
import { createTrustedProxies, type TrustedProxies } from "./edge/trusted-proxies.ts";

/** @throws `SERVICE_CONFIG_INVALID` */
export function trustedNetworks(
  { listen }: Config,
  setting: "trustedProxies" | "proxyProtocol",
): TrustedProxies {
  try {
    return createTrustedProxies(listen[setting]);
  } catch (cause) {
    const message = `configuration: listen.${setting}: expected address/bits`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}

/** @throws `SERVICE_CONFIG_INVALID` */
export function composeFront(config: Config, proxies: TrustedProxies): FrontOptions {
  return {
    sendsProxyHeader: trustedNetworks(config, "proxyProtocol").isTrusted,
    isSharedAddress: proxies.isTrusted,
  };
}

export function listenerLimits({ tls }: Config): ListenerLimits {
  const { maxConnections, maxConnectionsPerAddress, maxHandshakes, maxHandshakesPerAddress } = tls;
  return {
    ...DEFAULT_LISTENER_LIMITS,
    maxConnections,
    maxConnectionsPerAddress,
    maxHandshakes,
    maxHandshakesPerAddress,
  };
}
