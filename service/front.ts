/** What the public listener does before TLS, as the configuration says it (docs/front.md). */
import {
  DEFAULT_LISTENER_LIMITS,
  type FrontOptions,
  type ListenerLimits,
  parseUpstream,
  type PassthroughRoute,
  wildcardOf,
} from "../tls/index.ts";
import { StileError } from "../wire/index.ts";
import type { Config } from "./config/index.ts";
import { createTrustedProxies, type TrustedProxies } from "./edge/trusted-proxies.ts";
import type { Composition } from "./sidecar.ts";

/** @throws `SERVICE_CONFIG_INVALID` */
export function trustedNetworks(
  { listen }: Config,
  setting: "trustedProxies" | "proxyProtocol",
): TrustedProxies {
  try {
    return createTrustedProxies(listen[setting]);
  } catch (cause) {
    throw invalid(`listen.${setting}: expected address/bits`, cause);
  }
}

/** @throws `SERVICE_CONFIG_INVALID` */
export function composeFront({
  config,
  log,
  proxies,
}: Pick<Composition, "config" | "log" | "proxies">): FrontOptions {
  return {
    sendsProxyHeader: trustedNetworks(config, "proxyProtocol").isTrusted,
    isSharedAddress: proxies.isTrusted,
    passthrough: passthroughOf(config),
    onPassedThrough: ({ event: outcome, ...record }) => {
      log.write("info", "passthrough.ended", { outcome, ...record });
    },
  };
}

export function listenerLimits({ limits, tls }: Config): ListenerLimits {
  const { maxConnections, maxConnectionsPerAddress, maxHandshakes, maxHandshakesPerAddress } = tls;
  return {
    ...DEFAULT_LISTENER_LIMITS,
    maxConnections,
    maxConnectionsPerAddress,
    maxHandshakes,
    maxHandshakesPerAddress,
    handshakeTimeoutMs: limits.handshakeSeconds * 1_000,
    headersTimeoutMs: limits.headersSeconds * 1_000,
    requestTimeoutMs: limits.requestSeconds * 1_000,
    idleTimeoutMs: limits.idleSeconds * 1_000,
    keepAliveTimeoutMs: limits.keepAliveSeconds * 1_000,
    maxHeaderBytes: limits.headerBytes,
    maxHeaders: limits.headers,
    maxStreams: limits.http2Streams,
  };
}

/** @throws `SERVICE_CONFIG_INVALID` */
function passthroughOf({ edge, listen, publicUrl }: Config): PassthroughRoute[] {
  const names = listen.passthrough.flatMap((route) => route.names);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw invalid(`listen.passthrough: ${twice} is there twice`);
  // What is passed on undecrypted is never admitted here: a host cannot be both.
  const own = [...(edge?.hosts ?? []).map((host) => `https://${host}`), publicUrl];
  for (const origin of own) {
    const host = URL.canParse(origin) ? new URL(origin).hostname : origin;
    if (names.includes(host) || names.includes(wildcardOf(host))) {
      throw invalid(`listen.passthrough: ${host} is a host of this service`);
    }
  }
  return listen.passthrough.map((route, i) => ({
    names: route.names,
    upstream: upstreamOf(route.upstream, `listen.passthrough.${i}.upstream`),
    proxyProtocol: route.proxyProtocol,
    maxConnections: route.maxConnections,
    connectTimeoutMs: route.connectTimeoutSeconds * 1_000,
    idleTimeoutMs: route.idleTimeoutSeconds * 1_000,
  }));
}

/** `host:port` or `unix:/path`: what is spoken there is the client's matter. */
function upstreamOf(text: string, setting: string): PassthroughRoute["upstream"] {
  try {
    if (text.startsWith("unix:")) return parseUpstream(text);
    if (!/^[^/?#@]+:[0-9]+$/.test(text)) throw new RangeError("no port");
    return parseUpstream(`http://${text}`);
  } catch (cause) {
    throw invalid(`${setting}: expected host:port or unix:/path`, cause);
  }
}

function invalid(message: string, cause?: unknown): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `configuration: ${message}`, { cause });
}
