import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openSpentLevelStore, type SpentLevelStoreOptions } from "../../service/stores/index.ts";
import { openClassicLevel } from "../../service/stores/level.ts";
import type { SpentStore } from "../../tokens/index.ts";
import { encodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { testFolder } from "./support/folder.ts";
import { identifier } from "./support/nonces.ts";

const tokenKeyId = identifier("epoch");
const otherKeyId = identifier("epoch", 1);
const binding = identifier("binding");
const nonce = identifier("nonce");

async function using<Result>(
  options: SpentLevelStoreOptions,
  work: (store: SpentStore) => Promise<Result>,
): Promise<Result> {
  const store = await openSpentLevelStore(options);
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

describe("spent store on LevelDB", () => {
  it("answers fresh exactly once for each of 10,000 spends with duplicates in flight", async () => {
    const sizes: number[] = [];
    const observe = { batch: (size: number) => sizes.push(size) };
    await using({ folder: testFolder(), observe, maxBatch: 512 }, async (store) => {
      // 4,000 nonces, each spent two or three times, in an order that spreads them over batches.
      const order = Array.from({ length: 10_000 }, (_, i) => (i * 7_919) % 4_000);
      const outcomes = await Promise.all(
        order.map((index) =>
          store.spend({ tokenKeyId, nonce: identifier("nonce", index), atMs: index }),
        ),
      );
      const fresh = order.filter((_, i) => outcomes[i]?.outcome === "fresh");
      expect(fresh).toHaveLength(4_000);
      expect(new Set(fresh).size).toBe(4_000);
      expect(outcomes.filter(({ outcome }) => outcome === "spent")).toHaveLength(6_000);
    });
    expect(Math.max(...sizes)).toBeLessThanOrEqual(512);
    expect(sizes.length).toBeLessThan(100);
  });

  it("repeats the first answer for the same binding alone, within a batch and across restarts", async () => {
    const folder = testFolder();
    const [first, second, third] = await using({ folder }, (store) =>
      Promise.all([
        store.spend({ tokenKeyId, nonce, binding, atMs: 1_000 }),
        store.spend({ tokenKeyId, nonce, binding, atMs: 2_000 }),
        store.spend({ tokenKeyId, nonce, binding: identifier("other"), atMs: 3_000 }),
      ]),
    );
    expect(first).toEqual({ outcome: "fresh" });
    expect(second).toEqual({ outcome: "repeat", firstAtMs: 1_000 });
    expect(third).toEqual({ outcome: "spent" });
    await using({ folder }, async (store) => {
      // A clock that was set back or far ahead changes nothing.
      for (const atMs of [0, 1_764_000_000_000, 2 ** 48 - 1]) {
        const again = await store.spend({ tokenKeyId, nonce, binding, atMs });
        expect(again).toEqual({ outcome: "repeat", firstAtMs: 1_000 });
      }
      const unbound = await store.spend({ tokenKeyId, nonce, atMs: 4_000 });
      expect(unbound).toEqual({ outcome: "spent" });
    });
  });

  it("spends on where its count of entries, or an entry, is damaged", async () => {
    const folder = testFolder();
    await using({ folder }, (store) => store.spend({ tokenKeyId, nonce, binding, atMs: 1_000 }));
    const epoch = join(folder, encodeHex(tokenKeyId));
    const level = await openClassicLevel(epoch, { createIfMissing: false });
    await level.writeDurably([
      { key: Uint8Array.of(0), value: new Uint8Array(6).fill(0xff) },
      { key: nonce, value: Uint8Array.of(1, 2, 3) },
    ]);
    await level.close();
    const outcomes = await using({ folder }, (store) =>
      Promise.all([
        store.spend({ tokenKeyId, nonce: identifier("nonce", 1), atMs: 2_000 }),
        store.spend({ tokenKeyId, nonce, binding, atMs: 2_000 }),
        store.spend({ tokenKeyId, nonce: identifier("nonce", 2), atMs: 2_000 }),
      ]),
    );
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(["fresh", "spent", "fresh"]);
  });

  it("never repeats a spend that had no binding", async () => {
    await using({ folder: testFolder() }, async (store) => {
      await store.spend({ tokenKeyId, nonce, atMs: 1 });
      const later = await store.spend({ tokenKeyId, nonce, binding, atMs: 2 });
      expect(later).toEqual({ outcome: "spent" });
    });
  });

  it("keeps epochs apart and counts the entries of each across restarts", async () => {
    const folder = testFolder();
    const counts = new Map<string, number>();
    const observe = { entries: (id: string, count: number) => counts.set(id, count) };
    for (const round of [0, 1]) {
      await using({ folder, observe }, async (store) => {
        for (const keyId of [tokenKeyId, otherKeyId]) {
          const spend = { tokenKeyId: keyId, nonce: identifier("nonce", round), atMs: 1 };
          expect((await store.spend(spend)).outcome).toBe("fresh");
          expect((await store.spend(spend)).outcome).toBe("spent");
        }
      });
    }
    expect([...counts]).toEqual([
      [encodeHex(tokenKeyId), 2],
      [encodeHex(otherKeyId), 2],
    ]);
  });

  it("rejects spends of a dropped epoch, also after a restart, and leaves the others", async () => {
    const folder = testFolder();
    const late = { tokenKeyId, nonce, atMs: 1 };
    await using({ folder }, async (store) => {
      await store.spend(late);
      await store.spend({ ...late, tokenKeyId: otherKeyId });
      const racing = store.spend({ ...late, nonce: identifier("racing") });
      const dropping = store.dropEpoch(tokenKeyId);
      expect(await codeOfAsync(() => store.spend(late))).toBe("TOKEN_KEY_UNKNOWN");
      expect((await racing).outcome).toBe("fresh");
      await dropping;
      expect(existsSync(join(folder, encodeHex(tokenKeyId)))).toBe(false);
      await store.dropEpoch(tokenKeyId);
    });
    await using({ folder }, async (store) => {
      expect(await codeOfAsync(() => store.spend(late))).toBe("TOKEN_KEY_UNKNOWN");
      expect((await store.spend({ ...late, tokenKeyId: otherKeyId })).outcome).toBe("spent");
    });
    expect(existsSync(join(folder, encodeHex(tokenKeyId)))).toBe(false);
  });

  it("rejects spends of an epoch whose folder has disappeared, until it is dropped", async () => {
    const folder = testFolder();
    const spend = { tokenKeyId, nonce, atMs: 1 };
    await using({ folder }, (store) => store.spend(spend));
    rmSync(join(folder, encodeHex(tokenKeyId)), { recursive: true });
    await using({ folder, reopenDelayMs: 0 }, async (store) => {
      for (let i = 0; i < 2; i += 1) {
        expect(await codeOfAsync(() => store.spend(spend))).toBe("TOKEN_STORE_UNAVAILABLE");
      }
      await store.dropEpoch(tokenKeyId);
      expect(await codeOfAsync(() => store.spend(spend))).toBe("TOKEN_KEY_UNKNOWN");
    });
  });

  it("rejects a second store on the same folder", async () => {
    const folder = testFolder();
    await using({ folder }, async () => {
      const second = openSpentLevelStore({ folder });
      await expect(second).rejects.toThrow("another process holds the spent-token store");
      expect(await codeOfAsync(() => openSpentLevelStore({ folder }))).toBe(
        "TOKEN_STORE_UNAVAILABLE",
      );
    });
    await using({ folder }, async (store) => {
      expect((await store.spend({ tokenKeyId, nonce, atMs: 1 })).outcome).toBe("fresh");
    });
  });

  it("rejects a folder that cannot be made", async () => {
    const file = join(testFolder(), "file");
    writeFileSync(file, "");
    const code = await codeOfAsync(() => openSpentLevelStore({ folder: join(file, "spent") }));
    expect(code).toBe("TOKEN_STORE_UNAVAILABLE");
  });

  it("rejects everything after close", async () => {
    const store = await openSpentLevelStore({ folder: testFolder() });
    await store.close();
    await store.close();
    const spend = { tokenKeyId, nonce, atMs: 1 };
    expect(await codeOfAsync(() => store.spend(spend))).toBe("TOKEN_STORE_UNAVAILABLE");
    expect(await codeOfAsync(() => store.dropEpoch(tokenKeyId))).toBe("TOKEN_STORE_UNAVAILABLE");
  });

  it("rejects identifiers and instants that are not what the contract says", async () => {
    await using({ folder: testFolder() }, async (store) => {
      const short = new Uint8Array(31);
      for (const wrong of [
        { tokenKeyId: short },
        { nonce: short },
        { binding: short },
        { atMs: -1 },
        { atMs: 2 ** 48 },
        { atMs: 1.5 },
      ]) {
        const spend = store.spend({ tokenKeyId, nonce, atMs: 1, ...wrong });
        await expect(spend).rejects.toBeInstanceOf(RangeError);
      }
      await expect(store.dropEpoch(short)).rejects.toBeInstanceOf(RangeError);
    });
  });
});
