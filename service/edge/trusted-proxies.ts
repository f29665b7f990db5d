/**
 * Proxies of the operator's own that stand before the listener (`listen.trustedProxies`), and the client's
 * address as they tell it. X-Forwarded-For is a list to which each proxy adds the address it was reached from
 * (RFC 7239 §5.2 has the same order), so it is read from its end and only as far as trust reaches: what stands
 * further left was written by whoever connected, and is hostile. From everybody else it is not read at all.
 */
import type { IncomingMessage } from "node:http";
import { ADDRESS_BYTES, isInNetwork, parseNetwork, readAddress } from "../../tls/index.ts";

export interface TrustedProxies {
  readonly isTrusted: (address: string | undefined) => boolean;
  /** Whether the other end of the connection is one of them. */
  readonly isProxied: (request: IncomingMessage) => boolean;
  /**
   * Of the client: the connection's other end, or what a trusted proxy says. Undefined where the proxy says
   * nothing that can be read: whoever decides by addresses then refuses.
   */
  readonly clientAddress: (request: IncomingMessage) => string | undefined;
}

/** @throws RangeError for what is not address/bits */
export function createTrustedProxies(networks: readonly string[]): TrustedProxies {
  const trusted = networks.map((network) => parseNetwork(network));
  const bytes = new Uint8Array(ADDRESS_BYTES);

  function isTrusted(address: string | undefined): boolean {
    if (trusted.length === 0 || address === undefined || !readAddress(address, bytes)) return false;
    return trusted.some((network) => isInNetwork(bytes, network));
  }

  function toldAddress(header: string | string[] | undefined): string | undefined {
    const hops = String(header ?? "").split(",");
    const addresses = hops.map((hop) => hop.trim()).toReversed();
    for (const address of addresses) {
      if (!readAddress(address, bytes)) return undefined;
      if (!isTrusted(address)) return address;
    }
    // The client itself is in one of the networks: the proxy that is furthest away knows it best.
    return addresses.at(-1);
  }

  return {
    isTrusted,
    isProxied: (request) => isTrusted(request.socket.remoteAddress),
    clientAddress: ({ headers, socket: { remoteAddress } }) =>
      isTrusted(remoteAddress) ? toldAddress(headers["x-forwarded-for"]) : remoteAddress,
  };
}
