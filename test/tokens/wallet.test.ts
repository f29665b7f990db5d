import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout } from "node:timers/promises";
import { afterAll, describe, expect, it } from "vitest";
import { encodeToken, parseToken } from "../../tokens/index.ts";
import { openWallet, type Wallet, type WalletToken } from "../../tokens/client/index.ts";
import { encodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { waitFor } from "../support/wait-for.ts";

const root = mkdtempSync(join(tmpdir(), "stile-wallet-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let directories = 0;
function freshDir(): string {
  directories += 1;
  return join(root, String(directories));
}

const digestA = new Uint8Array(32).fill(0xaa);
const digestB = new Uint8Array(32).fill(0xbb);
const LATE_MS = 1_000_000;

/** A token that no one verified: the wallet looks at its frame only. */
function tokenOf(serial: number, challengeDigest = digestA): Uint8Array {
  const nonce = new Uint8Array(32);
  new DataView(nonce.buffer).setUint32(0, serial);
  const tokenKeyId = new Uint8Array(32);
  const authenticator = new Uint8Array(256).fill(serial);
  return encodeToken({ tokenType: 2, nonce, challengeDigest, tokenKeyId, authenticator });
}

function tokens(count: number, from = 0, expiresAtMs = LATE_MS): WalletToken[] {
  return Array.from({ length: count }, (_, i) => ({ token: tokenOf(from + i), expiresAtMs }));
}

const open = (
  dir: string,
  more: { nowMs?: number; compactAtBytes?: number } = {},
): Promise<Wallet> => openWallet({ dir, clock: () => more.nowMs ?? 0, ...more });

function serialOf(token: Uint8Array): number {
  const { nonce } = parseToken(token);
  return new DataView(Uint8Array.from(nonce).buffer).getUint32(0);
}

const take = async (wallet: Wallet, digest = digestA): Promise<Uint8Array> =>
  (await wallet.take(digest)).token;

async function takeAll(wallet: Wallet, digest = digestA): Promise<number[]> {
  const serials: number[] = [];
  while (wallet.count(digest) > 0) serials.push(serialOf(await take(wallet, digest)));
  return serials.sort((a, b) => a - b);
}

describe("wallet", () => {
  it("keeps tokens by challenge, across restarts, and hands each out once", async () => {
    const dir = freshDir();
    const first = await open(dir);
    await first.put([...tokens(3), { token: tokenOf(9, digestB), expiresAtMs: LATE_MS }]);
    expect([first.count(digestA), first.count(digestB)]).toEqual([3, 1]);
    const taken = await take(first);
    await first.close();
    const second = await open(dir);
    expect([second.count(digestA), second.count(digestB)]).toEqual([2, 1]);
    expect(await takeAll(second)).toEqual([0, 1, 2].filter((serial) => serial !== serialOf(taken)));
    expect(await takeAll(second, digestB)).toEqual([9]);
    expect(await codeOfAsync(() => second.take(digestA))).toBe("TOKEN_WALLET_EMPTY");
    await second.close();
    await second.close();
  });

  it("gives the token that expires first and never one that has expired", async () => {
    const dir = freshDir();
    const wallet = await open(dir, { nowMs: 100 });
    await wallet.put([...tokens(1, 1, 300), ...tokens(1, 2, 200), ...tokens(1, 3, 100)]);
    expect(wallet.count(digestA)).toBe(2);
    expect(serialOf(await take(wallet))).toBe(2);
    await wallet.close();
    const later = await open(dir, { nowMs: 300 });
    expect(await codeOfAsync(() => later.take(digestA))).toBe("TOKEN_WALLET_EMPTY");
    await later.close();
  });

  it("does not add a token again that it holds or has handed out", async () => {
    const dir = freshDir();
    const wallet = await open(dir);
    await wallet.put([...tokens(2), ...tokens(2)]);
    await wallet.put(tokens(2));
    await wallet.take(digestA);
    await wallet.put(tokens(2));
    expect(wallet.count(digestA)).toBe(1);
    await wallet.close();
    const again = await open(dir);
    await again.put(tokens(2));
    expect(again.count(digestA)).toBe(1);
    await again.close();
  });

  it("concurrent takes and puts, with compaction between them, never double a token", async () => {
    const dir = freshDir();
    const wallet = await open(dir, { compactAtBytes: 1 });
    await wallet.put(tokens(40));
    const all = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        if (i % 3 === 2) return wallet.put(tokens(1, 100 + i)).then(() => []);
        return [serialOf(await take(wallet))];
      }),
    );
    const rest = await takeAll(wallet);
    const serials = [...all.flat(), ...rest];
    expect(new Set(serials).size).toBe(60);
    expect(serials).toHaveLength(60);
    expect(statSync(join(dir, "wallet.journal")).size).toBeLessThan(500);
    await wallet.close();
    const reopened = await open(dir);
    expect(reopened.count(digestA)).toBe(0);
    await reopened.close();
  });

  it("a token that is taken while the journal is rewritten stays taken", async () => {
    const dir = freshDir();
    const wallet = await open(dir, { compactAtBytes: 1 });
    await wallet.put(tokens(100));
    const pending: Promise<Uint8Array>[] = [];
    // A take a millisecond: about as fast as the disk, so that some fall into a rewrite.
    while (wallet.count(digestA) > 0 && pending.length < 200) {
      pending.push(take(wallet));
      await setTimeout(1);
    }
    const serials = (await Promise.all(pending)).map(serialOf);
    expect([serials.length, new Set(serials).size]).toEqual([100, 100]);
    await wallet.close();
  });

  it("compacts taken and expired tokens away", async () => {
    const dir = freshDir();
    const journal = join(dir, "wallet.journal");
    const wallet = await open(dir, { nowMs: 50, compactAtBytes: 4000 });
    await wallet.put([...tokens(10, 0, 50), ...tokens(3, 50)]);
    expect(statSync(journal).size).toBeLessThan(1500);
    expect(wallet.count(digestA)).toBe(3);
    await wallet.close();
    const again = await open(dir);
    expect(await takeAll(again)).toEqual([50, 51, 52]);
    await again.close();
  });

  it("is readable by its owner alone, also where it was not before", async () => {
    const dir = freshDir();
    await (await open(dir)).close();
    chmodSync(dir, 0o755);
    chmodSync(join(dir, "wallet.journal"), 0o644);
    const wallet = await open(dir, { compactAtBytes: 1 });
    await wallet.put(tokens(2));
    await takeAll(wallet);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(dir)) {
      expect([name, statSync(join(dir, name)).mode & 0o777]).toEqual([name, 0o600]);
    }
    await wallet.close();
  });

  it("rejects what is no token, an impossible instant, and too much at once", async () => {
    const wallet = await open(freshDir());
    const put = (token: Uint8Array, expiresAtMs: number): Promise<string> =>
      codeOfAsync(() => wallet.put([{ token, expiresAtMs }]));
    expect(await put(tokenOf(1).subarray(1), 1)).toMatch(/^(WIRE_|TOKEN_TYPE_UNSUPPORTED)/);
    for (const instant of [-1, 1.5, Number.NaN]) {
      expect(await put(tokenOf(1), instant)).toMatch(/RangeError/);
    }
    await expect(wallet.put(tokens(3000))).rejects.toThrow(RangeError);
    await wallet.put([]);
    expect(wallet.count(digestA)).toBe(0);
    await wallet.put(tokens(1));
    await wallet.close();
    expect(await codeOfAsync(() => wallet.take(digestA))).toBe("TOKEN_WALLET_DAMAGED");
    expect(await codeOfAsync(() => wallet.put(tokens(1)))).toBe("TOKEN_WALLET_DAMAGED");
  });

  it("rejects everything after a write that failed, and frees the lock", async () => {
    const dir = freshDir();
    const wallet = await open(dir, { compactAtBytes: 1 });
    await wallet.put(tokens(1));
    // Compaction cannot make its new file where a directory lies.
    mkdirSync(join(dir, "wallet.journal.new"));
    expect(await codeOfAsync(() => wallet.take(digestA))).toBe("TOKEN_WALLET_DAMAGED");
    expect(await codeOfAsync(() => wallet.put(tokens(1, 5)))).toBe("TOKEN_WALLET_DAMAGED");
    await wallet.close();
    rmSync(join(dir, "wallet.journal.new"), { recursive: true });
    const again = await open(dir);
    expect(again.count(digestA)).toBe(0);
    await again.close();
  });

  it("rejects a journal that is a symbolic link", async () => {
    const dir = freshDir();
    mkdirSync(dir);
    writeFileSync(join(root, "elsewhere"), "");
    symlinkSync(join(root, "elsewhere"), join(dir, "wallet.journal"));
    await expect(open(dir)).rejects.toThrow(/ELOOP/);
  });
});

describe("torn and damaged journals", () => {
  async function journalOf(): Promise<{ bytes: Uint8Array; sizes: number[] }> {
    const dir = freshDir();
    const path = join(dir, "wallet.journal");
    const wallet = await open(dir);
    const sizes = [statSync(path).size];
    const step = async (work: Promise<unknown>): Promise<void> => {
      await work;
      sizes.push(statSync(path).size);
    };
    await step(wallet.put(tokens(2)));
    await step(wallet.take(digestA));
    await step(wallet.put(tokens(1, 7)));
    await step(wallet.take(digestA));
    await wallet.close();
    return { bytes: new Uint8Array(readFileSync(path)), sizes };
  }

  async function openBytes(bytes: Uint8Array): Promise<Wallet> {
    const dir = freshDir();
    mkdirSync(dir);
    writeFileSync(join(dir, "wallet.journal"), bytes);
    return open(dir);
  }

  it("cut at every byte: opens with what was complete, and goes on from there", async () => {
    const { bytes, sizes } = await journalOf();
    const held = [[], [0, 1], [1], [1, 7], [7]];
    const dir = freshDir();
    mkdirSync(dir);
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      writeFileSync(join(dir, "wallet.journal"), bytes.subarray(0, cut));
      const wallet = await open(dir);
      const complete = sizes.filter((size) => size <= cut).length - 1;
      const expected = held[Math.max(0, complete)] ?? [];
      expect(wallet.count(digestA)).toBe(expected.length);
      if (cut % 37 === 0) {
        await wallet.put(tokens(1, 90));
        await wallet.close();
        const again = await open(dir);
        expect(await takeAll(again)).toEqual([...expected, 90]);
        await again.close();
      }
      await wallet.close();
    }
  }, 60_000);

  it("opens where the file system grew the file before the data came: zeros, or half a record", async () => {
    const { bytes, sizes } = await journalOf();
    const last = sizes.at(-2) ?? 0;
    const zeros = Uint8Array.from(bytes).fill(0, last);
    const half = Uint8Array.from(bytes).fill(0, last + 20);
    for (const torn of [
      zeros,
      half,
      Uint8Array.of(...bytes, 0, 0, 0),
      Uint8Array.of(...bytes, 1),
    ]) {
      const wallet = await openBytes(torn);
      expect(wallet.count(digestA)).toBe(torn.length > bytes.length ? 1 : 2);
      await wallet.close();
    }
  });

  it("rejects a journal in which a byte before the last record is wrong", async () => {
    const { bytes, sizes } = await journalOf();
    const last = sizes.at(-2) ?? 0;
    for (let at = 0; at < last; at += 5) {
      const wrong = Uint8Array.from(bytes);
      wrong[at] = (wrong[at] ?? 0) ^ 0x10;
      expect(await codeOfAsync(() => openBytes(wrong))).toBe("TOKEN_WALLET_DAMAGED");
    }
    const dir = freshDir();
    mkdirSync(dir);
    writeFileSync(join(dir, "wallet.journal"), "another kind of file");
    expect(await codeOfAsync(() => open(dir))).toBe("TOKEN_WALLET_DAMAGED");
    // the refusal freed the lock, and left the file as it was
    expect(await codeOfAsync(() => open(dir))).toBe("TOKEN_WALLET_DAMAGED");
    expect(readFileSync(join(dir, "wallet.journal"), "utf8")).toBe("another kind of file");
  });

  it("a compaction that a crash cut short leaves the old journal in force", async () => {
    const { bytes } = await journalOf();
    const dir = freshDir();
    mkdirSync(dir);
    writeFileSync(join(dir, "wallet.journal"), bytes);
    appendFileSync(join(dir, "wallet.journal.new"), bytes.subarray(0, 40));
    const wallet = await open(dir);
    expect(readdirSync(dir)).not.toContain("wallet.journal.new");
    expect(await takeAll(wallet)).toEqual([7]);
    await wallet.close();
  });
});

describe("processes", () => {
  const script = join(import.meta.dirname, "wallet-child.ts");

  interface Taker {
    readonly child: ChildProcess;
    readonly output: { text: string };
    readonly errors: { text: string };
    /** Resolves when all that it wrote was read, with what it was killed by. */
    readonly ended: Promise<NodeJS.Signals | null>;
  }

  function textOf(stream: Readable): { text: string } {
    const read = { text: "" };
    stream.setEncoding("utf8").on("data", (text: string) => {
      read.text += text;
    });
    return read;
  }

  /** @param turns after how many of the event loop it kills itself, taking on; else it holds the wallet */
  function startTaker(dir: string, takes: number, turns?: number): Taker {
    const args = [script, dir, encodeHex(digestA), String(takes)];
    if (turns !== undefined) args.push(String(turns));
    const child = spawn(process.execPath, args, { stdio: "pipe" });
    const ended = once(child, "close").then(([, signal]) => signal as NodeJS.Signals | null);
    return { child, output: textOf(child.stdout), errors: textOf(child.stderr), ended };
  }

  async function kill({ child, ended }: Taker): Promise<void> {
    child.kill("SIGKILL");
    await ended;
  }

  it("killed over and over while it takes tokens: none comes out twice, none is lost but one a kill", async () => {
    const dir = freshDir();
    const TOTAL = 300;
    const filling = await open(dir);
    await filling.put(tokens(TOTAL));
    await filling.close();
    const serials: number[] = [];
    let kills = 0;
    for (let isKilled = true; isKilled;) {
      const taker = startTaker(dir, 1 + ((kills * 17) % 61), (kills * 37) % 200);
      isKilled = (await taker.ended) === "SIGKILL";
      if (isKilled) kills += 1;
      const [opened, ...ids] = taker.output.text.split("\n").slice(0, -1);
      expect(opened, taker.errors.text).toBe("open"); // the killed holder's lock was free
      serials.push(...ids.map((id) => Number.parseInt(id.slice(0, 8), 16)));
    }
    const wallet = await open(dir);
    expect(wallet.count(digestA)).toBe(0);
    await wallet.close();
    expect(new Set(serials).size).toBe(serials.length);
    expect(kills).toBeGreaterThan(1);
    expect(serials.length).toBeGreaterThanOrEqual(TOTAL - kills);
  }, 60_000);

  it("rejects a second process, and a second opening in the same one, while the first lives", async () => {
    const dir = freshDir();
    const wallet = await open(dir);
    expect(await codeOfAsync(() => open(dir))).toBe("TOKEN_WALLET_LOCKED");
    // the refused opening in this process must not have dropped the lock for others
    const refused = startTaker(dir, 0);
    await refused.ended;
    expect(refused.errors.text).toContain("TOKEN_WALLET_LOCKED");
    await wallet.put(tokens(50));
    await wallet.close();
    const taker = startTaker(dir, 1);
    await waitFor(() => expect(taker.output.text.split("\n")).toHaveLength(3), { timeout: 20_000 });
    expect(await codeOfAsync(() => open(dir))).toBe("TOKEN_WALLET_LOCKED");
    await kill(taker);
    await (await open(dir)).close();
  });
});
