/** Servers that would not keep what they acknowledge, that lost it, or that are many: real ones. */
import { join } from "node:path";
import { Client } from "pg";
import { Valkey } from "iovalkey";
import { describe, expect, it, onTestFinished } from "vitest";
import { openSpentPostgresStore } from "../../service/stores/spent-postgres.ts";
import { openSpentValkeyStore } from "../../service/stores/spent-valkey.ts";
import type { SpentStore } from "../../tokens/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { postgresConnection, postgresOptions, valkeyOptions } from "./support/engines.ts";
import { testFolder } from "./support/folder.ts";
import { identifier } from "./support/nonces.ts";
import {
  type DatabaseServer,
  postgresMissing,
  startPostgres,
  startValkey,
  valkeyMissing,
} from "./support/servers.ts";

const tokenKeyId = identifier("epoch");
const spendOf = (index: number): Parameters<SpentStore["spend"]>[0] => ({
  tokenKeyId,
  nonce: identifier("nonce", index),
  atMs: 1,
});

function using<T extends { readonly stop: () => Promise<void> }>(started: T): T {
  onTestFinished(() => started.stop());
  return started;
}

function closing(store: SpentStore): SpentStore {
  onTestFinished(() => store.close());
  return store;
}

async function valkeyClient({ port }: DatabaseServer): Promise<Valkey> {
  const client = new Valkey({
    host: "127.0.0.1",
    port,
    lazyConnect: true,
    retryStrategy: () => null,
  });
  client.on("error", () => undefined);
  await client.connect();
  onTestFinished(() => client.disconnect());
  return client;
}

describe.skipIf(postgresMissing)("PostgreSQL", () => {
  it("is refused where a crash of it may forget, unless the operator says so", async () => {
    const server = using(await startPostgres(["fsync=off"]));
    const options = postgresOptions(server, join(testFolder(), "identity"));
    const open = (): Promise<SpentStore> => openSpentPostgresStore(options);
    await expect(open()).rejects.toThrow("runs with fsync off");
    expect(await codeOfAsync(open)).toBe("TOKEN_STORE_UNAVAILABLE");
    const store = closing(await openSpentPostgresStore({ ...options, unsafeDurability: true }));
    expect(await store.spend(spendOf(0))).toEqual({ outcome: "fresh" });
  });

  it("commits durably whatever the role's default is, and notices a table that was lost", async () => {
    const server = using(await startPostgres(["synchronous_commit=off"]));
    const connection = postgresConnection(server);
    const options = postgresOptions(server, join(testFolder(), "identity"));
    const store = closing(await openSpentPostgresStore({ ...options, maxConnections: 1 }));
    for (let i = 0; i < 20; i += 1) await store.spend(spendOf(i));
    await server.kill();
    await server.start();
    await expect
      .poll(() => codeOfAsync(() => store.spend(spendOf(100))), { timeout: 10_000 })
      .toBe("nothing was thrown");
    for (let i = 0; i < 20; i += 1) expect((await store.spend(spendOf(i))).outcome).toBe("spent");

    const later = new Client(connection);
    await later.connect();
    const { rows } = await later.query<{ name: string }>(
      "SELECT tablename AS name FROM pg_tables WHERE tablename LIKE 'spent%'",
    );
    await later.query(`DROP TABLE stile.${rows[0]?.name ?? "none"}`);
    await later.end();
    for (let i = 0; i < 2; i += 1) {
      expect(await codeOfAsync(() => store.spend(spendOf(0)))).toBe("TOKEN_STORE_UNAVAILABLE");
    }
    await store.dropEpoch(tokenKeyId);
    expect(await codeOfAsync(() => store.spend(spendOf(0)))).toBe("TOKEN_KEY_UNKNOWN");
  });

  it("is refused where nothing answers", async () => {
    const options = {
      connection: { host: "127.0.0.1", port: 1, user: "stile", database: "postgres" },
      identityFile: join(testFolder(), "identity"),
      newIdentity: new Uint8Array(16),
    };
    expect(await codeOfAsync(() => openSpentPostgresStore(options))).toBe(
      "TOKEN_STORE_UNAVAILABLE",
    );
    await expect(openSpentPostgresStore({ ...options, schema: "a; b" })).rejects.toThrow(
      RangeError,
    );
  });
});

describe.skipIf(valkeyMissing)("Valkey or Redis", () => {
  it.each([
    ["without a log", []],
    ["with a log that is not synced", ["--appendonly", "yes", "--appendfsync", "everysec"]],
    [
      "that evicts",
      ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "allkeys-lru"],
    ],
  ])("is refused %s, unless the operator says so", async (_name, settings) => {
    const server = using(await startValkey(settings));
    const options = valkeyOptions(server, join(testFolder(), "identity"));
    await expect(openSpentValkeyStore(options)).rejects.toThrow("could lose spends");
    const store = closing(await openSpentValkeyStore({ ...options, unsafeDurability: true }));
    expect(await store.spend(spendOf(0))).toEqual({ outcome: "fresh" });
  });

  it("waits for replicas where asked to, and refuses without them", async () => {
    const durable = ["--appendonly", "yes", "--appendfsync", "always"];
    const primary = using(await startValkey([...durable, "--repl-diskless-sync-delay", "0"]));
    const options = valkeyOptions(primary, join(testFolder(), "identity"));
    const acknowledge = { replicas: 1, aof: false };
    const store = closing(await openSpentValkeyStore({ ...options, acknowledge, timeoutMs: 300 }));
    expect(await codeOfAsync(() => store.spend(spendOf(0)))).toBe("TOKEN_STORE_UNAVAILABLE");
    const replica = using(
      await startValkey(["--replicaof", `127.0.0.1 ${primary.port}`, "--appendonly", "no"]),
    );
    await expect
      .poll(() => codeOfAsync(() => store.spend(spendOf(1))), { timeout: 10_000 })
      .toBe("nothing was thrown");
    await store.spend(spendOf(2));
    const reader = await valkeyClient(replica);
    expect((await reader.keys("stile:spent:*")).length).toBeGreaterThanOrEqual(2);
  });

  it("may be a cluster", { timeout: 30_000 }, async () => {
    const durable = ["--appendonly", "yes", "--appendfsync", "always"];
    const nodes = await Promise.all(
      [0, 1, 2].map(async () =>
        using(
          await startValkey([
            ...durable,
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "500",
          ]),
        ),
      ),
    );
    const admins = await Promise.all(nodes.map((node) => valkeyClient(node)));
    const slots = [0, 5_461, 10_923, 16_384];
    for (const [i, admin] of admins.entries()) {
      await admin.call("CLUSTER", "ADDSLOTSRANGE", slots[i] ?? 0, (slots[i + 1] ?? 0) - 1);
      await admin.call("CLUSTER", "MEET", "127.0.0.1", nodes[0]?.port ?? 0);
    }
    const isUp = async (): Promise<boolean> => {
      const infos = await Promise.all(admins.map((admin) => admin.cluster("INFO")));
      return infos.every((info) => info.includes("cluster_state:ok"));
    };
    await expect.poll(isUp, { timeout: 15_000 }).toBe(true);

    const folder = testFolder();
    const openEdge = async (edge: string): Promise<SpentStore> => {
      const options = valkeyOptions(nodes[0] as DatabaseServer, join(folder, edge));
      return closing(await openSpentValkeyStore({ ...options, cluster: true }));
    };
    const [a, b] = [await openEdge("a"), await openEdge("b")];
    const spends = Array.from({ length: 600 }, (_, i) => spendOf(i));
    const outcomes = await Promise.all(
      [...spends, ...spends].map((one, i) => (i < 600 ? a : b).spend(one)),
    );
    expect(outcomes.filter(({ outcome }) => outcome === "fresh")).toHaveLength(600);
    const counts = await Promise.all(admins.map((admin) => admin.dbsize()));
    // 256 hashes of the epoch, on three nodes.
    expect(Math.min(...counts)).toBeGreaterThan(40);
    await nodes[2]?.kill();
    const after = await Promise.allSettled(spends.map((one) => a.spend(one)));
    expect(after.some(({ status }) => status === "rejected")).toBe(true);
    const fresh = after.filter((it) => it.status === "fulfilled" && it.value.outcome === "fresh");
    expect(fresh).toEqual([]);
  });
});
