/**
 * The composition root: one process that is edge, attester and issuer (joint mode). Everything below gets
 * its clock, randomness, stores and keys from here, and is started and stopped in one order.
 */
import type { FastifyInstance } from "fastify";
import { createNodeAttestCrypto } from "../attest/node/index.ts";
import { createListener, DEFAULT_LISTENER_LIMITS, fileCertificates } from "../tls/index.ts";
import { composeAttester } from "./attester/compose.ts";
import type { Config } from "./config/index.ts";
import { composeEdge } from "./edge/compose.ts";
import type { EdgeHandler } from "./edge/handler.ts";
import { createHttpApp } from "./http/app.ts";
import { registerIssuerRoutes } from "./issuer/routes.ts";
import { createIssuerKeys, type IssuerKeys } from "./keys/issuer-keys.ts";
import { errorFields, type Log } from "./log.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { type OperatorListener, startOperatorListener } from "./operator/listener.ts";
import { type OnClose, openState, type SidecarState } from "./state.ts";
import { VERSION } from "./version.ts";

/** What the composition root itself is given. */
export interface SidecarDeps {
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly log: Log;
}

/** What every part of the composition shares. */
export interface Composition extends SidecarState, SidecarDeps {
  readonly config: Config;
  readonly metrics: Metrics;
  readonly app: FastifyInstance;
}

export interface Sidecar {
  /** Port of the public listener. */
  readonly port: number;
  readonly operatorAddress: string;
  readonly keys: IssuerKeys;
  readonly metrics: Metrics;
  /** Closes the spent store and nothing else, as its loss would: redemption then fails closed. */
  readonly closeSpentStore: () => Promise<void>;
  /** Drains and closes everything; further calls wait for the first. */
  readonly stop: () => Promise<void>;
}

/** How often the key plan is looked at. */
const KEY_TICK_MS = 60_000;
const DAY_MS = 86_400_000;

/**
 * Starts everything; whatever was opened is closed again where a later step fails.
 * @throws `SERVICE_CONFIG_INVALID`, `TOKEN_KEY_STORE_INVALID`, `TOKEN_STORE_UNAVAILABLE`, `TLS_CERTIFICATE_INVALID`
 */
export async function startSidecar(config: Config, deps: SidecarDeps): Promise<Sidecar> {
  const closers: (() => Promise<void> | void)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const close of closers.splice(0)) await close();
  };
  try {
    const running = await start(config, deps, (close) => closers.unshift(close));
    let stopping: Promise<void> | undefined;
    return { ...running, stop: () => (stopping ??= closeAll()) };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

async function start(
  config: Config,
  deps: SidecarDeps,
  onClose: OnClose,
): Promise<Omit<Sidecar, "stop">> {
  const { clock, log } = deps;
  const metrics = createMetrics();
  const state = await openState(config, clock, metrics, onClose);
  const keys = createIssuerKeys({ ...state, clock, log, metrics });
  await keys.start();
  const ticks = setInterval(() => void keys.tick(), KEY_TICK_MS);
  onClose(() => clearInterval(ticks));
  onClose(sweepDaily(state.registry, log));
  const app = await createHttpApp({
    log,
    metrics,
    requestsPerMinute: config.limits.requestsPerMinute,
    version: VERSION,
  });
  onClose(() => app.close());
  const composition: Composition = { ...state, config, clock, log, metrics, app };
  registerIssuerRoutes(app, {
    keyRing: state.ring,
    crypto: state.tokenCrypto,
    clock,
    directoryLifetimeMs: config.issuer.directoryMaxAgeSeconds * 1_000,
  });
  const attester = await composeAttester(composition);
  const edge = composeEdge(composition, attester.publicJwk);
  onClose(() => edge.close());
  await app.ready();
  const listening = await listen(composition, keys, edge.handler, onClose);
  return { ...listening, keys, metrics, closeSpentStore: () => state.spentStore.close() };
}

/** Forgets devices that were not seen for the retention time, at the start and each day. */
function sweepDaily({ sweep }: SidecarState["registry"], log: Log): () => void {
  const run = (): void =>
    void sweep().then(
      (forgotten) => log.write("info", "devices.swept", { forgotten }),
      (error: unknown) => log.write("error", "devices.sweep-failed", errorFields(error)),
    );
  run();
  const days = setInterval(run, DAY_MS);
  return () => clearInterval(days);
}

async function listen(
  composition: Composition,
  keys: IssuerKeys,
  handler: EdgeHandler,
  onClose: OnClose,
): Promise<{ readonly port: number; readonly operatorAddress: string }> {
  const { app, config, metrics } = composition;
  let ready = false;
  const operator: OperatorListener = await startOperatorListener({
    listen: config.operator.listen,
    metrics,
    keys,
    isReady: () => ready,
    openapi: () => app.swagger(),
    revocations: {
      registry: composition.registry,
      crypto: createNodeAttestCrypto(),
      pseudonymSecret: composition.secrets.pseudonymSecret,
    },
    log: composition.log,
  });
  onClose(() => operator.close());
  const certificates = fileCertificates({
    certificateFile: config.tls.certificateFile,
    keyFile: config.tls.keyFile,
    pollMs: config.tls.reloadSeconds * 1_000,
    observe: (event) => metrics.tlsEvents.inc({ event }),
  });
  onClose(() => certificates.close());
  const listener = createListener({
    certificates,
    limits: { ...DEFAULT_LISTENER_LIMITS, maxConnections: config.tls.maxConnections },
    handler: handler.handle,
    upgrade: handler.upgrade,
    observe: (event) => metrics.tlsEvents.inc({ event }),
  });
  const { port } = await listener.listen(config.listen);
  ready = true;
  onClose(async () => {
    ready = false;
    await listener.drain(config.limits.drainSeconds * 1_000);
  });
  return { port, operatorAddress: operator.address };
}
