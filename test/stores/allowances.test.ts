import { describe, expect, it } from "vitest";
import { encodeWindow } from "../../service/stores/allowance-windows.ts";
import {
  type AllowanceStore,
  type AllowanceStoreOptions,
  openAllowanceStore,
} from "../../service/stores/index.ts";
import { openClassicLevel } from "../../service/stores/level.ts";
import { isStileError } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { faultyLevel } from "./support/faulty-level.ts";
import { testFolder } from "./support/folder.ts";

const HOUR_MS = 3_600_000;
/** Ten minutes into an hour. */
const NOW_MS = 490_000 * HOUR_MS + 600_000;

async function using(
  options: Partial<AllowanceStoreOptions> & { readonly folder: string },
  work: (
    store: AllowanceStore,
    charge: (pseudonym: string, count: number, atMs?: number) => Promise<number | string>,
  ) => Promise<void>,
): Promise<void> {
  const store = await openAllowanceStore({ limit: 10, windowMs: HOUR_MS, ...options });
  /** What is left, or the code of the refusal. */
  const charge = async (
    pseudonym: string,
    count: number,
    atMs: number = NOW_MS,
  ): Promise<number | string> => {
    let remaining = -1;
    const code = await codeOfAsync(async () => {
      ({ remaining } = await store.charge({ pseudonym, count, atMs }));
    });
    return remaining < 0 ? code : remaining;
  };
  try {
    await work(store, charge);
  } finally {
    await store.close();
  }
}

/** The number of entries that are on the disk, the marker not counted. */
async function entriesIn(folder: string): Promise<number> {
  const level = await openClassicLevel(folder, { createIfMissing: false });
  const keys = await level.keys(encodeWindow(0), new Uint8Array(7).fill(0xff), 100_000);
  await level.close();
  return keys.length;
}

describe("allowance store", () => {
  it("charges all or nothing up to the limit, per device, and remembers across restarts", async () => {
    const folder = testFolder();
    await using({ folder }, async (_, charge) => {
      expect(await charge("a", 7)).toBe(3);
      expect(await charge("a", 4)).toBe("ATTEST_ALLOWANCE_EXCEEDED");
      expect(await charge("b", 10)).toBe(0);
    });
    await using({ folder }, async (_, charge) => {
      expect(await charge("a", 4)).toBe("ATTEST_ALLOWANCE_EXCEEDED");
      expect(await charge("a", 3)).toBe(0);
      expect(await charge("a", 1)).toBe("ATTEST_ALLOWANCE_EXCEEDED");
    });
  });

  it("never charges more than the limit over 2,000 concurrent requests", async () => {
    await using({ folder: testFolder(), limit: 100, maxBatch: 64 }, async (_, charge) => {
      const requests = Array.from({ length: 2_000 }, (_unused, i) => charge(`device ${i % 4}`, 3));
      const results = await Promise.all(requests);
      // 33 charges of 3 fit into 100, for each of four devices.
      expect(results.filter((result) => typeof result === "number")).toHaveLength(4 * 33);
    });
  });

  it("rejects with the seconds to the end of the window, and begins anew after it", async () => {
    await using({ folder: testFolder() }, async (store, charge) => {
      await charge("a", 10);
      const refusal = await store
        .charge({ pseudonym: "a", count: 1, atMs: NOW_MS })
        .catch((error: unknown) => error);
      expect(isStileError(refusal, "ATTEST_ALLOWANCE_EXCEEDED")).toBe(true);
      expect(isStileError(refusal) && refusal.retryAfterSeconds).toBe(3_000);
      const endMs = 490_001 * HOUR_MS;
      const last = await store
        .charge({ pseudonym: "a", count: 1, atMs: endMs - 1 })
        .catch((error: unknown) => error);
      expect(isStileError(last) && last.retryAfterSeconds).toBe(1);
      expect(await charge("a", 1, endMs)).toBe(9);
    });
  });

  it("gives no second allowance when the clock jumps ahead and back, also over a restart", async () => {
    const folder = testFolder();
    const yearMs = 8_760 * HOUR_MS;
    await using({ folder }, async (_, charge) => {
      expect(await charge("a", 10)).toBe(0);
      expect(await charge("a", 1, NOW_MS + yearMs)).toBe(9);
    });
    await using({ folder }, async (_, charge) => {
      expect(await charge("a", 1)).toBe("ATTEST_ALLOWANCE_EXCEEDED");
      expect(await charge("b", 1)).toBe(9);
      // The next true window removes the one of the jump.
      expect(await charge("a", 1, NOW_MS + HOUR_MS)).toBe(9);
      expect(await charge("a", 1, NOW_MS - HOUR_MS)).toBe(9);
    });
    // Two of the last change: "a" in the hour before and in the hour after.
    expect(await entriesIn(folder)).toBe(2);
  });

  it("removes old windows a bounded number at a time, without growth", async () => {
    const folder = testFolder();
    await using({ folder }, async (_, charge) => {
      for (const window of [0, 1, 2]) {
        const atMs = NOW_MS + window * HOUR_MS;
        await Promise.all(Array.from({ length: 2_500 }, (_unused, i) => charge(`d${i}`, 1, atMs)));
      }
      // Window 0 went with the writes of window 2; window 1 is kept.
    });
    expect(await entriesIn(folder)).toBe(5_000);
    await using({ folder }, async (_, charge) => {
      await charge("x", 1, NOW_MS + 3 * HOUR_MS);
      await charge("x", 1, NOW_MS + 4 * HOUR_MS);
      for (let i = 0; i < 8; i += 1) await charge("x", 1, NOW_MS + 4 * HOUR_MS);
    });
    expect(await entriesIn(folder)).toBe(2);
  });

  it("rejects charges while the disk fails, and recovers by itself", async () => {
    const { faults, openLevel } = faultyLevel();
    const options = { folder: testFolder(), openLevel, reopenDelayMs: 0 };
    await using(options, async (_, charge) => {
      expect(await charge("a", 1)).toBe(9);
      faults.write = "before";
      expect(await charge("a", 1)).toBe("ATTEST_ALLOWANCE_UNAVAILABLE");
      faults.write = "after";
      expect(await charge("a", 1)).toBe("ATTEST_ALLOWANCE_UNAVAILABLE");
      faults.write = undefined;
      // The charge that was written may count: never the other way round.
      expect(await charge("a", 1)).toBe(7);
    });
  });

  it.each([
    ["cut short", Uint8Array.of(1)],
    ["empty", new Uint8Array(0)],
    ["too long", new Uint8Array(7)],
    ["as high as can be", new Uint8Array(6).fill(0xff)],
  ])("counts an entry that is %s as used up, for its device alone", async (_, damage) => {
    const folder = testFolder();
    await using({ folder }, async (_store, charge) => {
      expect(await charge("damaged", 1)).toBe(9);
    });
    const level = await openClassicLevel(folder, { createIfMissing: false });
    const [key] = await level.keys(encodeWindow(0), new Uint8Array(7).fill(0xff), 2);
    await level.writeDurably([{ key: key ?? new Uint8Array(), value: damage }]);
    await level.close();

    await using({ folder }, async (store, charge) => {
      // Of one tick, and so of one batch.
      const refund = store.refund({ pseudonym: "damaged", count: 1, atMs: NOW_MS });
      const outcomes = await Promise.all([
        charge("before", 3),
        refund.then(() => "taken"),
        charge("damaged", 1),
        charge("after", 4),
      ]);
      expect(outcomes).toEqual([7, "taken", "ATTEST_ALLOWANCE_EXCEEDED", 6]);
      expect(await charge("damaged", 1)).toBe("ATTEST_ALLOWANCE_EXCEEDED");
      expect(await charge("before", 7)).toBe(0);
      expect(await charge("damaged", 10, NOW_MS + HOUR_MS)).toBe(0);
    });
  });

  it("rejects a second store on the same folder, and everything after close", async () => {
    const folder = testFolder();
    const store = await openAllowanceStore({ folder, limit: 1, windowMs: HOUR_MS });
    await expect(openAllowanceStore({ folder, limit: 1, windowMs: HOUR_MS })).rejects.toThrow(
      "another process holds the allowance store",
    );
    await store.close();
    const late = await codeOfAsync(() => store.charge({ pseudonym: "a", count: 1, atMs: NOW_MS }));
    expect(late).toBe("ATTEST_ALLOWANCE_UNAVAILABLE");
  });

  it("rejects options and charges that mean nothing", async () => {
    const folder = testFolder();
    for (const wrong of [{ limit: 0 }, { limit: 1.5 }, { windowMs: 999 }]) {
      const opening = openAllowanceStore({ folder, limit: 1, windowMs: HOUR_MS, ...wrong });
      await expect(opening).rejects.toBeInstanceOf(RangeError);
    }
    await using({ folder }, async (store) => {
      const wrongs = [{ count: 0 }, { count: 1.5 }, { atMs: -1 }, { pseudonym: "" }];
      for (const wrong of wrongs) {
        const charging = store.charge({ pseudonym: "a", count: 1, atMs: NOW_MS, ...wrong });
        await expect(charging).rejects.toBeInstanceOf(RangeError);
      }
    });
  });
});
