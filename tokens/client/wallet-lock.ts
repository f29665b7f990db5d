/**
 * One process per wallet. The lock is SQLite's on an empty database beside the journal: a lock of the
 * kernel, so it is free the moment its holder is dead, however it died, and it can not be stolen from
 * one that lives, as lock files with process ids can. Nothing is ever stored in that database.
 */
import { closeSync, existsSync, openSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { StileError } from "../../wire/index.ts";

export interface WalletLock {
  release(): void;
}

/** SQLITE_BUSY. */
const SQLITE_BUSY = 5;

/** @throws `TOKEN_WALLET_LOCKED` when another process, or this one, holds it */
export function lockWallet(path: string): WalletLock {
  createPrivate(path);
  const database = new DatabaseSync(path);
  try {
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (cause) {
    database.close();
    if (!isBusy(cause)) throw cause;
    throw new StileError("TOKEN_WALLET_LOCKED", "another process holds the wallet", { cause });
  }
  return {
    release() {
      database.close();
    },
  };
}

/**
 * Made before SQLite does it, which would let others read it. A file that is there is not opened:
 * closing any descriptor of it would drop this process's own lock (POSIX record locks).
 */
function createPrivate(path: string): void {
  if (!existsSync(path)) closeSync(openSync(path, "a", 0o600));
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && "errcode" in error && error.errcode === SQLITE_BUSY;
}
