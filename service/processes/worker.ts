/**
 * A worker: TLS, rules, clearance, tokens, forwarding. It has no state of its own that matters: spends, private
 * token types and Stile's own endpoints are the keeper's.
 */
import { fastify } from "fastify";
import type { TicketKeySource } from "../../tls/index.ts";
import { createKeyRing } from "../../tokens/index.ts";
import { createNodeTokenCrypto } from "../../tokens/node/index.ts";
import { openClients } from "../client-certificates.ts";
import type { Config } from "../config/index.ts";
import { createClearanceKeyring } from "../edge/clearance-keyring.ts";
import { composeEdge } from "../edge/compose.ts";
import type { EdgeHandler } from "../edge/handler.ts";
import { createOwnHandler } from "../http/own-handler.ts";
import type { Log } from "../log.ts";
import { createMetrics, type Metrics } from "../metrics.ts";
import { trustedNetworks } from "../front.ts";
import { type Composition, createPublicListener, edgeFactsOf, stoppable } from "../sidecar.ts";
import type { OnClose } from "../state.ts";
import { openTlsFiles } from "../tls-files.ts";
import { haveSameSecrets, type KeeperFacts } from "./facts.ts";
import { keeperPaths } from "./keeper.ts";
import { createKeeperLink, type KeeperLink } from "./keeper-link.ts";
import { createOwnEndpoints } from "./own-endpoints.ts";

export interface WorkerDeps {
  readonly clock: () => number;
  readonly monotonicMs: () => number;
  readonly log: Log;
  /** Its number, which the keeper knows it by. */
  readonly id: number;
  /** Hexadecimal. */
  readonly linkKey: string;
  /** Of session tickets, where no file has them. */
  readonly ticketKeys: TicketKeySource | undefined;
  /** The keeper has other secrets than those that this worker was composed with: it is of no use any more. */
  readonly onOutdated: () => void;
}

/** Its files were read; it has asked nobody, and takes no connections. */
export interface LoadedWorker {
  /** @throws as `composeEdge` */
  readonly open: (fd: number) => Promise<{ readonly port: number }>;
  readonly reloadFiles: () => void;
  readonly leave: (deadlineMs: number, idleMs: number) => Promise<void>;
}

export async function loadWorker(config: Config, deps: WorkerDeps): Promise<LoadedWorker> {
  const { stop, ...loaded } = await stoppable((onClose) =>
    Promise.resolve(load(config, deps, onClose)),
  );
  return {
    open: loaded.open,
    reloadFiles: loaded.reloadFiles,
    leave: async (deadlineMs, idleMs) => {
      await loaded.drain(deadlineMs, idleMs);
      await stop();
    },
  };
}

function load(
  config: Config,
  deps: WorkerDeps,
  onClose: OnClose,
): Omit<LoadedWorker, "leave"> & { readonly drain: LoadedWorker["leave"] } {
  const metrics = createMetrics();
  const tlsFiles = openTlsFiles({ ...deps, config, metrics, onClose }, deps.ticketKeys);
  const reloads = [tlsFiles.reload];
  const onReload = (reload: () => void): void => void reloads.push(reload);
  const proxies = trustedNetworks(config, "trustedProxies");
  const clients = openClients({ ...deps, config, metrics, onClose, onReload });
  const parts = { clients, config, log: deps.log, metrics, onClose, onReload, proxies };
  let drain: LoadedWorker["leave"] = () => Promise.resolve();
  return {
    reloadFiles: () => {
      for (const reload of reloads) reload();
    },
    drain: (deadlineMs, idleMs) => drain(deadlineMs, idleMs),
    open: async (fd) => {
      const { handler, link } = await compose(parts, deps);
      const listener = createPublicListener(parts, { handler, tlsFiles });
      drain = async (deadlineMs, idleMs) => {
        await listener.drain(deadlineMs, idleMs);
        await link.close();
      };
      return listener.listen({ fd });
    },
  };
}

/** What the listener and the edge behind it have in common. */
type PartsOfBoth = "clients" | "config" | "log" | "metrics" | "onClose" | "onReload" | "proxies";

async function compose(
  parts: Pick<Composition, PartsOfBoth>,
  deps: WorkerDeps,
): Promise<{ readonly handler: EdgeHandler; readonly link: KeeperLink }> {
  const { config, log, metrics, onClose } = parts;
  const { clock } = deps;
  const { facts, link, onLater } = await meetKeeper(config, deps, metrics);
  const ring = createKeyRing({ records: facts.records, clock });
  const clearanceKeys = createClearanceKeyring(clock);
  clearanceKeys.replace(facts.clearanceKeys);
  onLater((later) => {
    if (!haveSameSecrets(later.secrets, facts.secrets)) return deps.onOutdated();
    ring.replace(later.records);
    clearanceKeys.replace(later.clearanceKeys);
  });
  const own = createOwnEndpoints({
    path: keeperPaths(config).http,
    key: deps.linkKey,
    link,
    log,
  });
  onClose(own.close);
  if (config.edge === undefined) return { handler: createOwnHandler(own.handle), link };
  const composition = {
    ...parts,
    clock,
    secrets: facts.secrets,
    tokenCrypto: createNodeTokenCrypto(),
    // Where routes are registered that the keeper answers: nothing is ever routed here.
    app: fastify(),
  };
  const handler = await composeEdge(composition, config.edge, {
    ...edgeFactsOf(config),
    spentStore: link,
    usedSignatures: link,
    ring,
    clearanceKeys,
    // Their keys are the issuer's, and that is the keeper.
    ...(config.role === "joint" ? { privateVerifier: link } : {}),
    ownEndpoints: own.handle,
  });
  return { handler, link };
}

/** @throws `SERVICE_OVERLOADED` where there is none in time */
async function meetKeeper(
  config: Config,
  { id, linkKey, log, monotonicMs }: WorkerDeps,
  metrics: Metrics,
): Promise<{
  readonly facts: KeeperFacts;
  readonly link: KeeperLink;
  readonly onLater: (listener: (facts: KeeperFacts) => void) => void;
}> {
  let facts: KeeperFacts | undefined;
  let later = (next: KeeperFacts): void => {
    facts = next;
  };
  const link = createKeeperLink({
    path: keeperPaths(config).link,
    key: linkKey,
    worker: id,
    waitMs: config.processes.keeperWaitSeconds * 1_000,
    monotonicMs,
    onFacts: (next) => later(next),
    metrics: () => metrics.registry.getMetricsAsJSON(),
    log,
  });
  await link.whenUp();
  if (facts === undefined) throw new TypeError("a link is up once it has the facts");
  return {
    facts,
    link,
    onLater: (listener) => {
      later = listener;
    },
  };
}
