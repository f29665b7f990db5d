/**
 * The supervisor: holds the public socket, starts the keeper and the workers, replaces those that end or stand
 * still, and puts new ones in their place for a new configuration or new code. It sees no request and no secret of
 * the state folder; the key of tickets goes through it, since it has to outlive every other process.
 *
 * A change is all or nothing: new workers read what they need while the old ones serve, a keeper is replaced only
 * where its settings have changed, and only when every new worker takes connections do the old ones leave. Where
 * a step fails, what was there before goes on, or comes back.
 */
import { randomBytes } from "node:crypto";
import { createTicketKeys, type TicketKeySource } from "../../tls/index.ts";
import { StileError } from "../../wire/index.ts";
import type { Config } from "../config/index.ts";
import { errorFields, type Log } from "../log.ts";
import { Child } from "./child.ts";
import type { ReloadOutcome, StatusMessage } from "./messages.ts";
import { isKeepersSetting, keeperConfig, needsRestart, workerConfig } from "./process-settings.ts";
import { changedSettings, reloadFault } from "./settings.ts";
import { Slot } from "./slot.ts";

export interface SupervisorDeps {
  readonly log: Log;
  /** Of the public listener. */
  readonly listenFd: number;
  /** Of `listen.http`, where it is open already; without it, the keeper opens it. */
  readonly plainFd?: number | undefined;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly monotonicMs: () => number;
  /** No worker, or no keeper, can be started: the service has ended. */
  readonly onHopeless: () => void;
}

/** Children in a row that did not last, after which it is given up: some thirty seconds. */
const MAX_FAILURES = 8;
const LOOK_MS = 500;
const LINK_KEY_BYTES = 32;
/** At a stop, connections whose request is on its way have this long: the next service may wait for the port. */
const STOP_IDLE_MS = 1_000;
/** For the last answers of a keeper, before it closes its stores. */
const KEEPER_LEAVE_MS = 5_000;

export class Supervisor {
  readonly #deps: SupervisorDeps;
  readonly #linkKey = randomBytes(LINK_KEY_BYTES).toString("hex");
  readonly #leaving = new Set<Promise<void>>();
  readonly #reloads: Record<ReloadOutcome, number> = { ok: 0, failed: 0, "needs-restart": 0 };
  readonly #exits: Record<string, number> = {};
  #config: Config;
  #ticketKeys: TicketKeySource | undefined;
  #keeper: Slot | undefined;
  #workers: Slot[] = [];
  #isStopping = false;
  #lastId = 0;
  #lookedMs = 0;
  #look: NodeJS.Timeout | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(config: Config, deps: SupervisorDeps) {
    this.#config = config;
    this.#deps = deps;
  }

  /** @returns the port of the public listener. @throws what a child fails with */
  async start(): Promise<number> {
    this.#ticketKeys = this.#openTicketKeys(this.#config);
    const keeper = this.#fork("keeper", this.#config);
    const workers = this.#forkWorkers(this.#config);
    try {
      await openChild(keeper);
      this.#keeper = this.#slot("keeper", keeper);
      const ports = await Promise.all(workers.map(openChild));
      this.#workers = workers.map((worker) => this.#slot("worker", worker));
      this.#look = setInterval(() => this.#lookAtChildren(), LOOK_MS);
      this.#lookedMs = this.#deps.monotonicMs();
      this.#tellStatus();
      return ports[0] ?? 0;
    } catch (error) {
      for (const child of [...workers, keeper]) child.abandon();
      throw error;
    }
  }

  /** True while requests are served: by a worker, with a keeper, all of which give signs of life. */
  isWell(): boolean {
    const hangMs = this.#config.processes.hangSeconds * 1_000;
    const children = [this.#keeper, ...this.#workers].map((slot) => slot?.child);
    const [keeper, ...workers] = children;
    const isQuiet = children.some((child) => (child?.silentMs() ?? 0) > hangMs);
    return keeper?.isReady === true && workers.some((worker) => worker?.isReady) && !isQuiet;
  }

  /**
   * Takes another configuration, or none of it.
   * @param load reads it; what it throws leaves everything as it was
   * @param everything replaces also what has not changed: for new code, or the content of other files
   */
  reload(load: () => Config, everything: boolean): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#isStopping) return;
      const outcome = await this.#tryReload(load, everything);
      this.#reloads[outcome] += 1;
      this.#tellStatus();
    });
  }

  /** With what is under way, within the time to drain. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#inTurn(async () => {
      clearInterval(this.#look);
      this.#ticketKeys?.close();
      const drainMs = this.#config.limits.drainSeconds * 1_000;
      const workers = this.#workers.map((slot) => slot.close());
      const keeper = this.#keeper?.close();
      const idleMs = Math.min(drainMs, STOP_IDLE_MS);
      const ends = workers.map((worker) => worker.end(drainMs, idleMs));
      await Promise.all([...this.#leaving, ...ends]);
      await keeper?.end(KEEPER_LEAVE_MS, 0);
    });
  }

  async #tryReload(load: () => Config, everything: boolean): Promise<ReloadOutcome> {
    const { log } = this.#deps;
    try {
      const config = load();
      const changed = changedSettings(this.#config, config);
      const fixed = needsRestart(changed, config);
      if (fixed.length > 0) {
        log.write("error", "reload.needs-restart", { settings: fixed.join(", ") });
        return "needs-restart";
      }
      if (changed.length > 0 || everything) {
        await this.#apply(config, everything || changed.some(isKeepersSetting));
      } else for (const { child } of this.#workers) child.send({ kind: "reload-files" });
      log.write("info", "reloaded", { settings: changed.join(", ") });
      return "ok";
    } catch (error) {
      log.write("error", "reload.failed", reloadFault(error));
      return "failed";
    }
  }

  async #apply(config: Config, withKeeper: boolean): Promise<void> {
    const before = this.#config;
    const ticketKeys = this.#openTicketKeys(config);
    const next = this.#forkWorkers(config, ticketKeys);
    let hasNewKeeper = false;
    try {
      await Promise.all(next.map((worker) => worker.until("loaded")));
      if (withKeeper) {
        hasNewKeeper = true;
        await this.#replaceKeeper(config);
      }
      await Promise.all(next.map(openChild));
    } catch (error) {
      for (const worker of next) worker.abandon();
      if (ticketKeys !== this.#ticketKeys) ticketKeys?.close();
      if (hasNewKeeper) await this.#replaceKeeper(before);
      throw error;
    }
    this.#config = config;
    if (ticketKeys !== this.#ticketKeys) this.#ticketKeys?.close();
    this.#ticketKeys = ticketKeys;
    this.#putInPlace(next);
  }

  /** The new workers serve: the old ones take no more connections, and end with their last answers. */
  #putInPlace(next: readonly Child[]): void {
    const old = next.flatMap((worker, i) => {
      const slot = this.#workers[i];
      if (slot !== undefined) return slot.replace(worker);
      this.#workers.push(this.#slot("worker", worker));
      return [];
    });
    for (const slot of this.#workers.splice(next.length)) old.push(slot.close());
    const drainMs = this.#config.limits.drainSeconds * 1_000;
    for (const worker of old) {
      // Clients that are connected may ask once more, and learn then that the connection ends.
      const leaving = worker.end(drainMs, drainMs);
      this.#leaving.add(leaving);
      void leaving.then(() => this.#leaving.delete(leaving));
    }
    this.#tellStatus();
  }

  /** The state folder is one process's at a time: the successor waits, its modules loaded, until it is free. */
  async #replaceKeeper(config: Config): Promise<void> {
    const slot = this.#keeper;
    if (slot === undefined) throw new TypeError("there is no keeper before the start");
    const next = this.#fork("keeper", config);
    try {
      await next.until("loaded");
      const before = slot.replace(next);
      await before.end(KEEPER_LEAVE_MS, 0);
      await openChild(next);
    } catch (error) {
      next.kill();
      throw error;
    } finally {
      this.#tellStatus();
    }
  }

  #forkWorkers(config: Config, ticketKeys = this.#ticketKeys): Child[] {
    const { workers } = config.processes;
    return Array.from({ length: workers }, () => this.#fork("worker", config, ticketKeys));
  }

  #fork(role: "keeper" | "worker", config: Config, ticketKeys = this.#ticketKeys): Child {
    const { listenFd, monotonicMs, plainFd } = this.#deps;
    this.#lastId += 1;
    const start = { kind: "start", role, id: this.#lastId, linkKey: this.#linkKey } as const;
    if (role === "keeper") {
      const hasSocket = plainFd !== undefined;
      const keeperStart = { ...start, hasSocket, config: keeperConfig(config) };
      return new Child({ start: keeperStart, socketFd: plainFd, monotonicMs });
    }
    const ticketKey = ticketKeys && {
      ticketKey: Buffer.from(ticketKeys.current()).toString("hex"),
    };
    return new Child({
      start: { ...start, ...ticketKey, hasSocket: true, config: workerConfig(config) },
      socketFd: listenFd,
      monotonicMs,
    });
  }

  #slot(role: "keeper" | "worker", child: Child): Slot {
    const { log, monotonicMs } = this.#deps;
    const options = {
      start: () => this.#fork(role, this.#config),
      open: async (started: Child) => void (await openChild(started)),
      monotonicMs,
      onExit: (reason: string) => {
        const what = `${role} ${reason}`;
        this.#exits[what] = (this.#exits[what] ?? 0) + 1;
        log.write("error", "process.ended", { what: role, reason });
      },
      onChange: () => this.#tellStatus(),
    };
    return new Slot(options, child);
  }

  #lookAtChildren(): void {
    const nowMs = this.#deps.monotonicMs();
    const slots = [this.#keeper, ...this.#workers].filter((slot) => slot !== undefined);
    // A machine that slept, or a supervisor that was stopped, has heard nobody.
    const wasAway = nowMs - this.#lookedMs > 4 * LOOK_MS;
    this.#lookedMs = nowMs;
    for (const { child } of slots) {
      if (wasAway) child.forgiveSilence();
      else if (child.silentMs() > this.#config.processes.hangSeconds * 1_000) child.kill("hang");
    }
    const isHopeless = (some: readonly (Slot | undefined)[]): boolean =>
      some.every((slot) => (slot?.failures ?? 0) >= MAX_FAILURES);
    if (isHopeless([this.#keeper]) || isHopeless(this.#workers)) {
      this.#deps.log.write("error", "processes.hopeless");
      this.#deps.onHopeless();
    }
  }

  #tellStatus(): void {
    const status: StatusMessage = {
      kind: "status",
      workersReady: this.#workers.filter(({ child }) => child.isReady).length,
      reloads: this.#reloads,
      exits: this.#exits,
    };
    this.#keeper?.child.send(status);
  }

  /** The same as before where the settings are. */
  #openTicketKeys(config: Config): TicketKeySource | undefined {
    const { ticketKeyFile, ticketKeySeconds } = config.tls;
    if (ticketKeyFile !== undefined) return undefined;
    const before = this.#config.tls.ticketKeySeconds;
    if (this.#ticketKeys !== undefined && before === ticketKeySeconds) return this.#ticketKeys;
    const ticketKeys = createTicketKeys({
      seconds: ticketKeySeconds,
      pollMs: config.tls.reloadSeconds * 1_000,
      clock: this.#deps.clock,
      random: (length) => Uint8Array.from(randomBytes(length)),
      observe: (event) => this.#deps.log.write("info", event),
    });
    ticketKeys.onChange(() => {
      const ticketKey = Buffer.from(ticketKeys.current()).toString("hex");
      for (const { child } of this.#workers) child.send({ kind: "ticket-key", ticketKey });
    });
    return ticketKeys;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch((error: unknown) => {
      this.#deps.log.write("error", "processes.failed", errorFields(error));
    });
    return mine;
  }
}

/** @returns the port, of a worker */
async function openChild(child: Child): Promise<number> {
  await child.until("loaded");
  child.send({ kind: "open" });
  await child.until("ready");
  const { port } = child;
  if (child.role === "worker" && port === undefined) {
    throw new StileError("SERVICE_PROCESS_FAILED", "a worker does not say where it listens");
  }
  return port ?? 0;
}
