import { mkdirSync, renameSync, rmdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { openSpentLevelStore, type SpentLevelStoreOptions } from "../../service/stores/index.ts";
import type { SpentStore } from "../../tokens/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { type Faults, faultyLevel } from "./support/faulty-level.ts";
import { testFolder } from "./support/folder.ts";
import { identifier } from "./support/nonces.ts";

const tokenKeyId = identifier("epoch");

interface Setting {
  readonly store: SpentStore;
  readonly faults: Faults;
  /** The outcome of spending a nonce, or the code of the refusal. */
  spend(index: number, bindingLabel?: string): Promise<string>;
}

async function faulty(
  work: (setting: Setting) => Promise<void>,
  options: Partial<SpentLevelStoreOptions> = {},
): Promise<void> {
  const { faults, openLevel } = faultyLevel();
  const folder = testFolder();
  const store = await openSpentLevelStore({ folder, openLevel, reopenDelayMs: 0, ...options });
  const spend = async (index: number, bindingLabel?: string): Promise<string> => {
    const binding = bindingLabel === undefined ? {} : { binding: identifier(bindingLabel) };
    const request = { tokenKeyId, nonce: identifier("nonce", index), atMs: 1, ...binding };
    let outcome = "";
    const code = await codeOfAsync(async () => {
      ({ outcome } = await store.spend(request));
    });
    return outcome === "" ? code : outcome;
  };
  try {
    await work({ store, faults, spend });
  } finally {
    await store.close();
  }
}

describe("spent store on a failing disk", () => {
  it("rejects spends while writes fail, and recovers by itself", async () => {
    await faulty(async ({ faults, spend }) => {
      expect(await spend(1)).toBe("fresh");
      faults.write = "before";
      expect(await Promise.all([spend(2), spend(1)])).toEqual([
        "TOKEN_STORE_UNAVAILABLE",
        "TOKEN_STORE_UNAVAILABLE",
      ]);
      faults.write = undefined;
      expect(await Promise.all([spend(1), spend(2), spend(2)])).toEqual([
        "spent",
        "fresh",
        "spent",
      ]);
    });
  });

  it("does not lose a nonce whose failed write had reached the disk, nor double it", async () => {
    await faulty(async ({ faults, spend }) => {
      faults.write = "after";
      expect(await spend(1, "a")).toBe("TOKEN_STORE_UNAVAILABLE");
      expect(await spend(1, "a")).toBe("TOKEN_STORE_UNAVAILABLE");
      faults.write = undefined;
      expect(await Promise.all([spend(1, "b"), spend(1, "a")])).toEqual(["fresh", "spent"]);
      expect(await spend(1, "b")).toBe("repeat");
    });
  });

  it("counts a nonce whose failed write had reached the disk once", async () => {
    const counts: number[] = [];
    const entries = (_: string, count: number): number => counts.push(count);
    await faulty(
      async ({ faults, spend }) => {
        faults.write = "after";
        await spend(1);
        faults.write = undefined;
        await spend(1);
        await spend(2);
      },
      { observe: { entries } },
    );
    expect(counts).toEqual([1, 2]);
  });

  it("takes the disk's word for a nonce in doubt after the process has ended", async () => {
    const folder = testFolder();
    await faulty(
      async ({ faults, spend }) => {
        faults.write = "after";
        await spend(1);
      },
      { folder },
    );
    await faulty(
      async ({ spend }) => {
        expect(await spend(1)).toBe("spent");
      },
      { folder },
    );
  });

  it("rejects spends while reads fail, and writes nothing", async () => {
    await faulty(async ({ faults, spend }) => {
      faults.read = true;
      expect(await spend(1)).toBe("TOKEN_STORE_UNAVAILABLE");
      expect(faults.writes).toBe(0);
      faults.read = false;
      expect(await spend(1)).toBe("fresh");
    });
  });

  it("opens the database anew after a failure, not more often than the delay allows", async () => {
    let nowMs = 0;
    await faulty(
      async ({ faults, spend }) => {
        expect(await spend(1)).toBe("fresh");
        const opens = faults.opens;
        faults.write = "before";
        expect(await spend(2)).toBe("TOKEN_STORE_UNAVAILABLE");
        faults.write = undefined;
        nowMs = 199;
        expect(await spend(2)).toBe("TOKEN_STORE_UNAVAILABLE");
        expect(faults.opens).toBe(opens);
        nowMs = 200;
        faults.open = true;
        expect(await spend(2)).toBe("TOKEN_STORE_UNAVAILABLE");
        faults.open = false;
        nowMs = 400;
        expect(await spend(2)).toBe("fresh");
        expect(faults.opens).toBe(opens + 1);
      },
      { reopenDelayMs: 200, monotonicMs: () => nowMs },
    );
  });

  it("rejects what the queue cannot hold while a write hangs, and answers the rest after it", async () => {
    let shed = 0;
    await faulty(
      async ({ faults, spend }) => {
        expect(await spend(0)).toBe("fresh");
        let open = (): void => {};
        faults.gate = new Promise((resolve) => {
          open = resolve;
        });
        const hanging = spend(1);
        await new Promise((resolve) => {
          setTimeout(resolve, 20);
        });
        const waiting = [spend(2), spend(3)];
        expect(await spend(4)).toBe("TOKEN_STORE_UNAVAILABLE");
        expect(shed).toBe(1);
        open();
        expect(await Promise.all([hanging, ...waiting])).toEqual(["fresh", "fresh", "fresh"]);
        expect(await spend(4)).toBe("fresh");
      },
      { maxQueued: 2, observe: { shed: () => (shed += 1) } },
    );
  });

  it("rejects spends of a new epoch while the volume of the store is unmounted", async () => {
    const folder = testFolder();
    await faulty(
      async ({ spend }) => {
        renameSync(folder, `${folder}-away`);
        expect(await spend(1)).toBe("TOKEN_STORE_UNAVAILABLE");
        mkdirSync(folder);
        expect(await spend(1)).toBe("TOKEN_STORE_UNAVAILABLE");
        rmdirSync(folder);
        renameSync(`${folder}-away`, folder);
        expect(await spend(1)).toBe("fresh");
      },
      { folder },
    );
  });

  it("rejects a drop that cannot be made durable, and goes on refusing its spends", async () => {
    const folder = testFolder();
    await faulty(
      async ({ store, spend }) => {
        expect(await spend(1)).toBe("fresh");
        renameSync(folder, `${folder}-away`);
        expect(await codeOfAsync(() => store.dropEpoch(tokenKeyId))).toBe(
          "TOKEN_STORE_UNAVAILABLE",
        );
        renameSync(`${folder}-away`, folder);
        expect(await spend(1)).toBe("TOKEN_KEY_UNKNOWN");
        await store.dropEpoch(tokenKeyId);
      },
      { folder },
    );
  });
});
