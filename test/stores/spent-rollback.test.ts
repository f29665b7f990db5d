/** A shared store that was emptied, replaced or set back to a backup has forgotten spends: no edge may believe it. */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Valkey } from "iovalkey";
import { Client } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
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

interface Shared {
  readonly name: string;
  readonly isMissing: boolean;
  readonly start: () => Promise<DatabaseServer>;
  readonly open: (
    server: DatabaseServer,
    identityFile: string,
    unsafeDurability?: boolean,
  ) => Promise<SpentStore>;
  readonly empty: (server: DatabaseServer) => Promise<void>;
}

const SHARED: readonly Shared[] = [
  {
    name: "PostgreSQL",
    isMissing: postgresMissing,
    start: () => startPostgres(),
    open: (server, identityFile, unsafeDurability = false) =>
      openSpentPostgresStore({ ...postgresOptions(server, identityFile), unsafeDurability }),
    empty: async (server) => {
      const client = new Client(postgresConnection(server));
      await client.connect();
      await client.query("DROP SCHEMA stile CASCADE");
      await client.end();
    },
  },
  {
    name: "Valkey or Redis",
    isMissing: valkeyMissing,
    start: () => startValkey(),
    open: (server, identityFile, unsafeDurability = false) =>
      openSpentValkeyStore({ ...valkeyOptions(server, identityFile), unsafeDurability }),
    empty: async ({ port }) => {
      const client = new Valkey({ host: "127.0.0.1", port });
      await client.flushall();
      client.disconnect();
    },
  },
];

let tests = 0;
let tokenKeyId: Uint8Array;
beforeEach(() => {
  tokenKeyId = identifier("epoch", (tests += 1));
});
const UNAVAILABLE = "TOKEN_STORE_UNAVAILABLE";

describe.each(SHARED)("$name", ({ empty, isMissing, open, start }) => {
  let on: DatabaseServer;
  beforeAll(async () => {
    if (!isMissing) on = await start();
  }, 30_000);
  afterAll(async () => {
    if (!isMissing) await on.stop();
  });
  const edgeOn = async (file: string, unsafeDurability?: boolean): Promise<SpentStore> => {
    const store = await open(on, file, unsafeDurability);
    onTestFinished(() => store.close());
    return store;
  };
  /** The outcome, or the code of a refusal. */
  const spend = (store: SpentStore, index: number): Promise<string> =>
    store.spend({ tokenKeyId, nonce: identifier("nonce", index), atMs: 1 }).then(
      ({ outcome }) => outcome,
      (error: { readonly code?: string }) => String(error.code),
    );
  /** The connections of all edges are broken by now: each takes its time to come back. */
  const settled = async (stores: readonly SpentStore[], expected: string): Promise<void> => {
    for (const [i, store] of stores.entries()) {
      await expect.poll(() => spend(store, 9_000 + i), { timeout: 30_000 }).toBe(expected);
    }
  };

  it.skipIf(isMissing)(
    "is refused where it was set back, by each edge that knew better, and by it for good",
    { timeout: 120_000 },
    async () => {
      const folder = testFolder();
      const [a, b] = [await edgeOn(join(folder, "a")), await edgeOn(join(folder, "b"))];
      const restore = async (): Promise<() => Promise<void>> => {
        expect(await spend(a, 0)).toBe("fresh");
        const setBack = await on.backUp();
        await settled([a, b], "fresh");
        return setBack;
      };
      const setBack = await restore();
      // Spent by the one alone; the other learns only how far the store had come.
      for (let i = 1; i <= 5; i += 1) expect(await spend(a, i)).toBe("fresh");
      await b.keepEpoch(tokenKeyId, 1_000);
      await setBack();

      const never = ["fresh", "repeat"];
      for (let round = 0; round < 20; round += 1) {
        for (const store of [a, b]) {
          for (let i = 1; i <= 5; i += 1) expect(never).not.toContain(await spend(store, i));
        }
      }
      // Not only while they reconnect: both have seen it, and have written it down.
      for (const [name, store] of [["a", a] as const, ["b", b] as const]) {
        const seen = async (): Promise<boolean> => {
          expect(await spend(store, 0)).toBe(UNAVAILABLE);
          return readFileSync(join(folder, name), "utf8").includes('"hasForgotten":true');
        };
        await expect.poll(seen, { timeout: 30_000 }).toBe(true);
      }
      for (const work of [() => a.keepEpoch(tokenKeyId, 1), () => a.dropPastEpochs()]) {
        expect(await codeOfAsync(work)).toBe("TOKEN_STORE_REFUSED");
      }
      // One that knows nothing of it brings the counts past what they were.
      const c = await edgeOn(join(folder, "c"));
      for (let i = 0; i < 30; i += 1) expect(await spend(c, 200 + i)).toBe("fresh");
      expect(await spend(b, 1)).toBe(UNAVAILABLE);
      // Nor after a restart.
      for (const name of ["a", "b"]) {
        await expect(open(on, join(folder, name))).rejects.toThrow("was set back");
      }
      rmSync(join(folder, "a"));
      const decided = await edgeOn(join(folder, "a"));
      expect(await spend(decided, 100)).toBe("fresh");
    },
  );

  it.skipIf(isMissing)(
    "is refused by an edge that was restarted in between, too",
    { timeout: 120_000 },
    async () => {
      const file = join(testFolder(), "a");
      const first = await open(on, file);
      expect(await spend(first, 0)).toBe("fresh");
      const setBack = await on.backUp();
      await settled([first], "fresh");
      expect(await spend(first, 1)).toBe("fresh");
      await first.close();
      await setBack();
      await expect(open(on, file)).rejects.toThrow("was set back");
      // For those who try things out, as the same store it is.
      const careless = await edgeOn(file, true);
      expect(await spend(careless, 1)).toBe("fresh");
    },
  );

  it.skipIf(isMissing)(
    "is remembered by an edge that ends, unless its file was removed",
    async () => {
      const file = join(testFolder(), "a");
      const all = (): number => (JSON.parse(readFileSync(file, "utf8")) as { all: number }).all;
      const [first, second] = [await open(on, file), await open(on, file)];
      expect(await spend(first, 0)).toBe("fresh");
      await first.close();
      const before = all();
      expect(await spend(second, 1)).toBe("fresh");
      // What a later process has found out is not taken back.
      writeFileSync(file, readFileSync(file, "utf8").replace("false", "true"));
      await second.close();
      expect(all()).toBe(before + 1);
      await expect(open(on, file)).rejects.toThrow("was set back");

      rmSync(file);
      const third = await open(on, file);
      expect(await spend(third, 2)).toBe("fresh");
      rmSync(file);
      await third.close();
      expect(existsSync(file)).toBe(false);
    },
  );

  it.skipIf(isMissing)("is refused where what the edge remembers is damaged", async () => {
    const file = join(testFolder(), "a");
    await (await open(on, file)).close();
    const good = readFileSync(file, "utf8");
    expect(JSON.parse(good)).toMatchObject({ hasForgotten: false });
    for (const bad of ["", "{}", good.slice(0, -9), good.replace(/"all":\d+/, '"all":"1"')]) {
      writeFileSync(file, bad);
      expect(await codeOfAsync(() => open(on, file))).toBe(UNAVAILABLE);
    }
    writeFileSync(file, good);
    await edgeOn(file);
  });

  it.skipIf(isMissing)(
    "is believed after crashes, which forget nothing, by edges at the same time",
    { timeout: 120_000 },
    async () => {
      const folder = testFolder();
      const stores = await Promise.all(["a", "b", "c"].map((name) => edgeOn(join(folder, name))));
      for (let round = 0; round < 3; round += 1) {
        const storm = stores.map(async (store) => {
          for (let i = 0; i < 40; i += 1) {
            await Promise.all([
              spend(store, round * 1_000 + i),
              store.keepEpoch(tokenKeyId, 1_000).catch(() => undefined),
            ]);
          }
        });
        await on.kill();
        await Promise.all(storm);
        await on.start();
        await expect
          .poll(() => spend(stores[0] as SpentStore, 20_000 + round), { timeout: 30_000 })
          .toBe("fresh");
        await settled(stores, round === 0 ? "fresh" : "spent");
      }
    },
  );

  it.skipIf(isMissing)("is refused once it was emptied, until the file is removed", async () => {
    const folder = testFolder();
    const [a, b] = [await edgeOn(join(folder, "a")), await edgeOn(join(folder, "b"))];
    for (const [i, store] of [a, b].entries()) expect(await spend(store, i)).toBe("fresh");
    await empty(on);
    for (const store of [a, b]) {
      for (const index of [0, 1]) expect(await spend(store, index)).toBe(UNAVAILABLE);
    }
    await expect(open(on, join(folder, "a"))).rejects.toThrow("has lost its data");
    // One that is new here begins a new store; that makes it none of the others'.
    const renewed = await edgeOn(join(folder, "c"));
    expect(await spend(renewed, 2)).toBe("fresh");
    for (const store of [a, b]) {
      for (const index of [0, 1, 2]) expect(await spend(store, index)).toBe(UNAVAILABLE);
    }
    rmSync(join(folder, "a"));
    const decided = await edgeOn(join(folder, "a"));
    expect(await spend(decided, 2)).toBe("spent");
  });
});
