/** How the epochs of the spent store end, the same for every engine, on real servers and by their clocks. */
import { describe, expect, it } from "vitest";
import type { SpendOutcome, SpentStore } from "../../tokens/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { type Engine, ENGINES, type EpochOptions, useEngine } from "./support/engines.ts";
import { identifier } from "./support/nonces.ts";

let epochs = 0;
const newEpoch = (): Uint8Array => identifier("epoch's end", (epochs += 1));
const nonceOf = (index: number): Uint8Array => identifier("nonce", index);
const HOUR_MS = 3_600_000;
/** Epochs end when they are past, so that a test need not wait. */
const AT_ONCE: EpochOptions = { graceMs: 0, settleMs: 0 };

describe.each(ENGINES)("epochs on $name", (kind: Engine) => {
  const { isMissing, isShared } = kind;
  const { closeAll, open, running } = useEngine(kind);
  /** Two edges; of the embedded engine, the same one twice. */
  const openEdges = async (
    options: EpochOptions = AT_ONCE,
    others: EpochOptions = options,
  ): Promise<[SpentStore, SpentStore]> => {
    const a = await open("a", options);
    if (!isShared) return [a, a];
    return [a, await open("b", others)];
  };

  const spend = (store: SpentStore, tokenKeyId: Uint8Array, index = 0): Promise<SpendOutcome> =>
    store.spend({ tokenKeyId, nonce: nonceOf(index), atMs: 1 });
  const hasEnded = async (store: SpentStore, tokenKeyId: Uint8Array): Promise<boolean> => {
    await store.dropPastEpochs();
    return !(await store.keepEpoch(tokenKeyId, 0));
  };

  it.skipIf(isMissing)("end once nobody needs them, for everybody and for ever", async () => {
    const [a, b] = await openEdges();
    const [past, needed] = [newEpoch(), newEpoch()];
    for (const [store, tokenKeyId, forMs] of [
      [a, past, 50],
      [b, past, 300],
      [a, needed, 50],
      [b, needed, HOUR_MS],
    ] as const) {
      expect(await store.keepEpoch(tokenKeyId, forMs)).toBe(true);
    }
    for (const tokenKeyId of [past, needed])
      expect((await spend(a, tokenKeyId)).outcome).toBe("fresh");
    await expect.poll(() => hasEnded(a, past), { timeout: 30_000 }).toBe(true);
    const check = async (stores: readonly SpentStore[]): Promise<void> => {
      for (const store of stores) {
        // Also of a nonce that nobody has spent, in a hash of its own.
        for (const index of [0, 1, 2, 3]) {
          expect(await codeOfAsync(() => spend(store, past, index))).toBe("TOKEN_KEY_UNKNOWN");
        }
        expect(await store.keepEpoch(past, HOUR_MS)).toBe(false);
        expect((await spend(store, needed)).outcome).toBe("spent");
        await store.dropPastEpochs();
      }
    };
    await check([a, b]);
    await closeAll();
    await check(await openEdges());
  });

  it.skipIf(isMissing)("are kept for the longest that anybody said, never for less", async () => {
    const [a, b] = await openEdges();
    const tokenKeyId = newEpoch();
    await a.keepEpoch(tokenKeyId, HOUR_MS);
    for (const store of [b, a]) {
      await store.keepEpoch(tokenKeyId, 0);
      await store.keepEpoch(tokenKeyId, 1);
    }
    expect((await spend(b, tokenKeyId)).outcome).toBe("fresh");
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (const store of [a, b]) {
      await store.dropPastEpochs();
      expect((await spend(store, tokenKeyId)).outcome).toBe("spent");
    }
    await closeAll();
    const [later] = await openEdges();
    await later.dropPastEpochs();
    expect((await spend(later, tokenKeyId)).outcome).toBe("spent");
  });

  it.skipIf(isMissing)("are kept past their end for the grace, by whoever drops", async () => {
    const [a] = await openEdges({ settleMs: 0 });
    const tokenKeyId = newEpoch();
    await a.keepEpoch(tokenKeyId, 0);
    expect((await spend(a, tokenKeyId)).outcome).toBe("fresh");
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await hasEnded(a, tokenKeyId)).toBe(false);
    expect((await spend(a, tokenKeyId)).outcome).toBe("spent");
  });

  it.skipIf(isMissing)("of which only spends are known are kept, too, and found", async () => {
    const [a] = await openEdges({ ...AT_ONCE, retentionMs: 400 });
    const tokenKeyId = newEpoch();
    const startMs = performance.now();
    expect((await spend(a, tokenKeyId)).outcome).toBe("fresh");
    await a.dropPastEpochs();
    const early = await spend(a, tokenKeyId).catch(() => undefined);
    if (performance.now() - startMs < 350) expect(early?.outcome).toBe("spent");
    await expect.poll(() => hasEnded(a, tokenKeyId), { timeout: 30_000 }).toBe(true);
  });

  it.skipIf(isMissing)("are kept for the cap at most, whatever a wrong clock says", async () => {
    const [a] = await openEdges({ ...AT_ONCE, retentionMs: 50 });
    const tokenKeyId = newEpoch();
    await a.keepEpoch(tokenKeyId, 100 * 365 * 24 * HOUR_MS);
    await expect.poll(() => hasEnded(a, tokenKeyId), { timeout: 30_000 }).toBe(true);
  });

  it.skipIf(isMissing)(
    "end while tokens are spent in them, and no token is fresh twice",
    async () => {
      const [a, b] = await openEdges();
      for (let round = 0; round < 4; round += 1) {
        const tokenKeyId = newEpoch();
        const fresh = new Map<number, number>();
        const spendAll = async (store: SpentStore): Promise<void> => {
          await Promise.allSettled(
            Array.from({ length: 600 }, async (_, i) => {
              const { outcome } = await spend(store, tokenKeyId, i % 300);
              if (outcome === "fresh") fresh.set(i % 300, (fresh.get(i % 300) ?? 0) + 1);
            }),
          );
        };
        await spend(a, tokenKeyId, 999);
        await Promise.all([spendAll(a), spendAll(b), b.dropEpoch(tokenKeyId), spendAll(a)]);
        await spendAll(a);
        await spendAll(b);
        expect([...fresh.values()].filter((times) => times > 1)).toEqual([]);
        expect(await codeOfAsync(() => spend(b, tokenKeyId, 999))).toBe("TOKEN_KEY_UNKNOWN");
      }
    },
  );

  it.skipIf(isMissing || !isShared)(
    "end all the same where the server dies on the way",
    { timeout: 90_000 },
    async () => {
      const [a, b] = await openEdges();
      const tokenKeyId = newEpoch();
      const fresh = new Set<number>();
      for (let i = 0; i < 200; i += 1) {
        if ((await spend(a, tokenKeyId, i)).outcome === "fresh") fresh.add(i);
      }
      expect(fresh.size).toBe(200);
      const dropping = a.dropEpoch(tokenKeyId).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 5));
      await running().server?.kill();
      await dropping;
      await running().server?.start();
      const spendAgain = (i: number): Promise<string> =>
        spend(b, tokenKeyId, i).then(
          ({ outcome }) => outcome,
          () => "refused",
        );
      await expect
        .poll(() => codeOfAsync(() => b.dropPastEpochs()), { timeout: 30_000 })
        .toBe("nothing was thrown");
      for (let i = 0; i < 200; i += 1) expect(["refused", "spent"]).toContain(await spendAgain(i));
      await b.dropEpoch(tokenKeyId);
      for (let i = 0; i < 200; i += 1) expect(await spendAgain(i)).toBe("refused");
    },
  );

  it.skipIf(isMissing)("rejects what is no span of time, and everything after close", async () => {
    const [a] = await openEdges();
    for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      await expect(a.keepEpoch(newEpoch(), bad)).rejects.toThrow(RangeError);
    }
    await expect(a.keepEpoch(new Uint8Array(31), 1)).rejects.toThrow(RangeError);
    await closeAll();
    for (const late of [() => a.keepEpoch(newEpoch(), 1), () => a.dropPastEpochs()]) {
      expect(await codeOfAsync(late)).toBe("TOKEN_STORE_UNAVAILABLE");
    }
  });
});

describe("epochs on the embedded engine, where the clock of the machine jumps", () => {
  it("do not end by a moment ahead, and end by one that lasts", async () => {
    const engine = await ENGINES[0]?.start();
    if (engine === undefined) throw new Error("no engine");
    let [nowMs, steadyMs] = [1_800_000_000_000, 0];
    const clocks = { clock: () => nowMs, monotonicMs: () => steadyMs };
    const store = await engine.open("edge", clocks);
    const tokenKeyId = newEpoch();
    const spend = { tokenKeyId, nonce: nonceOf(0), atMs: 1 };
    await store.keepEpoch(tokenKeyId, HOUR_MS);
    await store.spend(spend);
    nowMs += 1_000 * HOUR_MS;
    expect(await store.dropPastEpochs()).toBe(0);
    steadyMs += HOUR_MS / 2;
    expect(await store.dropPastEpochs()).toBe(0);
    nowMs -= 1_000 * HOUR_MS;
    steadyMs += HOUR_MS;
    expect(await store.dropPastEpochs()).toBe(0);
    expect(await store.spend(spend)).toEqual({ outcome: "spent" });

    nowMs += 26 * HOUR_MS;
    expect(await store.dropPastEpochs()).toBe(0);
    steadyMs += HOUR_MS;
    expect(await store.dropPastEpochs()).toBe(1);
    expect(await codeOfAsync(() => store.spend(spend))).toBe("TOKEN_KEY_UNKNOWN");
    await store.close();
    await engine.stop();
  });
});
