/**
 * The {@link SpentStore} on Valkey or Redis (7.0 or newer), one server or a cluster: the fastest for many edges.
 * Epochs and their entries are in `spent-valkey-epochs.ts`; `stile:identity` says which store this is. Nothing
 * expires: an entry that did while its epoch is still spent in would make its token fresh.
 *
 * **Limits.** With `appendfsync always` an acknowledged spend survives a crash of the server. It does not survive
 * a failover to a replica that had not received it: replication is asynchronous, and `acknowledge` only makes
 * such a loss less likely (WAIT, WAITAOF), as the documentation of both says. Where that is too little,
 * PostgreSQL is the engine.
 *
 * A server that comes back empty would make every token fresh. So the store has an identity, drawn at its first
 * use and kept by each edge in a file: a server that has none, or another, is refused until the operator has
 * removed the file. On a cluster this guards the node that holds the identity, and no other.
 */
import { readFile } from "node:fs/promises";
import { Cluster, Valkey } from "iovalkey";
import type { SpentStore } from "../../tokens/index.ts";
import { encodeHex } from "../../wire/index.ts";
import { createFileDurably, hasCode } from "./durable-file.ts";
import {
  createSpentRemoteStore,
  DEFAULT_RETENTION_MS,
  epochEnded,
  type SpentDatabase,
  type SpentEntry,
  type SpentRemoteOptions,
  unavailable,
} from "./spent-remote.ts";
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
  /** Where this edge keeps the store's identity. */
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

const IDENTITY = "stile:identity";
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
    if (cause instanceof StateError) throw unavailable(cause.message);
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

/** The server answers, and not as it must. */
class StateError extends Error {}

class ValkeySpent implements SpentDatabase {
  readonly #client: ValkeyClient;
  readonly #options: SpentValkeyOptions;
  /** Epochs that the server has been asked to keep, in hexadecimal. */
  readonly #known = new Set<string>();
  #identity: Buffer | undefined;
  /** A server that was started anew may be another, or be set otherwise. */
  #isChecked = false;

  constructor(client: ValkeyClient, options: SpentValkeyOptions) {
    this.#client = client;
    this.#options = options;
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
    this.#identity ??= await readIdentity(this.#options.identityFile);
    if (this.#identity === undefined) {
      const drawn = Buffer.from(this.#options.newIdentity);
      await this.#client.call("SET", IDENTITY, drawn, "NX");
      const identity = await this.#client.getBuffer(IDENTITY);
      if (identity === null) throw new StateError("the server does not keep what it is told");
      await createFileDurably(this.#options.identityFile, identity);
      this.#identity = identity;
    }
    this.#refuseOther(await this.#client.getBuffer(IDENTITY));
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
    if (!this.#isChecked) await this.check();
    const isKept = await keepEpoch(this.#client, tokenKeyId, forMs, "GT");
    await this.#acknowledged();
    return isKept;
  }

  async drop(tokenKeyId: Uint8Array): Promise<void> {
    if (!this.#isChecked) await this.check();
    await endEpoch(this.#client, tokenKeyId);
    await this.#acknowledged();
  }

  async dropPast(graceMs: number): Promise<number> {
    if (!this.#isChecked) await this.check();
    const ended = await endPastEpochs(this.#client, graceMs);
    await this.#acknowledged();
    return ended;
  }

  close(): Promise<void> {
    this.#client.disconnect();
    return Promise.resolve();
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
    // All in one tick, so that they travel together; the server does them in this order.
    const [identity, ...inserted] = await Promise.all([
      this.#client.getBuffer(IDENTITY),
      ...entries.map(({ nonce, record }) =>
        this.#client.hsetnx(shardOf(tokenKeyId, nonce), Buffer.from(nonce), Buffer.from(record)),
      ),
    ]);
    this.#refuseOther(identity);
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
      if (count < replicas) throw new StateError("too few replicas acknowledged a spend");
    }
  }

  #masters(): readonly Valkey[] {
    return this.#client instanceof Cluster ? this.#client.nodes("master") : [this.#client];
  }

  #refuseOther(identity: Buffer | null): void {
    if (identity !== null && this.#identity?.equals(identity) === true) return;
    throw new StateError("the server has lost its data, or is not the one that was used before");
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
  throw new StateError(`the server could lose spends: it runs without ${wanted}`);
}

async function readIdentity(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}
