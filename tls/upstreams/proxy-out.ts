/** The PROXY protocol towards upstreams: who the client of a connection is. Such a connection is that client's alone. */
import type { Socket } from "node:net";
import { encodeProxyHeader, type ProxyVersion } from "../front/proxy-header.ts";

export type ProxyProtocol = "off" | ProxyVersion;

/** What a header is made from. */
export interface ClientEnds {
  readonly socket: Pick<Socket, "remoteAddress" | "remotePort" | "localAddress" | "localPort">;
  /** Where it is another than the socket's. */
  readonly address: string | undefined;
}

/** @param client undefined for a connection of our own. @returns undefined where none is sent */
export function proxyHeader(
  protocol: ProxyProtocol,
  client: ClientEnds | undefined,
): Uint8Array | undefined {
  if (protocol === "off") return undefined;
  const { localAddress, localPort, remoteAddress, remotePort } = client?.socket ?? {};
  const address = client?.address ?? remoteAddress;
  if (address === undefined || localAddress === undefined) {
    return encodeProxyHeader(protocol, undefined);
  }
  // Of a client behind another proxy, only the address is known.
  const isOwn = plainAddress(address) === plainAddress(remoteAddress ?? "");
  return encodeProxyHeader(protocol, {
    source: { address: plainAddress(address), port: isOwn ? (remotePort ?? 0) : 0 },
    destination: { address: plainAddress(localAddress), port: localPort ?? 0 },
  });
}

/** Without the zone that a link-local address has here and nowhere else, and without an IPv4 address's mapping. */
export function plainAddress(address: string): string {
  return address.replace(/%.*$/, "").replace(/^::ffff:(?=[0-9.]+$)/i, "");
}
