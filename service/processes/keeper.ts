/**
 * The keeper: everything of the service that has state, in one process. It holds the state folder, signs, answers
 * Stile's own endpoints, which workers pass on to it, and the operator, for whom it speaks for all processes.
 */
import { chmodSync, mkdirSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { Counter, Gauge } from "prom-client";
import { StileError } from "../../wire/index.ts";
import { composeAcme } from "../acme/compose.ts";
import type { Config } from "../config/index.ts";
import { refuse } from "../edge/refusal.ts";
import { tellPeer } from "../http/peer.ts";
import { openPlainHttp } from "../http/plain-listener.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { type OperatorParts, startOperatorListener } from "../operator/listener.ts";
import { problemOf } from "../problems.ts";
import { type Composition, composeService, stoppable } from "../sidecar.ts";
import type { OnClose } from "../state.ts";
import { createKeeperLinks, type KeeperLinks } from "./keeper-links.ts";
import type { StatusMessage } from "./messages.ts";
import { createSharedMetrics } from "./shared-metrics.ts";
import { parsePeer, PEER_HEADER } from "./told-peer.ts";
import { listenOnUnix } from "./unix-socket.ts";

export interface KeeperDeps {
  readonly clock: () => number;
  readonly log: Log;
  /** Hexadecimal; workers show it. */
  readonly linkKey: string;
  /** Of `listen.http`, where its socket is open already. */
  readonly plainFd?: number | undefined;
}

export interface Keeper {
  /** What the supervisor says of the others. */
  readonly hear: (status: StatusMessage) => void;
  /** First lets workers take their last answers. */
  readonly leave: (deadlineMs: number) => Promise<void>;
}

export interface KeeperPaths {
  /** For Stile's own endpoints: HTTP. */
  readonly http: string;
  readonly link: string;
}

/** Longer than a client's head by what a worker adds. */
const MAX_HEADER_BYTES = 32_768;

export function keeperPaths({ processes, stateDir }: Config): KeeperPaths {
  const dir = processes.socketDir ?? join(stateDir, "processes");
  return { http: join(dir, "http.sock"), link: join(dir, "link.sock") };
}

/** @throws as `startSidecar` */
export async function startKeeper(config: Config, deps: KeeperDeps): Promise<Keeper> {
  const { stop, ...keeper } = await stoppable((onClose) => start(config, deps, onClose));
  return {
    hear: keeper.hear,
    leave: async (deadlineMs) => {
      await keeper.links.goAway(deadlineMs);
      await stop();
    },
  };
}

async function start(
  config: Config,
  deps: KeeperDeps,
  onClose: OnClose,
): Promise<{ readonly hear: Keeper["hear"]; readonly links: KeeperLinks }> {
  const { composition, parts, state } = await composeService(config, deps, onClose);
  const { app, metrics, secrets } = composition;
  const paths = keeperPaths(config);
  makePrivateFolder(join(paths.link, ".."));
  const shared = createSharedMetrics();
  const links = createKeeperLinks({
    path: paths.link,
    key: deps.linkKey,
    facts: () => ({
      records: parts.ring?.records() ?? [],
      secrets,
      clearanceKeys: parts.clearanceKeys?.keyring.all() ?? [],
    }),
    spentStore: state.spentStore,
    privateVerifier: parts.privateVerifier,
    usedSignatures: parts.usedSignatures,
    metrics: shared,
    log: deps.log,
  });
  parts.ring?.onChange(links.tellFacts);
  parts.clearanceKeys?.keyring.onChange(links.tellFacts);
  const status = showStatus(metrics);
  const acme = config.acme && (await composeAcme(composition, config.acme));
  const operator = await startOperatorListener({
    ...parts.operator,
    ...toldClearanceKeys(parts.operator, links.whenHeard),
    certificates: acme?.status,
    collect: (own) => shared.all(own, links.askMetrics),
    listen: config.operator.listen,
    isReady: status.isReady,
    openapi: () => app.swagger(),
  });
  onClose(() => operator.close());
  await listenForWorkers(composition, { path: paths.http, key: deps.linkKey, onClose });
  // Last: a worker that has the facts may ask anything.
  await links.listen();
  await openPlainHttp(composition, acme?.keyAuthorization, deps.plainFd);
  // Workers find what is issued where they look for it, within tls.reloadSeconds.
  acme?.start(() => undefined);
  return { hear: status.hear, links };
}

/** The operator's command is done when workers take no clearance of a revoked key any more. */
function toldClearanceKeys(
  { clearanceKeys }: OperatorParts,
  whenHeard: () => Promise<void>,
): Pick<OperatorParts, "clearanceKeys"> {
  const changes = clearanceKeys?.changes;
  if (clearanceKeys === undefined || changes === undefined) return {};
  const revoke: typeof changes.revoke = async (kid) => {
    try {
      await changes.revoke(kid);
    } finally {
      // It holds whatever became of the file.
      await whenHeard();
    }
  };
  return { clearanceKeys: { ...clearanceKeys, changes: { ...changes, revoke } } };
}

/** Whoever may open the sockets in it could ask to be believed. */
function makePrivateFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    chmodSync(dir, 0o700);
  } catch (cause) {
    const message = `processes.socketDir ${dir}: it cannot be used`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}

async function listenForWorkers(
  { app }: Composition,
  {
    key,
    onClose,
    path,
  }: { readonly key: string; readonly path: string; readonly onClose: OnClose },
): Promise<void> {
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    try {
      tellPeer(request.socket, parsePeer(key, request.headers[PEER_HEADER]));
      delete request.headers[PEER_HEADER];
      app.routing(request, response);
    } catch (error) {
      refuse(request, response, problemOf(error), {});
    }
  };
  const server = createServer(
    // Workers have seen to heads and times, and close their connections themselves.
    { maxHeaderSize: MAX_HEADER_BYTES, keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 },
    handle,
  );
  await listenOnUnix(server, path);
  onClose(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
}

/** For the operator: how many workers serve, and what became of processes and reloads. */
function showStatus(metrics: Metrics): {
  readonly hear: Keeper["hear"];
  readonly isReady: () => boolean;
} {
  const { registry, reloads } = metrics;
  const workersReady = new Gauge({
    name: "stile_workers_ready",
    help: "workers that take connections",
    registers: [registry],
  });
  const exits = new Counter({
    name: "stile_process_exits_total",
    help: "processes that ended by themselves (crash) or gave no sign of life (hang)",
    labelNames: ["process", "reason"],
    registers: [registry],
  });
  let ready = 0;
  return {
    isReady: () => ready > 0,
    hear: (status) => {
      ready = status.workersReady;
      workersReady.set(ready);
      // They are the supervisor's, who outlives this process.
      reloads.reset();
      exits.reset();
      for (const [outcome, count] of Object.entries(status.reloads)) {
        reloads.inc({ outcome }, count);
      }
      for (const [what, count] of Object.entries(status.exits)) {
        const [process = "", reason = ""] = what.split(" ");
        exits.inc({ process, reason }, count);
      }
    },
  };
}
