/**
 * The composition root: one process that is edge, attester and issuer, or one of them. Everything below gets
 * its clock, randomness, stores and keys from here, and is started and stopped in one order.
 */
import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { createListener, type Listener } from "../tls/index.ts";
import { type KeyRing, type PrivateTokenVerifier } from "../tokens/index.ts";
import { composeAcme } from "./acme/compose.ts";
import { challengeCertificates } from "./acme/files.ts";
import { composeAttester } from "./attester/compose.ts";
import { type Clients, openClients } from "./client-certificates.ts";
import type { Config } from "./config/index.ts";
import { type ClearanceKeys, openClearanceKeys } from "./edge/clearance-keys.ts";
import { composeEdge, type EdgeDeps } from "./edge/compose.ts";
import { followedTypes, followIssuer } from "./edge/follow-issuer.ts";
import { createUsedSignatures, type UsedSignatures } from "./edge/signatures/used-signatures.ts";
import type { EdgeHandler } from "./edge/handler.ts";
import type { TrustedProxies } from "./edge/trusted-proxies.ts";
import { composeFront, listenerLimits, trustedNetworks } from "./front.ts";
import { createHttpApp } from "./http/app.ts";
import { registerJwks } from "./http/jwks.ts";
import { createOwnHandler } from "./http/own-handler.ts";
import { openPlainHttp } from "./http/plain-listener.ts";
import { composeIssuer, KEY_TICK_MS } from "./issuer/compose.ts";
import type { Log } from "./log.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { type OperatorParts, startOperatorListener } from "./operator/listener.ts";
import { type OnClose, openState, type SidecarState } from "./state.ts";
import { openTlsFiles, type TlsFiles } from "./tls-files.ts";
import { VERSION } from "./version.ts";

/** What the composition root itself is given. */
export interface SidecarDeps {
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly log: Log;
  /** Of the public listener, where its socket is open already. */
  readonly listenFd?: number | undefined;
  /** Of `listen.http`, in the same way. */
  readonly plainFd?: number | undefined;
}

/** What every part of the composition shares. */
export interface Composition
  extends Omit<SidecarDeps, "listenFd" | "plainFd">, Pick<SidecarState, "secrets" | "tokenCrypto"> {
  readonly config: Config;
  readonly metrics: Metrics;
  readonly app: FastifyInstance;
  readonly proxies: TrustedProxies;
  /** Where clients are asked for certificates by server name. */
  readonly clients: Clients | undefined;
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
  return stoppable((onClose) => start(config, deps, onClose));
}

/** What is started closes in the reverse order, also where a later step of the start fails. */
export async function stoppable<T extends object>(
  start: (onClose: OnClose) => Promise<T>,
): Promise<T & { readonly stop: () => Promise<void> }> {
  const closers: (() => Promise<void> | void)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const close of closers.splice(0)) await close();
  };
  try {
    const running = await start((close) => closers.unshift(close));
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
  const { composition, parts, reload, state } = await composeService(config, deps, onClose);
  const { app, metrics } = composition;
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
  const tlsFiles = openTlsFiles(composition);
  const listener = createPublicListener(composition, { ...parts, tlsFiles });
  const { port } = await listener.listen(
    deps.listenFd === undefined ? config.listen : { fd: deps.listenFd },
  );
  ready = true;
  onClose(async () => {
    ready = false;
    await listener.drain(config.limits.drainSeconds * 1_000);
  });
  await openPlainHttp(composition, acme?.keyAuthorization, deps.plainFd);
  acme?.start(tlsFiles.reload);
  return {
    port,
    operatorAddress: operator.address,
    reloadCertificates: () => {
      tlsFiles.reload();
      reload();
    },
    metrics,
    closeSpentStore: () => state.spentStore?.close() ?? Promise.resolve(),
  };
}

/** Everything but the listeners. */
export async function composeService(
  config: Config,
  { clock, log }: Pick<SidecarDeps, "clock" | "log">,
  onClose: OnClose,
): Promise<{
  readonly composition: Composition;
  readonly parts: ComposedRoles;
  readonly state: SidecarState;
  /** Looks at the files that its parts have named. */
  readonly reload: () => void;
}> {
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
  const clients = openClients({ ...shared, onClose, onReload });
  const composition = { ...shared, clients, onClose, onReload };
  const parts = await composeRoles(composition, state);
  await app.ready();
  const reload = (): void => {
    for (const one of reloads) one();
  };
  return { composition, parts, state, reload };
}

/** What the roles of this process give to its listeners. */
interface ComposedRoles {
  readonly handler: EdgeHandler;
  readonly operator: OperatorParts;
  /** Of an edge. */
  readonly clearanceKeys?: ClearanceKeys | undefined;
  /** Those that redeem, of an edge. */
  readonly ring?: KeyRing | undefined;
  readonly privateVerifier?: PrivateTokenVerifier | undefined;
  /** Of the agents of an edge. */
  readonly usedSignatures: UsedSignatures;
}

async function composeRoles(composition: Composition, state: SidecarState): Promise<ComposedRoles> {
  const { app, clock, config, log, metrics } = composition;
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
  const usedSignatures = createUsedSignatures({
    agents: config.edge?.agents ?? [],
    waitMs: config.processes.keeperWaitSeconds * 1_000,
    clock,
  });
  const clearanceKeys = await composeClearanceKeys(composition, state);
  const edge =
    config.edge && state.spentStore && keys && clearanceKeys
      ? await composeEdge(composition, config.edge, {
          spentStore: state.spentStore,
          usedSignatures,
          ring: keys.ring,
          clearanceKeys: clearanceKeys.keyring,
          ...edgeFactsOf(config),
          ownEndpoints: (request, response) => app.routing(request, response),
          ...(issuer === undefined ? {} : { privateVerifier: issuer.pool }),
        })
      : undefined;
  registerJwks(app, () => [
    ...(attester === undefined ? [] : [attester.publicJwk]),
    ...(clearanceKeys?.keyring.all() ?? []).map(({ jwk }) => jwk),
    ...(issuer === undefined ? [] : [issuer.publicJwk]),
  ]);
  return {
    handler: edge ?? createOwnHandler((request, response) => app.routing(request, response)),
    clearanceKeys,
    ring: keys?.ring,
    privateVerifier: issuer?.pool,
    usedSignatures,
    operator: {
      ...(keys === undefined ? {} : { keys }),
      ...(clearanceKeys === undefined ? {} : { clearanceKeys }),
      ...(attester === undefined ? {} : { revocations: attester.revocations }),
      voprfEngines: issuer?.voprfEngines,
      ...(issuer?.attesters === undefined ? {} : { attesters: issuer.attesters }),
      metrics,
      log,
    },
  };
}

async function composeClearanceKeys(
  { clock, config, log, metrics, onClose, onReload, secrets }: Composition,
  { clearanceKeys }: SidecarState,
): Promise<ClearanceKeys | undefined> {
  if (config.edge === undefined || clearanceKeys === undefined) return undefined;
  const lasting = secrets.lastingClearanceKey;
  const isCopied = config.edge.clearanceKeys.copied;
  const deps = { ...clearanceKeys, lasting, isCopied, clock, log, metrics };
  const keys = await openClearanceKeys(deps);
  const ticks = setInterval(() => void keys.tick(), KEY_TICK_MS);
  onClose(() => clearInterval(ticks));
  onReload(() => void keys.tick());
  return keys;
}

/** What an edge has to know of the other roles, wherever they run. */
export function edgeFactsOf(config: Config): Pick<EdgeDeps, "hasWebAuthn" | "tokenTypes"> {
  return {
    tokenTypes: config.role === "edge" ? followedTypes(config.issuer) : config.issuer.tokenTypes,
    hasWebAuthn: config.attester?.webauthn.enabled ?? false,
  };
}

export function createPublicListener(
  composition: Pick<Composition, "clients" | "config" | "log" | "metrics" | "proxies">,
  { handler, tlsFiles }: { readonly handler: EdgeHandler; readonly tlsFiles: TlsFiles },
): Listener {
  const { config, metrics } = composition;
  const { certificates, ticketKeys } = tlsFiles;
  return createListener({
    certificates,
    ticketKeys,
    unknownName: config.tls.unknownName,
    limits: listenerLimits(config),
    front: composeFront(composition),
    handler: handler.handle,
    upgrade: handler.upgrade,
    ...(config.tls.http2
      ? { http2: { random: (length: number) => Uint8Array.from(randomBytes(length)) } }
      : {}),
    ...(handler.fastPath === undefined ? {} : { fastPath: handler.fastPath }),
    observe: (event) => metrics.tlsEvents.inc({ event }),
    // Of the attesters that may ask, which the issuer then looks at.
    asksForCertificates: config.role === "issuer",
    clients: composition.clients?.certificates,
    challenges: challengeCertificates(config),
  });
}
