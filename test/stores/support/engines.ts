/** The engines of the spent store, each as what a test needs of it. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSpentLevelStore } from "../../../service/stores/index.ts";
import {
  openSpentPostgresStore,
  type SpentPostgresOptions,
} from "../../../service/stores/spent-postgres.ts";
import {
  openSpentValkeyStore,
  type SpentValkeyOptions,
} from "../../../service/stores/spent-valkey.ts";
import { afterAll, afterEach, beforeAll } from "vitest";
import type { SpentStore } from "../../../tokens/index.ts";
import {
  type DatabaseServer,
  postgresMissing,
  startPostgres,
  startValkey,
  valkeyMissing,
} from "./servers.ts";

export interface EpochOptions {
  readonly graceMs?: number;
  readonly retentionMs?: number;
  /** Of the embedded engine, which has no server's clock. */
  readonly settleMs?: number;
  readonly clock?: () => number;
  readonly monotonicMs?: () => number;
}

export interface RunningEngine {
  /** Opens the store; of a shared engine, as one edge among several. */
  readonly open: (edge?: string, options?: EpochOptions) => Promise<SpentStore>;
  /** Undefined for the embedded engine. */
  readonly server: DatabaseServer | undefined;
  readonly stop: () => Promise<void>;
}

export interface Engine {
  readonly name: string;
  readonly isMissing: boolean;
  readonly isShared: boolean;
  readonly start: () => Promise<RunningEngine>;
}

export interface EngineInUse {
  readonly running: () => RunningEngine;
  /** Closed behind the test. */
  readonly open: RunningEngine["open"];
  readonly closeAll: () => Promise<void>;
}

/** Runs one for the tests of a suite; not where it is missing. */
export function useEngine({ isMissing, start }: Engine): EngineInUse {
  let engine: RunningEngine | undefined;
  const opened: SpentStore[] = [];
  const running = (): RunningEngine => {
    if (engine === undefined) throw new Error("the engine does not run");
    return engine;
  };
  const closeAll = async (): Promise<void> => {
    for (const store of opened.splice(0)) await store.close();
  };
  beforeAll(async () => {
    if (!isMissing) engine = await start();
  }, 30_000);
  afterEach(closeAll);
  afterAll(() => engine?.stop());
  return {
    running,
    closeAll,
    open: async (edge, options) => {
      const store = await running().open(edge, options);
      opened.push(store);
      return store;
    },
  };
}

export function valkeyOptions(server: DatabaseServer, identityFile: string): SpentValkeyOptions {
  return {
    nodes: [{ host: "127.0.0.1", port: server.port }],
    identityFile,
    newIdentity: Uint8Array.from(randomBytes(16)),
  };
}

export function postgresOptions(
  server: DatabaseServer,
  identityFile: string,
): SpentPostgresOptions {
  const newIdentity = Uint8Array.from(randomBytes(16));
  return { connection: postgresConnection(server), identityFile, newIdentity };
}

export const postgresConnection = (
  server: DatabaseServer,
): {
  host: string;
  port: number;
  user: string;
  database: string;
} => ({ host: "127.0.0.1", port: server.port, user: "stile", database: "postgres" });

export const ENGINES: readonly Engine[] = [
  {
    name: "the embedded engine",
    isMissing: false,
    isShared: false,
    start: () => {
      const folder = mkdtempSync(join(tmpdir(), "stile-engine-"));
      return Promise.resolve({
        open: (_edge, options = {}) => openSpentLevelStore({ folder, ...options }),
        server: undefined,
        stop: () => Promise.resolve(rmSync(folder, { recursive: true, force: true })),
      });
    },
  },
  {
    name: "PostgreSQL",
    isMissing: postgresMissing,
    isShared: true,
    start: async () => {
      const folder = mkdtempSync(join(tmpdir(), "stile-engine-"));
      const server = await startPostgres();
      return {
        open: (edge = "edge", options = {}) =>
          openSpentPostgresStore({ ...options, ...postgresOptions(server, join(folder, edge)) }),
        server,
        stop: async () => {
          await server.stop();
          rmSync(folder, { recursive: true, force: true });
        },
      };
    },
  },
  {
    name: "Valkey or Redis",
    isMissing: valkeyMissing,
    isShared: true,
    start: async () => {
      const folder = mkdtempSync(join(tmpdir(), "stile-engine-"));
      const server = await startValkey();
      return {
        open: (edge = "edge", options = {}) =>
          openSpentValkeyStore({ ...options, ...valkeyOptions(server, join(folder, edge)) }),
        server,
        stop: async () => {
          await server.stop();
          rmSync(folder, { recursive: true, force: true });
        },
      };
    },
  },
];
