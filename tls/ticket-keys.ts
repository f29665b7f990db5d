/**
 * Keys of session tickets (RFC 8446 §4.6.1) that change by the clock: who gets one can pass for this server
 * towards clients that resume, so none lives long. Alone a process takes random keys and forgets them; processes
 * that share a file derive the same key at the same time (HKDF, RFC 5869), and must guard the file like a
 * certificate's key. What was said over a connection stays secret either way: resumption has a key exchange.
 */
import { hkdfSync } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { StileError } from "../wire/index.ts";

/** Node: 16 bytes name, 16 of HMAC-SHA256, 16 of AES-128. */
const TICKET_KEY_BYTES = 48;
const MIN_SECRET_BYTES = 32;
const MAX_SECRET_BYTES = 4_096;

export type TicketKeyEvent = "ticket-keys-changed" | "ticket-keys-failed";

export interface TicketKeyOptions {
  /** How long a key is used; keys change where Unix time is a multiple of it. */
  readonly seconds: number;
  /** File with 32 bytes or more that nobody can guess, not readable by others. */
  readonly file?: string;
  readonly pollMs: number;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly random: (length: number) => Uint8Array;
  readonly observe: (event: TicketKeyEvent) => void;
}

export interface TicketKeySource {
  /** 48 bytes, as Node's `ticketKeys` takes them. Secret. */
  readonly current: () => Uint8Array;
  readonly onChange: (listener: () => void) => void;
  /** Looks at the clock and the file now. */
  readonly reload: () => void;
  readonly close: () => void;
}

/** @throws `TLS_TICKET_KEYS_INVALID` where the file cannot be used at start */
export function createTicketKeys(options: TicketKeyOptions): TicketKeySource {
  const { clock, file, observe, random, seconds } = options;
  const listeners: (() => void)[] = [];
  let secret = file === undefined ? undefined : readSecret(file);
  let period = periodOf(clock(), seconds);
  let isBroken = false;
  let key = secret === undefined ? random(TICKET_KEY_BYTES) : deriveKey(secret, seconds, period);

  /** True where the file holds another secret than before. */
  function lookAtFile(): boolean {
    if (file === undefined) return false;
    try {
      const next = readSecret(file);
      const isOther = secret === undefined || Buffer.compare(next, secret) !== 0;
      secret = next;
      isBroken = false;
      return isOther;
    } catch {
      // Once, not at each look; the last good one goes on.
      if (!isBroken) observe("ticket-keys-failed");
      isBroken = true;
      return false;
    }
  }

  function look(): void {
    const now = periodOf(clock(), seconds);
    const isOther = lookAtFile();
    if (now === period && !isOther) return;
    period = now;
    key = secret === undefined ? random(TICKET_KEY_BYTES) : deriveKey(secret, seconds, now);
    for (const listener of listeners) listener();
    observe("ticket-keys-changed");
  }

  const timer = setInterval(look, Math.min(options.pollMs, seconds * 1_000));
  timer.unref();
  return {
    current: () => key,
    onChange: (listener) => listeners.push(listener),
    reload: () => {
      isBroken = false;
      look();
    },
    close: () => clearInterval(timer),
  };
}

function periodOf(nowMs: number, seconds: number): number {
  return Math.floor(nowMs / 1_000 / seconds);
}

function deriveKey(secret: Uint8Array, seconds: number, period: number): Uint8Array {
  // With the length in it: no two settings share a key by accident.
  const info = `stile ticket key ${seconds} ${period}`;
  return new Uint8Array(hkdfSync("sha256", secret, "", info, TICKET_KEY_BYTES));
}

function readSecret(file: string): Uint8Array {
  try {
    const { mode, size } = statSync(file);
    if (size < MIN_SECRET_BYTES || size > MAX_SECRET_BYTES) {
      throw new Error("the file does not have 32 to 4096 bytes");
    }
    // Its group may: Kubernetes gives secrets to a group.
    if ((mode & 0o007) !== 0) throw new Error("everybody may use the file");
    return readFileSync(file);
  } catch (cause) {
    throw new StileError("TLS_TICKET_KEYS_INVALID", "the file of the ticket keys cannot be used", {
      cause,
    });
  }
}
