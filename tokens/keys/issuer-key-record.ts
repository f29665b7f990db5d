/**
 * The life of an issuer key: a pure function of four instants and the clock, so that every process
 * that holds the record sees the same state without being told (RFC 9576 §6.2, RFC 9578 §4).
 *
 * published: listed, with `not-before` in the future; it neither signs nor redeems.
 * active: signs and redeems. retired: redeems. destroyed: nothing; the private key is erased and the
 * spent-token epoch may be dropped.
 */
import type { TokenCrypto } from "../crypto.ts";
import { TOKEN_KEY_ID_BYTES } from "../structures/token-types.ts";

/** Public: there is no private key in it. All instants are Unix milliseconds. */
export interface IssuerKeyRecord {
  readonly tokenType: number;
  /** 32 bytes: SHA-256 of `publicKeySpki`. */
  readonly tokenKeyId: Uint8Array;
  /** The public key as the directory spells it. */
  readonly publicKeySpki: Uint8Array;
  /** From here on it is listed in the directory. */
  readonly publishedAtMs: number;
  /** From here on it signs; the directory's `not-before`. */
  readonly notBeforeMs: number;
  /** From here on it signs no more. */
  readonly retireAtMs: number;
  /** From here on no token of it is accepted. */
  readonly destroyAtMs: number;
}

export type IssuerKeyState = "published" | "active" | "retired" | "destroyed";

/** Each state begins at its instant and ends just before the next one's. */
export function keyStateAt(record: IssuerKeyRecord, nowMs: number): IssuerKeyState {
  if (nowMs >= record.destroyAtMs) return "destroyed";
  if (nowMs >= record.retireAtMs) return "retired";
  if (nowMs >= record.notBeforeMs) return "active";
  return "published";
}

/** Last byte of the token_key_id (RFC 9578 §5.1, §6.1). */
export function truncatedTokenKeyId(tokenKeyId: Uint8Array): number {
  if (tokenKeyId.length !== TOKEN_KEY_ID_BYTES) {
    throw new RangeError("token_key_id: expected 32 bytes");
  }
  return tokenKeyId[TOKEN_KEY_ID_BYTES - 1] ?? 0;
}

/** SHA-256 of the encoded public key (RFC 9578 §5.5, §6.5). */
export function tokenKeyIdOf(crypto: TokenCrypto, publicKeySpki: Uint8Array): Uint8Array {
  return crypto.sha256(publicKeySpki);
}
