/** Which process a setting is for. What nobody has thought of is the keeper's, which is replaced for it. */
import type { Config, EdgeAdaptiveConfig, ThresholdsConfig } from "../config/index.ts";

/** The supervisor has bound the socket, and every process knows the folder. */
const FIXED = ["listen.host", "listen.port", "processes.socketDir"] as const;
/** Of workers alone. */
const WORKERS = [
  "tls",
  "processes",
  "edge.upstream",
  "edge.upstreams",
  "edge.healthCheck",
  "edge.ejection",
  "edge.upstreamConnectSeconds",
  "edge.upstreamFirstByteSeconds",
  "edge.upstreamKeepSeconds",
  "edge.proxyProtocol",
  "edge.forwardedHeader",
  "edge.adaptive",
  "listen.passthrough",
  "listen.proxyProtocol",
  "edge.mode",
  "edge.rules",
  "edge.maxBodyBytes",
  "edge.maxUpstreamRequests",
  "edge.fastPath",
  "edge.upstreamTimeoutSeconds",
  "limits.drainSeconds",
  "limits.handshakeSeconds",
  "limits.headersSeconds",
  "limits.requestSeconds",
  "limits.idleSeconds",
  "limits.keepAliveSeconds",
  "limits.headerBytes",
  "limits.headers",
  "limits.http2Streams",
] as const;

/** @returns of the changed settings those that hold from the next start of the whole service on */
export function needsRestart(changed: readonly string[], after: Config): readonly string[] {
  const fixed = changed.filter((setting) => FIXED.some((one) => isWithin(setting, one)));
  // Without workers there is one process, and no supervisor that could become it.
  return after.processes.workers === 0 ? [...fixed, "processes.workers"] : fixed;
}

export function isKeepersSetting(setting: string): boolean {
  return !WORKERS.some((ours) => isWithin(setting, ours));
}

function isWithin(setting: string, section: string): boolean {
  return setting === section || setting.startsWith(`${section}.`);
}

/** What a keeper does with it: it forwards nothing, so it has no upstream to look at, and no requests to count. */
export function keeperConfig(config: Config): Config {
  if (config.edge === undefined) return config;
  const { adaptive: _judges, healthCheck: _forwards, ...edge } = config.edge;
  return { ...config, edge };
}

/**
 * A worker's share of what the service may have in all, so that what is configured holds for the service, however
 * its connections are spread: what one worker does not use of its share no other can.
 */
export function workerConfig(config: Config): Config {
  const { edge, tls } = config;
  const workers = Math.max(1, config.processes.workers);
  const share = (count: number): number => Math.ceil(count / workers);
  const shared = {
    ...config,
    listen: {
      ...config.listen,
      passthrough: config.listen.passthrough.map((route) => ({
        ...route,
        maxConnections: share(route.maxConnections),
      })),
    },
    tls: {
      ...tls,
      maxConnections: share(tls.maxConnections),
      maxConnectionsPerAddress: share(tls.maxConnectionsPerAddress),
      maxHandshakes: share(tls.maxHandshakes),
      maxHandshakesPerAddress: share(tls.maxHandshakesPerAddress),
    },
  };
  if (edge === undefined) return shared;
  // Envoy asks the keeper.
  const { extAuthz: _keepers, adaptive, ...ours } = edge;
  return {
    ...shared,
    edge: {
      ...ours,
      ...(adaptive === undefined ? {} : { adaptive: adaptiveShare(adaptive, workers) }),
      maxUpstreamRequests: share(edge.maxUpstreamRequests),
    },
  };
}

/** Of rates: what all workers together let in unproven stays below the threshold that is configured. */
function adaptiveShare(adaptive: EdgeAdaptiveConfig, workers: number): EdgeAdaptiveConfig {
  const share = <T extends ThresholdsConfig>(thresholds: T): T => ({
    ...thresholds,
    above: thresholds.above / workers,
    below: thresholds.below / workers,
  });
  const { failures, slow, unadmitted } = adaptive;
  return {
    ...adaptive,
    unadmitted: share(unadmitted),
    slow: share(slow),
    failures: share(failures),
  };
}
