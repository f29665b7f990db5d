/**
 * Tokens on disk, waiting for their challenge. A token leaves the wallet at most once, whatever
 * crashes: it is marked as taken, on stable storage, before it is handed out. A crash in between loses
 * that token and nothing else.
 * The tokens lie there in the clear, for the owner of the files: the directory must be private. One
 * process at a time holds the wallet.
 */
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { StileError } from "../../wire/index.ts";
import type { PresentedToken } from "../challenge/private-token.ts";
import { type JournalFile, openJournal } from "./journal-file.ts";
import { MAX_PAYLOAD_BYTES } from "./journal-format.ts";
import { createTokenIndex, heldToken, sha256, type TokenIndex, tokenIdOf } from "./token-index.ts";
import { lockWallet, type WalletLock } from "./wallet-lock.ts";

export interface WalletOptions {
  /** Created with mode 0700 if absent. */
  readonly dir: string;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** The journal is rewritten once it is larger than this and half of it is dead. 1 or more. */
  readonly compactAtBytes?: number;
}

export interface WalletToken {
  /** The encoded token; verified by whoever finalised it. */
  readonly token: Uint8Array;
  /**
   * Unix milliseconds from which on it is not handed out: the end of its key or challenge. A token that says
   * an earlier end itself has that.
   */
  readonly expiresAtMs: number;
  /** Encoded; of a token whose type has public metadata, and of no other. */
  readonly extensions?: Uint8Array;
}

export interface Wallet {
  /**
   * Keeps the tokens; resolves when all of them are on disk, and a crash before keeps all or none.
   * A token that is in the wallet, or was and is still remembered as taken, is not added again.
   * @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` for bytes that are no token; `TOKEN_METADATA_REFUSED` for one
   * without its extensions, or with more than an expiration; RangeError above 1 MiB
   */
  put(tokens: readonly WalletToken[]): Promise<void>;
  /**
   * A token for the challenge with this SHA-256, the one that expires first, and what is to be presented
   * with it. It is gone from the wallet for good. @throws `TOKEN_WALLET_EMPTY`
   */
  take(challengeDigest: Uint8Array): Promise<PresentedToken>;
  /** How many tokens for this challenge could be taken now. */
  count(challengeDigest: Uint8Array): number;
  /** Waits for running calls and frees the lock. Later calls reject with `TOKEN_WALLET_DAMAGED`. */
  close(): Promise<void>;
}

const DEFAULT_COMPACT_AT_BYTES = 1_048_576;

/**
 * Every method but `count` rejects with `TOKEN_WALLET_DAMAGED` once a write has failed: what is on
 * disk is then unknown until the wallet is opened again.
 * @throws `TOKEN_WALLET_LOCKED`, `TOKEN_WALLET_DAMAGED`
 */
export async function openWallet(options: WalletOptions): Promise<Wallet> {
  await mkdir(options.dir, { recursive: true, mode: 0o700 });
  await chmod(options.dir, 0o700);
  const lock = lockWallet(join(options.dir, "wallet.lock"));
  try {
    const { journal, entries } = await openJournal(join(options.dir, "wallet.journal"), sha256);
    const index = createTokenIndex(entries);
    await dropExpired(journal, index, options.clock());
    return createWallet(journal, lock, index, options);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** From the disk, too. What was taken stays known: it must not be added again. */
async function dropExpired(journal: JournalFile, index: TokenIndex, nowMs: number): Promise<void> {
  if (index.dropExpired(nowMs) === 0) return;
  const live = index.live(nowMs);
  await journal.rewrite([
    ...live.map((token) => ({ kind: "added" as const, tokens: [token] })),
    ...index.taken().map((id) => ({ kind: "taken" as const, id })),
  ]);
}

function createWallet(
  journal: JournalFile,
  lock: WalletLock,
  index: TokenIndex,
  { clock, compactAtBytes = DEFAULT_COMPACT_AT_BYTES }: WalletOptions,
): Wallet {
  const writes = createWriteQueue();

  async function compactIfWorthwhile(): Promise<void> {
    if (journal.size <= compactAtBytes) return;
    const live = index.live(clock());
    if (live.reduce((sum, { token }) => sum + token.length, 0) > journal.size / 2) return;
    await journal.rewrite(live.map((token) => ({ kind: "added", tokens: [token] })));
    index.forgetAllBut(live);
  }

  return {
    async put(tokens) {
      const bytes = tokens.reduce(
        (sum, { extensions, token }) => sum + token.length + (extensions?.length ?? 0) + 12,
        1,
      );
      if (bytes > MAX_PAYLOAD_BYTES) throw new RangeError("expected at most 1 MiB of tokens");
      const incoming = tokens.map(heldToken);
      await writes.inTurn(async () => {
        index.dropExpired(clock());
        const fresh = index.unknownOf(incoming);
        if (fresh.length === 0) return;
        await journal.append({ kind: "added", tokens: fresh });
        index.add(fresh);
        await compactIfWorthwhile();
      });
    },
    async take(challengeDigest) {
      const [held] = index.available(challengeDigest, clock());
      if (held === undefined) {
        throw new StileError("TOKEN_WALLET_EMPTY", "no token for this challenge");
      }
      // Out of the index before anything is awaited, so that two calls never pick the same one.
      index.take(held);
      await writes.inTurn(async () => {
        await journal.append({ kind: "taken", id: tokenIdOf(held.token) });
        await compactIfWorthwhile();
      });
      const { extensions, token } = held;
      return {
        token: Uint8Array.from(token),
        ...(extensions === undefined ? {} : { extensions: Uint8Array.from(extensions) }),
      };
    },
    count: (challengeDigest) => index.available(challengeDigest, clock()).length,
    close: () =>
      writes.close(async () => {
        await journal.close();
        lock.release();
      }),
  };
}

interface WriteQueue {
  /** Runs writes one after the other; the first failure ends them all. @throws `TOKEN_WALLET_DAMAGED` */
  inTurn(work: () => Promise<void>): Promise<void>;
  /** Runs `last` once, after everything that was queued, whether that failed or not. */
  close(last: () => Promise<void>): Promise<void>;
}

function createWriteQueue(): WriteQueue {
  let queue: Promise<void> = Promise.resolve();
  let isUsable = true;
  let closed: Promise<void> | undefined;

  async function run(work: () => Promise<void>): Promise<void> {
    if (!isUsable) throw new StileError("TOKEN_WALLET_DAMAGED", "the wallet is closed or failed");
    try {
      await work();
    } catch (cause) {
      isUsable = false;
      throw new StileError("TOKEN_WALLET_DAMAGED", "a write to the wallet failed", { cause });
    }
  }

  return {
    inTurn(work) {
      const result = queue.then(() => run(work));
      queue = result.catch(() => undefined);
      return result;
    },
    close(last) {
      closed ??= queue.then(() => {
        isUsable = false;
        return last();
      });
      return closed;
    },
  };
}
