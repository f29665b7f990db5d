/** The contract of the spent store, the same for every engine, on real servers. */
import { describe, expect, it } from "vitest";
import type { SpendOutcome } from "../../tokens/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { type Engine, ENGINES, useEngine } from "./support/engines.ts";
import { identifier } from "./support/nonces.ts";

let epochs = 0;
/** An epoch that no test had before. */
const newEpoch = (): Uint8Array => identifier("epoch", (epochs += 1));
const binding = identifier("binding");
const nonceOf = (index: number): Uint8Array => identifier("nonce", index);

describe.each(ENGINES)("the spent store on $name", (kind: Engine) => {
  const { isMissing, isShared } = kind;
  const { closeAll, open: openStore, running } = useEngine(kind);

  it.skipIf(isMissing)("answers fresh once for each of many spends with duplicates", async () => {
    const store = await openStore();
    const tokenKeyId = newEpoch();
    const order = Array.from({ length: 5_000 }, (_, i) => (i * 7_919) % 2_000);
    const outcomes = await Promise.all(
      order.map((index) => store.spend({ tokenKeyId, nonce: nonceOf(index), atMs: index })),
    );
    const fresh = order.filter((_, i) => outcomes[i]?.outcome === "fresh");
    expect(fresh).toHaveLength(2_000);
    expect(new Set(fresh).size).toBe(2_000);
    expect(outcomes.filter(({ outcome }) => outcome === "spent")).toHaveLength(3_000);
  });

  it.skipIf(isMissing)("repeats the first answer for the same binding alone", async () => {
    const tokenKeyId = newEpoch();
    const nonce = nonceOf(0);
    const first = await openStore();
    expect(
      await Promise.all([
        first.spend({ tokenKeyId, nonce, binding, atMs: 1_000 }),
        first.spend({ tokenKeyId, nonce, binding, atMs: 2_000 }),
        first.spend({ tokenKeyId, nonce, binding: identifier("other"), atMs: 3_000 }),
        first.spend({ tokenKeyId, nonce, atMs: 4_000 }),
      ]),
    ).toEqual<SpendOutcome[]>([
      { outcome: "fresh" },
      { outcome: "repeat", firstAtMs: 1_000 },
      { outcome: "spent" },
      { outcome: "spent" },
    ]);
    await closeAll();
    const later = await openStore();
    for (const atMs of [0, 2 ** 48 - 1]) {
      expect(await later.spend({ tokenKeyId, nonce, binding, atMs })).toEqual({
        outcome: "repeat",
        firstAtMs: 1_000,
      });
    }
    await later.spend({ tokenKeyId, nonce: nonceOf(1), atMs: 1 });
    expect(await later.spend({ tokenKeyId, nonce: nonceOf(1), binding, atMs: 2 })).toEqual({
      outcome: "spent",
    });
  });

  it.skipIf(isMissing)("keeps epochs apart, and ends one whole", async () => {
    const store = await openStore();
    const [ended, other] = [newEpoch(), newEpoch()];
    const spend = (tokenKeyId: Uint8Array): Promise<SpendOutcome> =>
      store.spend({ tokenKeyId, nonce: nonceOf(0), atMs: 1 });
    expect(await spend(ended)).toEqual({ outcome: "fresh" });
    expect(await spend(other)).toEqual({ outcome: "fresh" });
    await store.dropEpoch(ended);
    await store.dropEpoch(ended);
    await store.dropEpoch(newEpoch());
    const mixed = await Promise.allSettled([spend(ended), spend(other)]);
    expect(mixed[0]).toMatchObject({ status: "rejected", reason: { code: "TOKEN_KEY_UNKNOWN" } });
    expect(mixed[1]).toMatchObject({ status: "fulfilled", value: { outcome: "spent" } });
    await closeAll();
    const later = await openStore();
    const late = { tokenKeyId: ended, nonce: nonceOf(0), atMs: 1 };
    expect(await codeOfAsync(() => later.spend(late))).toBe("TOKEN_KEY_UNKNOWN");
  });

  it.skipIf(isMissing)("rejects what is no spend, and everything after it was closed", async () => {
    const store = await openStore();
    const good = { tokenKeyId: newEpoch(), nonce: nonceOf(0), atMs: 1 };
    for (const bad of [
      { tokenKeyId: new Uint8Array(31) },
      { nonce: new Uint8Array(33) },
      { binding: new Uint8Array() },
      { atMs: -1 },
      { atMs: 0.5 },
      { atMs: 2 ** 48 },
    ]) {
      await expect(store.spend({ ...good, ...bad })).rejects.toThrow(RangeError);
    }
    await closeAll();
    expect(await codeOfAsync(() => store.spend(good))).toBe("TOKEN_STORE_UNAVAILABLE");
    expect(await codeOfAsync(() => store.dropEpoch(good.tokenKeyId))).toBe(
      "TOKEN_STORE_UNAVAILABLE",
    );
  });

  it.skipIf(isMissing || !isShared)("is one store to several edges", async () => {
    const [a, b] = [await openStore("a"), await openStore("b")];
    const tokenKeyId = newEpoch();
    const spends = await Promise.all(
      Array.from({ length: 2_000 }, (_, i) =>
        // In opposite orders, so that the two meet with the same nonces in hand.
        Promise.all([
          a.spend({ tokenKeyId, nonce: nonceOf(i), atMs: i }),
          b.spend({ tokenKeyId, nonce: nonceOf(1_999 - i), atMs: i }),
        ]),
      ),
    );
    const fresh = spends.flat().filter(({ outcome }) => outcome === "fresh");
    expect(fresh).toHaveLength(2_000);
    const nonce = nonceOf(5_000);
    expect(await a.spend({ tokenKeyId, nonce, binding, atMs: 7 })).toEqual({ outcome: "fresh" });
    expect(await b.spend({ tokenKeyId, nonce, binding, atMs: 8 })).toEqual({
      outcome: "repeat",
      firstAtMs: 7,
    });
    await a.dropEpoch(tokenKeyId);
    expect(await codeOfAsync(() => b.spend({ tokenKeyId, nonce, atMs: 9 }))).toBe(
      "TOKEN_KEY_UNKNOWN",
    );
  });

  it.skipIf(isMissing || !isShared)(
    "fails closed while the server is down, recovers by itself, and forgets no answer",
    { timeout: 30_000 },
    async () => {
      const store = await openStore();
      const tokenKeyId = newEpoch();
      const fresh = new Set<number>();
      const unknown: number[] = [];
      const spend = async (index: number): Promise<void> => {
        try {
          const { outcome } = await store.spend({ tokenKeyId, nonce: nonceOf(index), atMs: index });
          expect(outcome).toBe("fresh");
          fresh.add(index);
        } catch {
          unknown.push(index);
        }
      };
      for (let round = 0; round < 3; round += 1) {
        const storm = Array.from({ length: 40 }, async (_, lane) => {
          for (let i = 0; i < 20; i += 1) await spend(round * 10_000 + lane * 100 + i);
        });
        await new Promise((resolve) => setTimeout(resolve, 10 + round * 15));
        await running().server?.kill();
        await Promise.all(storm);
        const down = { tokenKeyId, nonce: nonceOf(90_000 + round), atMs: 1 };
        expect(await codeOfAsync(() => store.spend(down))).toBe("TOKEN_STORE_UNAVAILABLE");
        await running().server?.start();
        await expect
          .poll(() => codeOfAsync(() => store.spend(down)), { timeout: 10_000 })
          .toBe("nothing was thrown");
      }
      expect(fresh.size).toBeGreaterThan(0);
      expect(unknown.length).toBeGreaterThan(0);
      const again = await Promise.all(
        [...fresh].map((index) => store.spend({ tokenKeyId, nonce: nonceOf(index), atMs: 1 })),
      );
      expect(again.filter(({ outcome }) => outcome !== "spent")).toEqual([]);
      // What had no answer may be there or not; it is fresh once at most from here on.
      await Promise.all(
        unknown.map(async (index) => {
          const request = { tokenKeyId, nonce: nonceOf(index), atMs: 1 };
          const outcomes = [await store.spend(request), await store.spend(request)];
          expect(outcomes[1]).toEqual({ outcome: "spent" });
        }),
      );
    },
  );
});
