/** The spent store that the configuration names. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { SpentStore } from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import type { SpentStoreConfig } from "../config/index.ts";
import type { GroupCommitObserver } from "./group-commit.ts";
import { openSpentLevelStore } from "./spent-level.ts";

export interface OpenSpentOptions {
  readonly config: SpentStoreConfig;
  /** Unix milliseconds; of the embedded engine only. Others have the clock of their server. */
  readonly clock: () => number;
  readonly stateDir: string;
  /** Milliseconds after its spend for which no token can be redeemed any more at the latest. */
  readonly retentionMs: number;
  readonly observe: GroupCommitObserver;
}

const IDENTITY_BYTES = 16;

/**
 * A client of a database that is not used is not loaded.
 * @throws `SERVICE_CONFIG_INVALID`, `TOKEN_STORE_UNAVAILABLE`
 */
export async function openSpentStore(options: OpenSpentOptions): Promise<SpentStore> {
  const { clock, config, observe, retentionMs, stateDir } = options;
  if (config.engine === "embedded") {
    return openSpentLevelStore({ folder: join(stateDir, "spent"), clock, retentionMs, observe });
  }
  const servers = config.servers.map((server) => parseServer(server));
  const [first] = servers;
  if (first === undefined) throw invalid(`servers: expected where ${config.engine} is`);
  const password = readText(config.passwordFile)?.replace(/\r?\n$/, "");
  const ca = readText(config.caFile);
  const { database, unsafeDurability, user } = config;
  const shared = {
    identityFile: join(stateDir, `spent-${config.engine}.identity`),
    newIdentity: Uint8Array.from(randomBytes(IDENTITY_BYTES)),
    retentionMs,
    unsafeDurability,
    observe,
  };
  if (config.engine === "postgres") {
    if (servers.length > 1) throw invalid("servers: one, of PostgreSQL");
    const connection = {
      ...first,
      database,
      ...(user === undefined ? {} : { user }),
      ...(password === undefined ? {} : { password }),
      ...(ca === undefined ? {} : { ssl: { ca } }),
    };
    const { openSpentPostgresStore } = await import("./spent-postgres.ts");
    return openSpentPostgresStore({ ...shared, connection });
  }
  const { openSpentValkeyStore } = await import("./spent-valkey.ts");
  return openSpentValkeyStore({
    nodes: servers,
    cluster: config.cluster,
    username: user,
    password,
    tlsCa: ca,
    ...shared,
    ...(config.replicas === 0
      ? {}
      : { acknowledge: { replicas: config.replicas, aof: config.replicasOnDisk } }),
  });
}

function parseServer(server: string): { readonly host: string; readonly port: number } {
  if (server.startsWith("/")) return { host: server, port: 5_432 };
  const url = URL.parse(`tcp://${server}`);
  const port = Number(url?.port ?? "");
  if (url === null || url.hostname === "" || port === 0 || url.pathname !== "") {
    throw invalid("servers: expected host:port");
  }
  return { host: url.hostname.replace(/^\[(.*)\]$/, "$1"), port };
}

function readText(file: string | undefined): string | undefined {
  if (file === undefined) return undefined;
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new StileError(
      "SERVICE_CONFIG_INVALID",
      `configuration: edge.spentStore: cannot read ${file}`,
      { cause },
    );
  }
}

function invalid(reason: string): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `configuration: edge.spentStore.${reason}`);
}
