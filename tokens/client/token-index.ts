/**
 * What the wallet's journal says, in memory: which tokens are held for which challenge, and which were
 * taken. It decides nothing about disks.
 */
import { createHash } from "node:crypto";
import { decodeHex, encodeHex, StileError } from "../../wire/index.ts";
import { expirationMsOf } from "../metadata/client-metadata.ts";
import { hasPublicMetadata } from "../structures/token-types.ts";
import { parseToken } from "../structures/token.ts";
import type { JournalEntry, StoredToken } from "./journal-format.ts";

export interface HeldToken extends StoredToken {
  /** Digest of the token's bytes, in hexadecimal. */
  readonly id: string;
  /** The token's challenge_digest, in hexadecimal. */
  readonly challenge: string;
}

export interface TokenIndex {
  /** Tokens of this challenge that have not expired, the first to expire first. */
  available(challengeDigest: Uint8Array, nowMs: number): readonly HeldToken[];
  /** All tokens that have not expired. */
  live(nowMs: number): readonly HeldToken[];
  /** Those that are neither held nor known as taken, each once. */
  unknownOf(tokens: readonly HeldToken[]): readonly HeldToken[];
  add(tokens: readonly HeldToken[]): void;
  take(token: HeldToken): void;
  /** Ids of tokens that were taken, as the journal has them. */
  taken(): readonly Uint8Array[];
  /** Forgets those that have expired. @returns how many there were */
  dropExpired(nowMs: number): number;
  /**
   * After compaction: the journal knows no other token any more, taken or not. One of `tokens` may have
   * been taken while the journal was rewritten, and stays taken.
   */
  forgetAllBut(tokens: readonly HeldToken[]): void;
}

/** Replays a journal. @throws `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED` for an entry that is no token */
export function createTokenIndex(entries: readonly JournalEntry[]): TokenIndex {
  const held = new Map<string, HeldToken>();
  const taken = new Set<string>();

  function unknownOf(tokens: readonly HeldToken[]): HeldToken[] {
    const unique = new Map(tokens.map((token) => [token.id, token]));
    return [...unique.values()].filter(({ id }) => !held.has(id) && !taken.has(id));
  }

  for (const entry of entries) {
    if (entry.kind === "taken") {
      taken.add(encodeHex(entry.id));
      held.delete(encodeHex(entry.id));
    } else {
      for (const token of unknownOf(entry.tokens.map(heldToken))) held.set(token.id, token);
    }
  }

  return {
    available(challengeDigest, nowMs) {
      const challenge = encodeHex(challengeDigest);
      return [...held.values()]
        .filter((token) => token.challenge === challenge && token.expiresAtMs > nowMs)
        .sort((a, b) => a.expiresAtMs - b.expiresAtMs);
    },
    live: (nowMs) => [...held.values()].filter((token) => token.expiresAtMs > nowMs),
    unknownOf,
    add(tokens) {
      for (const token of tokens) held.set(token.id, token);
    },
    take(token) {
      held.delete(token.id);
      taken.add(token.id);
    },
    taken: () => [...taken].map((id) => decodeHex(id)),
    dropExpired(nowMs) {
      const before = held.size;
      for (const { expiresAtMs, id } of held.values()) if (expiresAtMs <= nowMs) held.delete(id);
      return before - held.size;
    },
    forgetAllBut(tokens) {
      const kept = new Set(tokens.map(({ id }) => id));
      for (const id of held.keys()) if (!kept.has(id)) held.delete(id);
      for (const id of taken) if (!kept.has(id)) taken.delete(id);
    },
  };
}

/**
 * A token with public metadata is kept no longer than that says, whatever else was said.
 * @throws RangeError, `WIRE_*`, `TOKEN_TYPE_UNSUPPORTED`, `TOKEN_METADATA_REFUSED`
 */
export function heldToken({ token, expiresAtMs, extensions }: StoredToken): HeldToken {
  if (!Number.isSafeInteger(expiresAtMs) || expiresAtMs < 0) {
    throw new RangeError("expiresAtMs: expected Unix milliseconds");
  }
  const bytes = Uint8Array.from(token);
  const { challengeDigest, tokenType } = parseToken(bytes);
  const challenge = encodeHex(challengeDigest);
  const id = encodeHex(tokenIdOf(bytes));
  if (hasPublicMetadata(tokenType) !== (extensions !== undefined)) {
    throw new StileError("TOKEN_METADATA_REFUSED", "extensions: expected those of the token");
  }
  if (extensions === undefined) return { token: bytes, expiresAtMs, challenge, id };
  const copy = Uint8Array.from(extensions);
  const earlierMs = Math.min(expiresAtMs, expirationMsOf(copy));
  return { token: bytes, extensions: copy, expiresAtMs: earlierMs, challenge, id };
}

export function tokenIdOf(token: Uint8Array): Uint8Array {
  return sha256(token);
}

export function sha256(data: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(data).digest());
}
