/**
 * How many connections one address may have open, and how many handshakes may be under way, of one address
 * and of all: a flood of connections that never finish their handshake holds these, not every connection.
 * An IPv6 address stands for its /64, which is the least that one customer gets (RFC 6177 §2). What is kept
 * is one small entry for each address that has a connection open, so the bound on connections bounds it.
 */
import { ADDRESS_BYTES, isMapped, readAddress } from "./network.ts";

export interface AddressLimits {
  readonly maxConnectionsPerAddress: number;
  readonly maxHandshakesPerAddress: number;
  /** Of all addresses. */
  readonly maxHandshakes: number;
}

/** The bound that a connection is refused by: the name of its event, too. */
export type ExceededLimit =
  | "address-connections-refused"
  | "address-handshakes-refused"
  | "handshakes-refused";

/** A connection that is counted. Each of the two may be called again, without effect. */
export interface CountedConnection {
  readonly handshakeOver: () => void;
  readonly closed: () => void;
}

interface Counts {
  connections: number;
  handshakes: number;
}

export interface AddressCounter {
  /** @param address undefined: at a Unix socket, where only the bound on all handshakes can hold */
  readonly enter: (address: string | undefined) => CountedConnection | ExceededLimit;
  /** Addresses that have an entry. */
  readonly size: () => number;
}

/** @param isShared addresses that many clients come from: only the bound on all handshakes is theirs */
export function createAddressCounter(
  limits: AddressLimits,
  isShared: (address: string) => boolean,
): AddressCounter {
  const byAddress = new Map<string, Counts>();
  const all: Counts = { connections: 0, handshakes: 0 };

  function exceeded(counts: Counts | undefined): ExceededLimit | undefined {
    if (all.handshakes >= limits.maxHandshakes) return "handshakes-refused";
    if (counts === undefined) return undefined;
    if (counts.connections >= limits.maxConnectionsPerAddress) return "address-connections-refused";
    return counts.handshakes >= limits.maxHandshakesPerAddress
      ? "address-handshakes-refused"
      : undefined;
  }

  return {
    size: () => byAddress.size,
    enter: (address) => {
      const key = address === undefined || isShared(address) ? undefined : keyOf(address);
      const known = key === undefined ? undefined : byAddress.get(key);
      const limit = exceeded(known);
      if (limit !== undefined) return limit;
      const own = known ?? { connections: 0, handshakes: 0 };
      if (key !== undefined) byAddress.set(key, own);
      count("handshakes", 1);
      count("connections", 1);
      let isShaking = true;
      let isOpen = true;

      function count(what: keyof Counts, by: 1 | -1): void {
        own[what] += by;
        all[what] += by;
      }
      const handshakeOver = (): void => {
        if (isShaking) count("handshakes", -1);
        isShaking = false;
      };
      const closed = (): void => {
        if (!isOpen) return;
        isOpen = false;
        handshakeOver();
        count("connections", -1);
        if (key !== undefined && own.connections === 0) byAddress.delete(key);
      };
      return { handshakeOver, closed };
    },
  };
}

/** IPv4 whole, also where a dual-stack socket writes it as IPv6; of IPv6 the first 64 bits. */
function keyOf(address: string): string {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  if (!readAddress(address, bytes)) return "";
  return Buffer.from(isMapped(bytes) ? bytes.subarray(12) : bytes.subarray(0, 8)).toString(
    "latin1",
  );
}
