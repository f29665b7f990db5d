/**
 * The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2) as a sender speaks it: a header before
 * the first byte of a connection, that tells whose connection it is passed on for. Nothing of it is a secret,
 * and nothing of it proves anything: a receiver believes it by where it comes from.
 */
import { SocketAddress } from "node:net";
import { Writer } from "../../wire/index.ts";
import { ADDRESS_BYTES, isMapped, readAddress } from "./network.ts";

export type ProxyVersion = "v1" | "v2";

/** One end of a TCP connection. */
export interface Endpoint {
  /** IPv4 or IPv6, as `socket.remoteAddress` has it. */
  readonly address: string;
  readonly port: number;
}

/** A client's connection, as the client made it. */
export interface ProxiedConnection {
  readonly source: Endpoint;
  readonly destination: Endpoint;
}

/** Section 2.2: `\r\n\r\n\0\r\nQUIT\n`, which no other protocol's server takes for its own. */
export const PROXY_V2_SIGNATURE: Uint8Array = Uint8Array.from(Buffer.from("\r\n\r\n\0\r\nQUIT\n"));
export const PROXY_V2_COMMAND = { LOCAL: 0x20, PROXY: 0x21 } as const;
/** Address family and transport protocol, in one byte. */
export const PROXY_V2_FAMILY = { UNSPEC: 0x00, TCP4: 0x11, TCP6: 0x21, UNIX: 0x31 } as const;

/**
 * The header for a connection that is passed on.
 * @param of undefined where its ends are not known, or where the connection is the sender's own: the receiver
 * then goes by the connection itself
 * @throws RangeError for what is no address or no port
 */
export function encodeProxyHeader(
  version: ProxyVersion,
  of: ProxiedConnection | undefined,
): Uint8Array<ArrayBuffer> {
  return version === "v1" ? encodeV1(of) : encodeV2(of);
}

function encodeV1(of: ProxiedConnection | undefined): Uint8Array<ArrayBuffer> {
  if (of === undefined) return Uint8Array.from(Buffer.from("PROXY UNKNOWN\r\n"));
  const [from, to] = addressesOf(of);
  const family = from.length === 4 ? "TCP4" : "TCP6";
  const ports = [portOf(of.source), portOf(of.destination)];
  const fields = ["PROXY", family, addressText(from), addressText(to), ...ports];
  return Uint8Array.from(Buffer.from(`${fields.join(" ")}\r\n`));
}

function encodeV2(of: ProxiedConnection | undefined): Uint8Array<ArrayBuffer> {
  const header = new Writer().bytes(PROXY_V2_SIGNATURE);
  if (of === undefined) {
    const nothing = new Uint8Array();
    return header.u8(PROXY_V2_COMMAND.LOCAL).u8(PROXY_V2_FAMILY.UNSPEC).vec16(nothing).finish();
  }
  const [from, to] = addressesOf(of);
  const family = from.length === 4 ? PROXY_V2_FAMILY.TCP4 : PROXY_V2_FAMILY.TCP6;
  const ends = new Writer()
    .bytes(from)
    .bytes(to)
    .u16(portOf(of.source))
    .u16(portOf(of.destination));
  return header.u8(PROXY_V2_COMMAND.PROXY).u8(family).vec16(ends.finish()).finish();
}

/** Both of one family, 4 or 16 bytes; an IPv4 address beside an IPv6 one is in its mapped form. */
function addressesOf({ source, destination }: ProxiedConnection): [Uint8Array, Uint8Array] {
  const [from, to] = [bytesOf(source.address), bytesOf(destination.address)];
  const start = isMapped(from) && isMapped(to) ? ADDRESS_BYTES - 4 : 0;
  return [from.subarray(start), to.subarray(start)];
}

function bytesOf(address: string): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  if (!readAddress(address, bytes)) throw new RangeError("expected an address");
  return bytes;
}

function portOf({ port }: Endpoint): number {
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new RangeError("expected a port");
  return port;
}

/** @param bytes 4 or 16. IPv6 as RFC 5952 and Node write it. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const groups = (Buffer.from(bytes).toString("hex").match(/.{4}/g) ?? []).join(":");
  return new SocketAddress({ address: groups, family: "ipv6" }).address;
}
