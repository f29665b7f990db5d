/** The upstreams from their settings, with their metrics, their log lines and the files of their TLS. */
import {
  createUpstreams,
  createUpstreamTls,
  type ForwarderOptions,
  parseUpstream,
  type UpstreamAddress,
  type Upstreams,
  type UpstreamSettings,
  type UpstreamTls,
} from "../../tls/index.ts";
import { StileError } from "../../wire/index.ts";
import type { EdgeConfig, UpstreamConfig } from "../config/index.ts";
import type { Composition } from "../sidecar.ts";
import { registerUpstreamMetrics, upstreamEventCounter } from "../upstream-metrics.ts";

type UpstreamsComposition = Omit<Composition, "secrets">;

/** Where nothing is said of it. */
const EJECTION = { failures: 3, baseSeconds: 1, maxSeconds: 60 };
const UNLIMITED = Number.MAX_SAFE_INTEGER;

/** Milliseconds that never go back, for durations. */
const steadyMs = (): number => performance.now();

/** @throws `SERVICE_CONFIG_INVALID`, `TLS_UPSTREAM_FILES_INVALID` */
export function composeUpstreams(composition: UpstreamsComposition, edge: EdgeConfig): Upstreams {
  const { log, metrics, onClose } = composition;
  const list = edge.upstreams ?? [{ url: edge.upstream ?? "" }];
  const parts = { composition, edge, events: upstreamEventCounter(metrics.registry) };
  const { baseSeconds, failures, maxSeconds } = edge.ejection ?? EJECTION;
  const check = edge.healthCheck;
  const upstreams = createUpstreams({
    upstreams: list.map((settings, i) => settingsOf(parts, settings, i)),
    ejection: { failures, baseMs: baseSeconds * 1_000, maxMs: maxSeconds * 1_000 },
    ...(check === undefined
      ? {}
      : {
          healthCheck: {
            ...check,
            host: check.host ?? edge.hosts[0] ?? "",
            intervalMs: check.intervalSeconds * 1_000,
            timeoutMs: check.timeoutSeconds * 1_000,
          },
        }),
    clock: steadyMs,
    random: Math.random,
    observe: (event, upstream) => {
      parts.events.inc({ upstream, event });
      const isBad = event === "ejected" || event === "unhealthy";
      log.write(isBad ? "warn" : "info", `upstream.${event}`, { upstream });
    },
  });
  onClose(() => upstreams.close());
  registerUpstreamMetrics(metrics.registry, upstreams, steadyMs);
  return upstreams;
}

/** How long an upstream may take over what. */
export function timesOf(
  edge: EdgeConfig,
): Pick<ForwarderOptions, "firstByteTimeoutMs" | "idleTimeoutMs" | "keepMs"> {
  const { upstreamFirstByteSeconds, upstreamKeepSeconds, upstreamTimeoutSeconds } = edge;
  return {
    firstByteTimeoutMs: (upstreamFirstByteSeconds ?? upstreamTimeoutSeconds) * 1_000,
    idleTimeoutMs: upstreamTimeoutSeconds * 1_000,
    keepMs: upstreamKeepSeconds * 1_000,
  };
}

interface Parts {
  readonly composition: UpstreamsComposition;
  readonly edge: EdgeConfig;
  readonly events: ReturnType<typeof upstreamEventCounter>;
}

function settingsOf(parts: Parts, upstream: UpstreamConfig, index: number): UpstreamSettings {
  const { edge } = parts;
  const name = upstream.name ?? String(index);
  const at = edge.upstreams === undefined ? "edge.upstream" : `edge.upstreams.${index}.url`;
  const address = addressOf(upstream.url, at);
  return {
    name,
    address,
    weight: upstream.weight ?? 1,
    maxUnderWay: upstream.maxRequests ?? UNLIMITED,
    tls: tlsOf(parts, upstream, { name, address }),
    connectTimeoutMs: edge.upstreamConnectSeconds * 1_000,
    proxyProtocol: edge.proxyProtocol,
  };
}

function addressOf(url: string, at: string): UpstreamAddress {
  try {
    return parseUpstream(url);
  } catch (cause) {
    const message = `configuration: ${at}: expected http://host:port, https://host:port or unix:/path`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}

function tlsOf(
  { composition, events }: Parts,
  upstream: UpstreamConfig,
  { address, name }: Pick<UpstreamSettings, "address" | "name">,
): UpstreamTls | undefined {
  if (address.kind !== "tls") return undefined;
  const { log } = composition;
  if (upstream.unsafeSkipVerification === true) {
    log.write("warn", "upstream.unsafe-skip-verification", { upstream: name });
  }
  const { url: _url, name: _name, weight: _weight, maxRequests: _max, ...files } = upstream;
  const tls = createUpstreamTls({
    ...files,
    host: address.host,
    clock: steadyMs,
    observe: (event) => {
      events.inc({ upstream: name, event });
      const level = event === "files-failed" ? "error" : "info";
      log.write(level, `upstream.${event}`, { upstream: name });
    },
  });
  watch(composition, tls);
  return tls;
}

function watch({ config, onClose, onReload }: UpstreamsComposition, tls: UpstreamTls): void {
  const timer = setInterval(tls.look, config.tls.reloadSeconds * 1_000);
  timer.unref();
  onClose(() => clearInterval(timer));
  onReload(tls.look);
}
