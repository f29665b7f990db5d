import { describe, expect, it } from "vitest";
import { GroupCommit, type GroupCommitOptions } from "../../service/stores/group-commit.ts";

type Batches = { readonly batches: number[][]; open: () => void };

/** Doubles numbers; each commit waits until the test opens the gate. */
function doubling(options: Partial<GroupCommitOptions<number, number>> = {}): {
  group: GroupCommit<number, number>;
  seen: Batches;
} {
  const waiting: (() => void)[] = [];
  const seen: Batches = { batches: [], open: () => waiting.shift()?.() };
  const group = new GroupCommit<number, number>({
    async commit(batch) {
      seen.batches.push([...batch]);
      await new Promise<void>((resolve) => {
        waiting.push(resolve);
      });
      return batch.map((value) => value * 2);
    },
    refuse: (reason) => new Error(reason),
    maxQueued: 4,
    maxBatch: 3,
    stallMs: 100,
    monotonicMs: () => 0,
    ...options,
  });
  return { group, seen };
}

async function turns(): Promise<void> {
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
}

describe("group commit", () => {
  it("puts requests of one tick in one batch and later ones in the next", async () => {
    const { group, seen } = doubling();
    const first = [group.submit(1), group.submit(2)];
    await turns();
    const second = [group.submit(3), group.submit(4), group.submit(5), group.submit(6)];
    seen.open();
    expect(await Promise.all(first)).toEqual([2, 4]);
    await turns();
    seen.open();
    await turns();
    seen.open();
    expect(await Promise.all(second)).toEqual([6, 8, 10, 12]);
    expect(seen.batches).toEqual([[1, 2], [3, 4, 5], [6]]);
  });

  it("rejects what does not fit the queue, at once", async () => {
    let shed = 0;
    const { group, seen } = doubling({ observe: { shed: () => (shed += 1) } });
    const running = group.submit(0);
    await turns();
    const waiting = [1, 2, 3, 4].map((value) => group.submit(value));
    await expect(group.submit(5)).rejects.toThrow("the queue is full");
    expect(shed).toBe(1);
    for (let i = 0; i < 3; i += 1) {
      seen.open();
      await turns();
    }
    expect(await Promise.all([running, ...waiting])).toEqual([0, 2, 4, 6, 8]);
  });

  it("rejects new requests while one batch stalls, and takes them again after it", async () => {
    let nowMs = 0;
    const { group, seen } = doubling({ monotonicMs: () => nowMs });
    const slow = group.submit(1);
    await turns();
    nowMs = 101;
    await expect(group.submit(2)).rejects.toThrow("the disk does not answer");
    seen.open();
    expect(await slow).toBe(2);
    const later = group.submit(3);
    await turns();
    seen.open();
    expect(await later).toBe(6);
  });

  it("rejects every request of a batch whose commit fails, and goes on", async () => {
    let fail = true;
    const { group } = doubling({
      commit: (batch) => (fail ? Promise.reject(new Error("disk")) : Promise.resolve(batch)),
    });
    const results = await Promise.allSettled([group.submit(1), group.submit(2)]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    fail = false;
    expect(await group.submit(3)).toBe(3);
  });

  it("rejects a batch that a faulty commit did not answer in full", async () => {
    const { group } = doubling({ commit: () => Promise.resolve([1]) });
    const results = await Promise.allSettled([group.submit(1), group.submit(2)]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  });

  it("answers what was taken before it closes, and rejects what comes after", async () => {
    const { group, seen } = doubling();
    const taken = group.submit(21);
    const closing = group.close();
    await expect(group.submit(1)).rejects.toThrow("the store is closed");
    await turns();
    seen.open();
    await closing;
    expect(await taken).toBe(42);
  });
});
