/**
 * The {@link SpentStore} on Valkey or Redis (7.0 or newer), one server or a cluster: the fastest for many edges.
 * Epochs and their entries are in `spent-valkey-epochs.ts`; what says which store this is, below. Nothing
 * expires: an entry that did while its epoch is still spent in would make its token fresh.
 *
 * **Limits.** With `appendfsync always` an acknowledged spend survives a crash of the server. It does not survive
 * a failover to a replica that had not received it: replication is asynchronous, and `acknowledge` only makes
 * such a loss less likely (WAIT, WAITAOF), as the documentation of both says. Where that is too little,
 * PostgreSQL is the engine.
 *
 * A server that comes back empty, or as it was before, would make tokens fresh that were spent. So each edge remembers
 * which store it was and how far it had come (`store-memory.ts`): `{stile}:identity`, and `{stile}:batches`, a hash of the
 * batches of each edge and of all. On a cluster this guards the node that holds them, and no other.
 */
import { Cluster, Valkey } from "iovalkey";
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
import { StoreMemory, StoreStateError } from "./store-memory.ts";
import {
  endEpoch,
  endPastEpochs,
  isEnded,
  keepEpoch,
  shardOf,
  type ValkeyClient,
} from "./spent-valkey-epochs.ts";

export interface SpentValkeyOptions extends SpentRemoteOptions {
  /** One server, or some nodes of a cluster. */
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly cluster?: boolean;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** PEM of the CAs that a TLS server is verified with; undefined: no TLS. */
  readonly tlsCa?: string | undefined;
  /** Where this edge keeps what it remembers of the store. */
  readonly identityFile: string;
  /** 16 bytes or more, fresh: the identity, where the store has none yet. */
  readonly newIdentity: Uint8Array;
  /** Replicas that must have a spend before it is answered, on each node; `aof`: on their disk (7.2). */
  readonly acknowledge?: { readonly replicas: number; readonly aof: boolean };
  /** Milliseconds for a connection or a command. Default 2,000. */
  readonly timeoutMs?: number;
  /** Accepts servers that may forget or evict what they acknowledged. */
  readonly unsafeDurability?: boolean;
}

/** One slot of a cluster. */
const IDENTITY = "{stile}:identity";
const BATCHES = "{stile}:batches";
const ALL = "all";
const MAX_RETRY_MS = 1_000;
/** What a server has to say of itself to keep what it acknowledges. */
const DURABLE = {
  appendonly: "yes",
  appendfsync: "always",
  "maxmemory-policy": "noeviction",
} as const;

/**
 * @throws `TOKEN_STORE_UNAVAILABLE` where a server cannot be reached, would not keep what it acknowledges, or
 * is not the one that was used before
 */
export async function openSpentValkeyStore(options: SpentValkeyOptions): Promise<SpentStore> {
  const client = createClient(options);
  // Commands report what fails; without a listener each broken connection would be printed.
  client.on("error", () => undefined);
  const database = new ValkeySpent(client, options);
  try {
    await client.connect();
    await database.check();
  } catch (cause) {
    client.disconnect();
    if (cause instanceof StoreStateError) throw unavailable(cause.message);
    throw unavailable("the spent-token store cannot be opened", cause);
  }
  return createSpentRemoteStore(database, options);
}

function createClient(options: SpentValkeyOptions): ValkeyClient {
  const { password, timeoutMs = 2_000, tlsCa, username } = options;
  const connection = {
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    connectTimeout: timeoutMs,
    commandTimeout: timeoutMs,
    maxRetriesPerRequest: 0,
    // What was under way when a connection broke has an unknown fate: it is refused, and never sent again.
    autoResendUnfulfilledCommands: false,
    ...(tlsCa === undefined ? {} : { tls: { ca: tlsCa } }),
  };
  const retry = (times: number): number => Math.min(50 * 2 ** Math.min(times, 8), MAX_RETRY_MS);
  const common = { lazyConnect: true, enableOfflineQueue: false };
  if (options.cluster === true) {
    return new Cluster([...options.nodes], {
      ...common,
      clusterRetryStrategy: retry,
      redisOptions: connection,
    });
  }
  return new Valkey({ ...options.nodes[0], ...connection, ...common, retryStrategy: retry });
}

class ValkeySpent implements SpentDatabase {
  readonly #client: ValkeyClient;
  readonly #options: SpentValkeyOptions;
  /** Epochs that the server has been asked to keep, in hexadecimal. */
  readonly #known = new Set<string>();
  readonly #memory: StoreMemory;
  /** A server that was started anew may be another, or be set otherwise. */
  #isChecked = false;

  constructor(client: ValkeyClient, options: SpentValkeyOptions) {
    this.#client = client;
    this.#options = options;
    this.#memory = new StoreMemory(options.identityFile, options.unsafeDurability ?? false);
    const doubt = (): void => {
      this.#isChecked = false;
    };
    client.on("close", doubt);
    client.on("-node", doubt);
    client.on("+node", doubt);
  }

  async check(): Promise<void> {
    if (this.#options.unsafeDurability !== true) {
      for (const node of this.#masters()) await checkDurable(node);
    }
    if (this.#memory.isNew) await this.#memory.load();
    if (this.#memory.isNew) {
      await this.#client.call("SET", IDENTITY, Buffer.from(this.#options.newIdentity), "NX");
      await this.#memory.meet((await this.#client.getBuffer(IDENTITY)) ?? undefined);
    }
    await this.#compare();
    this.#isChecked = true;
  }

  async insert(
    tokenKeyId: Uint8Array,
    entries: readonly SpentEntry[],
  ): Promise<readonly (Uint8Array | undefined)[]> {
    if (!this.#isChecked) await this.check();
    await this.#openEpoch(tokenKeyId);
    try {
      const found = await this.#insertInto(tokenKeyId, entries);
      await this.#acknowledged();
      return found;
    } catch (error) {
      if (!isEnded(error)) throw error;
      throw epochEnded();
    }
  }

  async keep(tokenKeyId: Uint8Array, forMs: number): Promise<boolean> {
    await this.#look();
    const isKept = await keepEpoch(this.#client, tokenKeyId, forMs, "GT");
    await this.#acknowledged();
    await this.#memory.save();
    return isKept;
  }

  async drop(tokenKeyId: Uint8Array): Promise<void> {
    await this.#look();
    await endEpoch(this.#client, tokenKeyId);
    await this.#acknowledged();
  }

  async dropPast(graceMs: number): Promise<number> {
    await this.#look();
    const ended = await endPastEpochs(this.#client, graceMs);
    await this.#acknowledged();
    return ended;
  }

  async close(): Promise<void> {
    this.#client.disconnect();
    await this.#memory.save();
  }

  /** An epoch that nobody has said anything about is kept, too, and found when it is past. */
  async #openEpoch(tokenKeyId: Uint8Array): Promise<void> {
    const id = encodeHex(tokenKeyId);
    if (this.#known.has(id)) return;
    const { retentionMs = DEFAULT_RETENTION_MS } = this.#options;
    if (!(await keepEpoch(this.#client, tokenKeyId, retentionMs, "NX"))) throw epochEnded();
    this.#known.add(id);
  }

  async #insertInto(
    tokenKeyId: Uint8Array,
    entries: readonly SpentEntry[],
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const least = this.#memory.counts();
    const edge = encodeHex(this.#memory.edge());
    // All in one tick, so that they travel together; the server does them in this order, and so the counts last: a log
    // that was cut off within a batch has them not.
    const asked = this.#client.getBuffer(IDENTITY);
    const inserting = entries.map(({ nonce, record }) =>
      this.#client.hsetnx(shardOf(tokenKeyId, nonce), Buffer.from(nonce), Buffer.from(record)),
    );
    const counting = [edge, ALL].map((name) => this.#client.hincrby(BATCHES, name, 1));
    const [identity, [own = 0, all = 0], inserted] = await Promise.all([
      asked,
      Promise.all(counting),
      Promise.all(inserting),
    ]);
    const state = { identity: identity ?? undefined, all, own };
    await this.#memory.check(state, { all: least.all + 1, own: least.own + 1 });
    // An entry that is there never changes, so that a second look sees what made the conflict.
    return Promise.all(
      entries.map(async ({ nonce }, i) => {
        if (inserted[i] === 1) return undefined;
        const record = await this.#client.hgetBuffer(
          shardOf(tokenKeyId, nonce),
          Buffer.from(nonce),
        );
        if (record === null) throw new Error("an entry was there and is not any more");
        return Uint8Array.from(record);
      }),
    );
  }

  async #acknowledged(): Promise<void> {
    const { acknowledge, timeoutMs = 2_000 } = this.#options;
    if (acknowledge === undefined) return;
    const { aof, replicas } = acknowledge;
    for (const node of this.#masters()) {
      const count = aof
        ? Number(((await node.waitaof(1, replicas, timeoutMs)) as readonly unknown[])[1])
        : await node.wait(replicas, timeoutMs);
      if (count < replicas) throw new StoreStateError("too few replicas acknowledged a spend");
    }
  }

  #masters(): readonly Valkey[] {
    return this.#client instanceof Cluster ? this.#client.nodes("master") : [this.#client];
  }

  async #look(): Promise<void> {
    // It compares, too.
    await (this.#isChecked ? this.#compare() : this.check());
  }

  async #compare(): Promise<void> {
    const least = this.#memory.counts();
    const [identity, [own, all]] = await Promise.all([
      this.#client.getBuffer(IDENTITY),
      this.#client.hmget(BATCHES, encodeHex(this.#memory.edge()), ALL),
    ]);
    const counts = { all: Number(all ?? 0), own: Number(own ?? 0) };
    await this.#memory.check({ identity: identity ?? undefined, ...counts }, least);
  }
}

async function checkDurable(node: Valkey): Promise<void> {
  const settings = await Promise.all(
    Object.keys(DURABLE).map(async (name) => (await node.config("GET", name)) as string[]),
  );
  const found = new Map(settings.map(([name = "", value = ""]) => [name, value]));
  const wrong = Object.entries(DURABLE).filter(([name, value]) => found.get(name) !== value);
  if (wrong.length === 0) return;
  const wanted = wrong.map(([name, value]) => `${name} ${value}`).join(", ");
  throw new StoreStateError(`the server could lose spends: it runs without ${wanted}`);
}
