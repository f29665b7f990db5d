/** Tokens of type 0xDA7A in the wallet: with their extensions, and never past the expiration that these say. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openWallet, type WalletToken } from "../../tokens/client/index.ts";
import { encodeExtensions, encodeToken, expirationExtension } from "../../tokens/index.ts";
import { codeOfAsync } from "../support/reject.ts";

const root = mkdtempSync(join(tmpdir(), "stile-wallet-metadata-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const freshDir = (): string => mkdtempSync(join(root, "wallet-"));

const digestA = new Uint8Array(32).fill(0xaa);
const LATE_MS = 1_000_000;
const PARTIALLY_BLIND = 0xda7a;

/** A token that no one verified: the wallet looks at its frame only. */
const tokenOf = (serial: number, tokenType: number): Uint8Array =>
  encodeToken({
    tokenType,
    nonce: new Uint8Array(32).fill(serial),
    challengeDigest: digestA,
    tokenKeyId: new Uint8Array(32),
    authenticator: new Uint8Array(256).fill(serial),
  });
const plain = (serial: number): WalletToken => ({
  token: tokenOf(serial, 2),
  expiresAtMs: LATE_MS,
});

describe("wallet of tokens with metadata", () => {
  const extended = (serial: number, endsAtSeconds: number, expiresAtMs = LATE_MS): WalletToken => {
    const expiration = { timestamp: BigInt(endsAtSeconds), timestampPrecision: 3_600n };
    return {
      token: tokenOf(serial, PARTIALLY_BLIND),
      expiresAtMs,
      extensions: encodeExtensions([expirationExtension(expiration)]),
    };
  };

  it("keeps the extensions with the token, beside tokens without any, across restarts", async () => {
    const dir = freshDir();
    const first = await openWallet({ dir, clock: () => 0 });
    const token = extended(1, 500);
    await first.put([token, plain(2)]);
    await first.put([plain(3)]);
    await first.close();
    const second = await openWallet({ dir, clock: () => 0 });
    const taken = [await second.take(digestA), await second.take(digestA)];
    expect(taken[0]).toEqual({ token: token.token, extensions: token.extensions });
    expect(taken[1]).not.toHaveProperty("extensions");
    await second.close();
  });

  it("offers none that its own expiration has ended, and drops it from the disk", async () => {
    const dir = freshDir();
    const clock = { nowMs: 0 };
    const wallet = await openWallet({ dir, clock: () => clock.nowMs });
    const [taken, early, late] = [extended(1, 450), extended(2, 200), extended(3, 500, 400_000)];
    await wallet.put([taken]);
    await wallet.take(digestA);
    await wallet.put([late, early]);
    clock.nowMs = 199_999;
    expect(wallet.count(digestA)).toBe(2);
    clock.nowMs = 200_000;
    expect(wallet.count(digestA)).toBe(1);
    await wallet.close();
    const holds = ({ token }: WalletToken): boolean =>
      readFileSync(join(dir, "wallet.journal")).includes(token);
    expect([holds(early), holds(late)]).toEqual([true, true]);
    await (await openWallet({ dir, clock: () => clock.nowMs })).close();
    expect([holds(taken), holds(early), holds(late)]).toEqual([false, false, true]);
    // What was taken before is still known.
    const again = await openWallet({ dir, clock: () => clock.nowMs });
    await again.put([taken, late]);
    expect(again.count(digestA)).toBe(1);
    // The challenge ends before the token does.
    clock.nowMs = 400_000;
    expect(await codeOfAsync(() => again.take(digestA))).toBe("TOKEN_WALLET_EMPTY");
    await again.close();
  });

  it("rejects a token without its extensions, with those of another type, or with more than one", async () => {
    const wallet = await openWallet({ dir: freshDir(), clock: () => 0 });
    const { extensions, ...without } = extended(1, 500);
    const expiration = expirationExtension({ timestamp: 500n, timestampPrecision: 3_600n });
    for (const wrong of [
      without,
      { ...plain(1), extensions: extensions! },
      { ...without, extensions: encodeExtensions([]) },
      { ...without, extensions: encodeExtensions([expiration, expiration]) },
    ]) {
      expect(await codeOfAsync(() => wallet.put([wrong]))).toBe("TOKEN_METADATA_REFUSED");
    }
    expect(wallet.count(digestA)).toBe(0);
    await wallet.close();
  });
});
