/**
 * Open attestation sessions (checklist C2, C4): in memory, single use, bounded in number and time.
 * A restart forgets them, which costs a device one more round trip.
 */
import { encodeBase64Url, StileError } from "../../wire/index.ts";
import type { TpmtPublic } from "../structures/public.ts";

export interface AttestationSession {
  readonly ak: TpmtPublic;
  readonly ek: TpmtPublic;
  /** The wrapped secret; secret. */
  readonly secret: Uint8Array;
  readonly nonce: Uint8Array;
  /** Names the device to this attester. */
  readonly pseudonym: string;
  readonly manufacturer: string;
  readonly expiresAtMs: number;
}

export interface SessionsOptions {
  readonly clock: () => number;
  readonly random: (length: number) => Uint8Array;
  /** Sessions open at once. */
  readonly maxSessions: number;
}

export interface Sessions {
  /** @returns the session's identifier. @throws `ATTEST_SESSION_LIMIT` */
  readonly open: (session: AttestationSession) => string;
  /** Takes the session out: there is no second try. @throws `ATTEST_SESSION_UNKNOWN` */
  readonly take: (id: string) => AttestationSession;
}

const ID_BYTES = 16;
/**
 * Open sessions of one device. The oldest makes way for a new one: an EK certificate is no secret, so
 * refusing instead would let anyone who knows it lock its device out.
 */
const MAX_PER_DEVICE = 4;

export function createSessions(options: SessionsOptions): Sessions {
  /** In the order of opening, which is the order of expiry. */
  const open = new Map<string, AttestationSession>();
  const byDevice = new Map<string, string[]>();

  function remove(id: string): void {
    const session = open.get(id);
    if (session === undefined) return;
    open.delete(id);
    const left = (byDevice.get(session.pseudonym) ?? []).filter((other) => other !== id);
    if (left.length === 0) byDevice.delete(session.pseudonym);
    else byDevice.set(session.pseudonym, left);
  }

  function removeExpired(): void {
    const nowMs = options.clock();
    for (const [id, session] of open) {
      if (session.expiresAtMs > nowMs) return;
      remove(id);
    }
  }

  return {
    open: (session) => {
      removeExpired();
      const own = byDevice.get(session.pseudonym) ?? [];
      if (own[0] !== undefined && own.length >= MAX_PER_DEVICE) remove(own[0]);
      if (open.size >= options.maxSessions) {
        throw new StileError("ATTEST_SESSION_LIMIT", "too many attestation sessions are open");
      }
      const id = encodeBase64Url(options.random(ID_BYTES));
      open.set(id, session);
      byDevice.set(session.pseudonym, [...(byDevice.get(session.pseudonym) ?? []), id]);
      return id;
    },
    take: (id) => {
      const session = open.get(id);
      remove(id);
      if (session === undefined || session.expiresAtMs <= options.clock()) {
        throw new StileError("ATTEST_SESSION_UNKNOWN", "the session is unknown, expired or used");
      }
      return session;
    },
  };
}
