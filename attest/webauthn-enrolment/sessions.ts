/**
 * Open WebAuthn ceremonies (WebAuthn Level 3 §13.4.3): in memory, single use, bounded in number and time.
 * A restart forgets them, which costs a client one more round trip.
 */
import { encodeBase64Url, StileError } from "../../wire/index.ts";
import type { Es256PublicJwk } from "../result/index.ts";

export type CeremonyPurpose = "registration" | "assertion";

export interface CeremonySession {
  readonly purpose: CeremonyPurpose;
  readonly deviceKey: Es256PublicJwk;
  /** 32 bytes that the client data must carry. */
  readonly challenge: Uint8Array;
  /** Whoever opened it, as its network: bounds what one can keep open. */
  readonly network: string;
  readonly expiresAtMs: number;
}

export interface CeremonySessions {
  /** @returns the session's identifier. @throws `ATTEST_SESSION_LIMIT` */
  readonly open: (session: CeremonySession) => string;
  /** Takes the session out: there is no second try. @throws `ATTEST_SESSION_UNKNOWN` */
  readonly take: (id: string) => CeremonySession;
}

export interface CeremonySessionsOptions {
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** CSPRNG. */
  readonly random: (length: number) => Uint8Array;
  /** Sessions open at once. */
  readonly maxSessions: number;
}

const ID_BYTES = 16;
/**
 * Sessions that one network may have open: a 64th of all. A session costs its opener nothing, so without
 * this one of them could hold every place. The oldest makes way: refusing would lock a network's others out.
 */
const NETWORK_SHARE = 64;
/** A large office signs in within the same two minutes. */
const MIN_PER_NETWORK = 16;

export function createCeremonySessions(options: CeremonySessionsOptions): CeremonySessions {
  const { maxSessions } = options;
  const maxPerNetwork = Math.max(MIN_PER_NETWORK, Math.floor(maxSessions / NETWORK_SHARE));
  /** In the order of opening, which is the order of expiry. */
  const open = new Map<string, CeremonySession>();
  const byNetwork = new Map<string, Set<string>>();

  function remove(id: string): void {
    const session = open.get(id);
    if (session === undefined) return;
    open.delete(id);
    const own = byNetwork.get(session.network);
    own?.delete(id);
    if (own?.size === 0) byNetwork.delete(session.network);
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
      const others = byNetwork.get(session.network);
      if (others !== undefined && others.size >= maxPerNetwork) {
        for (const oldest of others) {
          remove(oldest);
          break;
        }
      }
      if (open.size >= maxSessions) {
        throw new StileError("ATTEST_SESSION_LIMIT", "too many attestation sessions are open");
      }
      const id = encodeBase64Url(options.random(ID_BYTES));
      open.set(id, session);
      const own = byNetwork.get(session.network) ?? new Set();
      byNetwork.set(session.network, own.add(id));
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
