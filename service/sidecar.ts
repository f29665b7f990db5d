/**
 * The composition root: one process that is edge, attester and issuer, or one of them. Everything below gets
 * its clock, randomness, stores and keys from here, and is started and stopped in one order.
 */
import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { createListener, type ListenAt } from "../tls/index.ts";
import { composeAcme } from "./acme/compose.ts";
import { challengeCertificates } from "./acme/files.ts";
import { composeAttester } from "./attester/compose.ts";
import type { Config } from "./config/index.ts";
import { composeEdge } from "./edge/compose.ts";
import { followedTypes, followIssuer } from "./edge/follow-issuer.ts";
import type { EdgeHandler } from "./edge/handler.ts";
import type { TrustedProxies } from "./edge/trusted-proxies.ts";
import { composeFront, listenerLimits, trustedNetworks } from "./front.ts";
import { createHttpApp } from "./http/app.ts";
import { registerJwks } from "./http/jwks.ts";
import { createOwnHandler } from "./http/own-handler.ts";
import { openPlainHttp } from "./http/plain-listener.ts";
import { composeIssuer } from "./issuer/compose.ts";
import type { Log } from "./log.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { type OperatorParts, startOperatorListener } from "./operator/listener.ts";
import { type OnClose, openState, type SidecarState } from "./state.ts";
import { openTlsFiles } from "./tls-files.ts";
import { VERSION } from "./version.ts";

/** What the composition root itself is given. */
export interface SidecarDeps {
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly log: Log;
  /** Of the public listener, where its socket is open already. */
  readonly listenFd?: number | undefined;
}

/** What every part of the composition shares. */
export interface Composition
  extends Omit<SidecarDeps, "listenFd">, Pick<SidecarState, "secrets" | "tokenCrypto"> {
  readonly config: Config;
  readonly metrics: Metrics;
  readonly app: FastifyInstance;
  readonly proxies: TrustedProxies;
  readonly onClose: OnClose;
  /** Runs on SIGHUP: for files that are looked at again. */
  readonly onReload: (reload: () => void) => void;
}

export interface Sidecar {
  /** Port of the public listener. */
  readonly port: number;
  readonly operatorAddress: string;
  readonly metrics: Metrics;
  /** Closes the spent store and nothing else, as its loss would: redemption then fails closed. */
  readonly closeSpentStore: () => Promise<void>;
  /** Looks at the certificate files at once, rather than at the next interval. */
  readonly reloadCertificates: () => void;
  /** Drains and closes everything; further calls wait for the first. */
  readonly stop: () => Promise<void>;
}

/**
 * Starts everything; whatever was opened is closed again where a later step fails.
 * @throws `SERVICE_CONFIG_INVALID`, `TOKEN_KEY_STORE_INVALID`, `TOKEN_STORE_UNAVAILABLE`,
 * `TLS_CERTIFICATE_INVALID`, `TLS_TICKET_KEYS_INVALID`, `TOKEN_ISSUER_UNAVAILABLE`
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
  const state = await openState(config, { clock, metrics, onClose });
  const { secrets, tokenCrypto } = state;
  const proxies = trustedNetworks(config, "trustedProxies");
  const app = await createHttpApp({
    log,
    metrics,
    requestsPerMinute: config.limits.requestsPerMinute,
    proxies,
    version: VERSION,
  });
  onClose(() => app.close());
  const reloads: (() => void)[] = [];
  const onReload = (reload: () => void): void => void reloads.push(reload);
  const shared = { config, clock, log, metrics, app, proxies, secrets, tokenCrypto };
  const composition = { ...shared, onClose, onReload };
  const parts = await composeRoles(composition, state);
  await app.ready();
  const at = deps.listenFd === undefined ? config.listen : { fd: deps.listenFd };
  const listening = await listen(composition, parts, at);
  return {
    ...listening,
    reloadCertificates: () => {
      listening.reloadCertificates();
      for (const reload of reloads) reload();
    },
    metrics,
    closeSpentStore: () => state.spentStore?.close() ?? Promise.resolve(),
  };
}

/** What the roles of this process give to its listeners. */
interface ComposedRoles {
  readonly handler: EdgeHandler;
  readonly operator: OperatorParts;
  /** Clients are asked for certificates, which the issuer then looks at. */
  readonly asksForCertificates: boolean;
}

async function composeRoles(composition: Composition, state: SidecarState): Promise<ComposedRoles> {
  const { app, config, log, metrics } = composition;
  const issuer = state.issuer && (await composeIssuer(composition, state.issuer, state.spentStore));
  const attester =
    config.attester &&
    state.attester &&
    (await composeAttester(composition, config.attester, { ...state.attester, local: issuer }));
  const followed =
    config.edge?.issuer && state.spentStore
      ? await followIssuer(composition, config.edge.issuer, state.spentStore)
      : undefined;
  const keys = issuer?.keys ?? followed;
  const edge =
    config.edge && state.spentStore && keys
      ? await composeEdge(composition, config.edge, {
          spentStore: state.spentStore,
          ring: keys.ring,
          tokenTypes:
            issuer === undefined ? followedTypes(config.issuer) : config.issuer.tokenTypes,
          hasWebAuthn: config.attester?.webauthn.enabled ?? false,
          ...(issuer === undefined ? {} : { privateVerifier: issuer.pool }),
        })
      : undefined;
  const jwks = [attester?.publicJwk, edge?.publicJwk, issuer?.publicJwk].filter(
    (key) => key !== undefined,
  );
  if (jwks.length > 0) registerJwks(app, jwks);
  return {
    handler: edge?.handler ?? createOwnHandler(app),
    operator: {
      ...(keys === undefined ? {} : { keys }),
      ...(edge === undefined ? {} : { clearanceKeyPem: edge.clearanceKeyPem }),
      ...(attester === undefined ? {} : { revocations: attester.revocations }),
      ...(issuer?.attesters === undefined ? {} : { attesters: issuer.attesters }),
      metrics,
      log,
    },
    asksForCertificates: config.role === "issuer",
  };
}

async function listen(
  composition: Composition,
  parts: ComposedRoles,
  at: ListenAt,
): Promise<Pick<Sidecar, "port" | "operatorAddress" | "reloadCertificates">> {
  const { app, config, metrics, onClose } = composition;
  let ready = false;
  const acme = config.acme && (await composeAcme(composition, config.acme));
  const operator = await startOperatorListener({
    ...parts.operator,
    certificates: acme?.status,
    listen: config.operator.listen,
    isReady: () => ready,
    openapi: () => app.swagger(),
  });
  onClose(() => operator.close());
  const { certificates, reload, ticketKeys } = openTlsFiles(composition);
  const listener = createListener({
    certificates,
    ticketKeys,
    unknownName: config.tls.unknownName,
    limits: listenerLimits(config),
    front: composeFront(composition),
    handler: parts.handler.handle,
    upgrade: parts.handler.upgrade,
    ...(config.tls.http2
      ? { http2: { random: (length: number) => Uint8Array.from(randomBytes(length)) } }
      : {}),
    ...(parts.handler.fastPath === undefined ? {} : { fastPath: parts.handler.fastPath }),
    observe: (event) => metrics.tlsEvents.inc({ event }),
    asksForCertificates: parts.asksForCertificates,
    challenges: challengeCertificates(config),
  });
  const { port } = await listener.listen(at);
  ready = true;
  onClose(async () => {
    ready = false;
    await listener.drain(config.limits.drainSeconds * 1_000);
  });
  await openPlainHttp(composition, acme?.keyAuthorization);
  acme?.start(reload);
  return { port, operatorAddress: operator.address, reloadCertificates: reload };
}
