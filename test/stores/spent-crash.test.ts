/** Real processes, killed with SIGKILL or out of disk space, against the durability promises. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { appendFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openSpentLevelStore } from "../../service/stores/index.ts";
import { encodeHex } from "../../wire/index.ts";
import { testFolder } from "./support/folder.ts";
import { identifier } from "./support/nonces.ts";

const spender = join(import.meta.dirname, "support", "spender.ts");
const tokenKeyId = identifier("epoch");

interface Spender {
  readonly child: ChildProcess;
  /** All that it printed so far, in order. */
  readonly lines: string[];
  readonly ended: Promise<void>;
  /** Resolves when so many lines have been printed; rejects where the process ends before. */
  printed(count: number): Promise<void>;
}

/** @param limitKiB the size that no file of the process may pass: writes then fail with EFBIG. */
function startSpender(folder: string, first: number, limitKiB?: number): Spender {
  const limit = limitKiB === undefined ? "" : `ulimit -S -f ${limitKiB}; `;
  const script = `${limit}exec "$0" "$@"`;
  const args = ["-c", script, process.execPath, spender, folder, String(first)];
  const child = spawn("bash", args, { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  const lines: string[] = [];
  let rest = "";
  let wake = (): void => {};
  child.stdout.setEncoding("latin1").on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
    wake();
  });
  let isOver = false;
  const ended = new Promise<void>((resolve) => {
    child.on("close", () => {
      isOver = true;
      wake();
      resolve();
    });
  });
  const printed = async (count: number): Promise<void> => {
    while (lines.length < count) {
      if (isOver) throw new Error(`the spender ended after ${lines.slice(-1).join()}`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { child, lines, ended, printed };
}

/** Spends all of these here; gives back those that were answered "fresh". */
async function freshAmong(folder: string, indexes: readonly number[]): Promise<number[]> {
  const store = await openSpentLevelStore({ folder, maxQueued: indexes.length + 1 });
  try {
    const fresh = await Promise.all(
      indexes.map(async (index) => {
        const spend = { tokenKeyId, nonce: identifier("nonce", index), atMs: 1 };
        return (await store.spend(spend)).outcome === "fresh";
      }),
    );
    return indexes.filter((_, i) => fresh[i]);
  } finally {
    await store.close();
  }
}

describe("spent store in a process that dies", () => {
  it("never answers fresh twice over 12 rounds of SIGKILL, with a torn log tail", async () => {
    const folder = testFolder();
    const acknowledged = new Set<number>();
    let first = 0;
    for (let round = 0; round < 12; round += 1) {
      const { child, lines, ended, printed } = startSpender(folder, first);
      await printed(500 + 300 * round);
      child.kill("SIGKILL");
      await ended;
      const indexes = lines.map(Number);
      expect(indexes.length).toBeGreaterThan(400);
      // Also those that the round before had sent but that were not answered before its death.
      const twice = indexes.filter((index) => acknowledged.has(index));
      expect(twice).toEqual([]);
      for (const index of indexes) acknowledged.add(index);
      expect(acknowledged.size).toBeGreaterThan(0);
      first = Math.max(0, ...indexes.map((index) => index - 600));
      const epoch = join(folder, encodeHex(tokenKeyId));
      for (const name of readdirSync(epoch)) {
        if (name.endsWith(".log")) appendFileSync(join(epoch, name), identifier("torn", round));
      }
    }
    expect(await freshAmong(folder, [...acknowledged])).toEqual([]);
  });

  it("fails closed when its files cannot grow, and recovers when they can", async () => {
    const folder = testFolder();
    const { child, lines, ended, printed } = startSpender(folder, 0, 512);
    const refused = (): number => lines.filter((line) => line.startsWith("-")).length;
    while (refused() < 300) await printed(lines.length + 1);
    execFileSync("bash", ["-c", `prlimit --pid=${child.pid ?? 0} --fsize=unlimited:unlimited`]);
    // Of the 256 that run at once each may be refused a few times more before the disk is tried.
    const before = lines.length - refused();
    while (lines.length - refused() < before + 20_000) await printed(lines.length + 1);
    child.kill("SIGKILL");
    await ended;
    const fresh = lines.filter((line) => !line.startsWith("-")).map(Number);
    expect(new Set(fresh).size).toBe(fresh.length);
    expect(await freshAmong(folder, fresh)).toEqual([]);
  });

  it("rejects a second process on the same folder", async () => {
    const folder = testFolder();
    const store = await openSpentLevelStore({ folder });
    const { lines, ended } = startSpender(folder, 0);
    await ended;
    await store.close();
    expect(lines).toEqual(["TOKEN_STORE_UNAVAILABLE: another process holds the spent-token store"]);
  });
});
