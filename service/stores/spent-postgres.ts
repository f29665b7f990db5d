/**
 * The {@link SpentStore} on PostgreSQL, for many edges: strict, since an acknowledged insert survives a crash
 * of the server, and of the primary where a standby is synchronous.
 * ```
 * <schema>.epoch       one row for each token key that was ever used; it stays when the epoch is dropped
 * <schema>.spent_<id>  the nonces of one epoch: dropped whole, without a trace in the others
 * <schema>.store       which store this is
 * <schema>.edge        how many batches of spends each edge has made, counted by the statement that makes them
 * ```
 * By the two last, an edge recognises a server that was emptied or set back (`store-memory.ts`).
 * `epoch.keep_until` is by the server's clock, as is whether it is past: no edge's clock counts.
 * A row in `epoch` whose table is gone reads as loss, not as an empty epoch: spends of it fail closed until
 * the table is restored or the epoch dropped. All edges use one database; each statement is one transaction.
 */
import { type ClientConfig, Pool, type PoolClient } from "pg";
import type { SpentStore } from "../../tokens/index.ts";
import { encodeHex } from "../../wire/index.ts";
import {
  createSpentRemoteStore,
  DEFAULT_RETENTION_MS,
  epochEnded,
  type SpentDatabase,
  type SpentEntry,
  type SpentRemoteOptions,
  unavailable,
} from "./spent-remote.ts";
import { StoreMemory, type StoreState, StoreStateError } from "./store-memory.ts";

export interface SpentPostgresOptions extends SpentRemoteOptions {
  /** Where this edge keeps what it remembers of the store. */
  readonly identityFile: string;
  /** 16 bytes or more, fresh: the identity, where the store has none yet. */
  readonly newIdentity: Uint8Array;
  readonly connection: Pick<
    ClientConfig,
    "host" | "port" | "user" | "password" | "database" | "ssl"
  >;
  /** Created where it is missing; lower-case letters, digits and underscores. Default `stile`. */
  readonly schema?: string;
  /** Connections of this process. Default 4. */
  readonly maxConnections?: number;
  /** Milliseconds for a connection or a statement. Default 2,000. */
  readonly timeoutMs?: number;
  /** Accepts a server whose `fsync` or `full_page_writes` is off: a crash of it may forget spends. */
  readonly unsafeDurability?: boolean;
}

const SCHEMA_FORM = /^[a-z_][a-z0-9_]{0,40}$/;
/** Identifiers have at most 63 bytes: the first 28 bytes of a SHA-256, in hexadecimal, are unique enough. */
const TABLE_ID_CHARACTERS = 56;
/** An arbitrary number that names our advisory lock. */
const LOCK = 0x5354_494c;
const UNDEFINED_TABLE = "42P01";

/**
 * @throws `TOKEN_STORE_UNAVAILABLE` where the server cannot be reached, or would not keep what it acknowledges
 */
export async function openSpentPostgresStore(options: SpentPostgresOptions): Promise<SpentStore> {
  const { schema = "stile", timeoutMs = 2_000 } = options;
  if (!SCHEMA_FORM.test(schema)) throw new RangeError("schema: not a plain lower-case name");
  const pool = new Pool({
    ...options.connection,
    max: options.maxConnections ?? 4,
    connectionTimeoutMillis: timeoutMs,
    query_timeout: timeoutMs,
    statement_timeout: timeoutMs,
    keepAlive: true,
    application_name: "stile",
    // A role or database with another default would let an acknowledged spend be lost.
    options: "-c synchronous_commit=on",
  });
  // An idle connection that breaks is replaced by the next use; without a listener it would end the process.
  pool.on("error", () => undefined);
  const { retentionMs = DEFAULT_RETENTION_MS, unsafeDurability = false } = options;
  const memory = new StoreMemory(options.identityFile, unsafeDurability);
  const database = new PostgresSpent(pool, memory, schema, retentionMs);
  try {
    await memory.load();
    await database.prepare(unsafeDurability);
    await database.meet(options.newIdentity);
  } catch (cause) {
    await pool.end();
    if (cause instanceof StoreStateError) throw unavailable(cause.message);
    throw unavailable("the spent-token store cannot be opened", cause);
  }
  return createSpentRemoteStore(database, options);
}

class PostgresSpent implements SpentDatabase {
  readonly #pool: Pool;
  readonly #memory: StoreMemory;
  readonly #schema: string;
  readonly #retentionMs: number;
  /** Epochs that are known to exist, by their table. */
  readonly #known = new Set<string>();

  constructor(pool: Pool, memory: StoreMemory, schema: string, retentionMs: number) {
    this.#pool = pool;
    this.#memory = memory;
    this.#schema = schema;
    this.#retentionMs = retentionMs;
  }

  async prepare(unsafeDurability: boolean): Promise<void> {
    const { rows } = await this.#pool.query<{ name: string; setting: string }>(
      "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')",
    );
    const off = rows.filter(({ setting }) => setting !== "on").map(({ name }) => name);
    if (off.length > 0 && !unsafeDurability) {
      throw new StoreStateError(`PostgreSQL runs with ${off.join(", ")} off: spends could be lost`);
    }
    await this.#transaction(async (client) => {
      await client.query(`CREATE SCHEMA IF NOT EXISTS ${this.#schema}`);
      await client.query(
        `CREATE TABLE IF NOT EXISTS ${this.#schema}.epoch (
           key_id bytea PRIMARY KEY CHECK (octet_length(key_id) = 32),
           keep_until timestamptz NOT NULL,
           dropped boolean NOT NULL DEFAULT false)`,
      );
      await client.query(
        `CREATE TABLE IF NOT EXISTS ${this.#schema}.store (
           single boolean PRIMARY KEY DEFAULT true CHECK (single), identity bytea NOT NULL)`,
      );
      await client.query(
        `CREATE TABLE IF NOT EXISTS ${this.#schema}.edge (
           id bytea PRIMARY KEY, batches bigint NOT NULL)`,
      );
    });
  }

  /** @throws StoreStateError where this is not the store that it was, or as it was */
  async meet(newIdentity: Uint8Array): Promise<void> {
    if (this.#memory.isNew) {
      await this.#pool.query(
        `INSERT INTO ${this.#schema}.store (identity) VALUES ($1) ON CONFLICT DO NOTHING`,
        [Buffer.from(newIdentity)],
      );
      const { rows } = await this.#pool.query<{ identity: Buffer }>(
        `SELECT identity FROM ${this.#schema}.store`,
      );
      await this.#memory.meet(rows[0]?.identity);
    }
    await this.#compare();
  }

  async #compare(): Promise<void> {
    const least = this.#memory.counts();
    const { rows } = await this.#pool.query<StateRow>(
      `SELECT (SELECT identity FROM ${this.#schema}.store) AS identity,
              coalesce(sum(batches) FILTER (WHERE id = $1), 0) AS own,
              coalesce(sum(batches), 0) AS all
       FROM ${this.#schema}.edge`,
      [Buffer.from(this.#memory.edge())],
    );
    await this.#memory.check(stateIn(rows[0]), least);
  }

  async insert(
    tokenKeyId: Uint8Array,
    entries: readonly SpentEntry[],
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const table = this.#tableOf(tokenKeyId);
    if (!this.#known.has(table)) await this.#openEpoch(tokenKeyId, table);
    try {
      return await this.#insertInto(table, entries);
    } catch (error) {
      if (codeOf(error) !== UNDEFINED_TABLE) throw error;
      // Dropped by another edge, or lost: the list of epochs tells which.
      this.#known.delete(table);
      await this.#openEpoch(tokenKeyId, table);
      throw error;
    }
  }

  async drop(tokenKeyId: Uint8Array): Promise<void> {
    await this.#compare();
    const table = this.#tableOf(tokenKeyId);
    this.#known.delete(table);
    await this.#transaction(async (client) => {
      await client.query(
        `INSERT INTO ${this.#schema}.epoch (key_id, keep_until, dropped)
         VALUES ($1, clock_timestamp(), true) ON CONFLICT (key_id) DO UPDATE SET dropped = true`,
        [Buffer.from(tokenKeyId)],
      );
      await client.query(`DROP TABLE IF EXISTS ${table}`);
    });
  }

  /** The epoch is made where it is new, so that it can be found when it is past. */
  async keep(tokenKeyId: Uint8Array, forMs: number): Promise<boolean> {
    await this.#compare();
    const table = this.#tableOf(tokenKeyId);
    let isKept = false;
    await this.#transaction(async (client) => {
      const key = Buffer.from(tokenKeyId);
      const { rows } = await client.query<{ dropped: boolean }>(
        `UPDATE ${this.#schema}.epoch
         SET keep_until = greatest(keep_until, ${instantAfter("$2")})
         WHERE key_id = $1 RETURNING dropped`,
        [key, forMs],
      );
      const [epoch] = rows;
      isKept = epoch?.dropped !== true;
      if (epoch === undefined) await this.#createEpoch(client, key, table, forMs);
    });
    await this.#memory.save();
    return isKept;
  }

  async dropPast(graceMs: number): Promise<number> {
    await this.#compare();
    const past = `NOT dropped AND keep_until < ${instantAfter("$1")}`;
    const { rows } = await this.#pool.query<{ id: Buffer }>(
      `SELECT key_id AS id FROM ${this.#schema}.epoch WHERE ${past}`,
      [-graceMs],
    );
    let dropped = 0;
    for (const { id } of rows) {
      const table = this.#tableOf(id);
      await this.#transaction(async (client) => {
        // Once more, under the lock: an edge may have asked for it in between.
        const { rowCount } = await client.query(
          `UPDATE ${this.#schema}.epoch SET dropped = true WHERE ${past} AND key_id = $2`,
          [-graceMs, id],
        );
        if (rowCount === 0) return;
        await client.query(`DROP TABLE IF EXISTS ${table}`);
        dropped += 1;
      });
      this.#known.delete(table);
    }
    return dropped;
  }

  async close(): Promise<void> {
    await this.#pool.end();
    await this.#memory.save();
  }

  async #insertInto(
    table: string,
    entries: readonly SpentEntry[],
  ): Promise<(Uint8Array | undefined)[]> {
    const nonces = entries.map(({ nonce }) => Buffer.from(nonce));
    const records = entries.map(({ record }) => Buffer.from(record));
    const least = this.#memory.counts();
    // One statement and so one transaction: where the count is, the entries are. Each edge has a row of its own, so that
    // none waits for another's.
    const { rows } = await this.#pool.query<StateRow & { readonly fresh: Buffer[] }>({
      name: statementName("insert", table),
      text: `WITH entry AS (
               INSERT INTO ${table} (nonce, record) SELECT * FROM unnest($1::bytea[], $2::bytea[])
               ON CONFLICT DO NOTHING RETURNING nonce),
             mine AS (
               INSERT INTO ${this.#schema}.edge AS edge (id, batches) VALUES ($3, 1)
               ON CONFLICT (id) DO UPDATE SET batches = edge.batches + 1 RETURNING batches)
             SELECT (SELECT identity FROM ${this.#schema}.store) AS identity, batches AS own,
               batches + (SELECT coalesce(sum(other.batches), 0) FROM ${this.#schema}.edge AS other
                          WHERE other.id <> $3) AS all,
               ARRAY(SELECT nonce FROM entry) AS fresh
             FROM mine`,
      values: [nonces, records, Buffer.from(this.#memory.edge())],
    });
    const [answer] = rows;
    await this.#memory.check(stateIn(answer), { all: least.all + 1, own: least.own + 1 });
    const fresh = new Set((answer?.fresh ?? []).map((nonce) => nonce.toString("latin1")));
    const others = nonces.filter((nonce) => !fresh.has(nonce.toString("latin1")));
    if (others.length === 0) return entries.map(() => undefined);
    // A new snapshot: whoever made the conflict has committed, or there would have been none.
    const found = await this.#pool.query<{ nonce: Buffer; record: Buffer }>({
      name: statementName("select", table),
      text: `SELECT nonce, record FROM ${table} WHERE nonce = ANY($1::bytea[])`,
      values: [others],
    });
    const stored = new Map(
      found.rows.map(({ nonce, record }) => [nonce.toString("latin1"), Uint8Array.from(record)]),
    );
    return nonces.map((nonce) => {
      const name = nonce.toString("latin1");
      if (fresh.has(name)) return undefined;
      const record = stored.get(name);
      if (record === undefined) throw new Error("an entry was there and is not any more");
      return record;
    });
  }

  async #openEpoch(tokenKeyId: Uint8Array, table: string): Promise<void> {
    const key = [Buffer.from(tokenKeyId)];
    await this.#transaction(async (client) => {
      const { rows } = await client.query<{ dropped: boolean; present: boolean }>(
        `SELECT dropped, to_regclass('${table}') IS NOT NULL AS present
         FROM ${this.#schema}.epoch WHERE key_id = $1`,
        key,
      );
      const [epoch] = rows;
      if (epoch?.dropped === true) throw epochEnded();
      if (epoch?.present === false) throw new Error("the table of an epoch is missing");
      if (epoch === undefined) {
        await this.#createEpoch(client, Buffer.from(tokenKeyId), table, this.#retentionMs);
      }
    });
    this.#known.add(table);
  }

  async #createEpoch(client: PoolClient, key: Buffer, table: string, forMs: number): Promise<void> {
    await client.query(
      `INSERT INTO ${this.#schema}.epoch (key_id, keep_until) VALUES ($1, ${instantAfter("$2")})`,
      [key, forMs],
    );
    await client.query(
      `CREATE TABLE ${table} (
         nonce bytea PRIMARY KEY CHECK (octet_length(nonce) = 32), record bytea NOT NULL)`,
    );
  }

  /** One at a time among all edges: making and dropping tables is rare. */
  async #transaction(work: (client: PoolClient) => Promise<void>): Promise<void> {
    const client = await this.#pool.connect();
    // The pool listens only to idle connections: one that breaks in our hands must not end the process.
    const ignore = (): void => undefined;
    client.on("error", ignore);
    let failure: Error | undefined;
    try {
      await client.query("BEGIN");
      await client.query("SELECT pg_advisory_xact_lock($1)", [LOCK]);
      await work(client);
      await client.query("COMMIT");
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      throw error;
    } finally {
      // A connection that failed half way is closed, and the server rolls back.
      if (failure === undefined) client.off("error", ignore);
      client.release(failure);
    }
  }

  #tableOf(tokenKeyId: Uint8Array): string {
    return `${this.#schema}.spent_${encodeHex(tokenKeyId).slice(0, TABLE_ID_CHARACTERS)}`;
  }
}

/** Of type bigint and numeric, which come as text. */
interface StateRow {
  readonly identity: Buffer | null;
  readonly all: string;
  readonly own: string;
}

function stateIn(row: StateRow | undefined): StoreState {
  return { identity: row?.identity ?? undefined, all: Number(row?.all), own: Number(row?.own) };
}

/** @param parameter of milliseconds from now, by the server's clock and not by that of its transaction */
function instantAfter(parameter: string): string {
  return `clock_timestamp() + ${parameter} * interval '1 millisecond'`;
}

/** At most 63 bytes, too. */
function statementName(verb: string, table: string): string {
  return `${verb} ${table.slice(-TABLE_ID_CHARACTERS)}`;
}

function codeOf(error: unknown): string | undefined {
  return typeof error === "object" && error !== null && "code" in error
    ? String(error.code)
    : undefined;
}
