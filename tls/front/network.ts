/**
 * Addresses and networks (CIDR, RFC 4632 and RFC 4291 §2.3) as 16 bytes, IPv4 as its mapped form, so that
 * one comparison serves both. Reads into a buffer that is given, so that a request costs no buffer.
 */
import { isIP } from "node:net";

export const ADDRESS_BYTES = 16;

export interface Network {
  readonly bytes: Uint8Array;
  /** 0 to 128. */
  readonly prefixBits: number;
}

/**
 * @param text `192.0.2.0/24`, `2001:db8::/32`, or one address
 * @throws RangeError for anything else, and for a network with bits set behind its prefix
 */
export function parseNetwork(text: string): Network {
  const [address = "", bits, ...rest] = text.split("/");
  const family = isIP(address);
  const width = family === 4 ? 32 : 128;
  const length = bits === undefined ? width : Number(bits);
  const isSound =
    family !== 0 && rest.length === 0 && /^[0-9]{1,3}$/.test(bits ?? "0") && length <= width;
  const bytes = new Uint8Array(ADDRESS_BYTES);
  if (!isSound || !readAddress(address, bytes)) throw new RangeError("expected address/bits");
  const network: Network = { bytes, prefixBits: family === 4 ? 96 + length : length };
  // A typing mistake more often than an intent: 10.1.2.3/8 would say more than it seems to.
  if (!hasZeroTail(network)) throw new RangeError("bits are set behind the prefix");
  return network;
}

/** Reads what `socket.remoteAddress` says. False for what is not an address; `into` is then undefined. */
export function readAddress(text: string, into: Uint8Array): boolean {
  if (isIP(text) === 0) return false;
  into.fill(0);
  if (!text.includes(":")) {
    into.fill(0xff, 10, 12);
    return readIpv4(text, 0, into, 12);
  }
  return readIpv6(text, into);
}

/** The syntax is checked already (`isIP`): only the value is left to be read. */
function readIpv4(text: string, from: number, into: Uint8Array, at: number): boolean {
  let value = 0;
  let octet = at;
  for (let i = from; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    if (code === 0x2e) {
      into[octet] = value;
      octet += 1;
      value = 0;
    } else value = value * 10 + code - 0x30;
  }
  into[octet] = value;
  return octet === at + 3;
}

function readIpv6(text: string, into: Uint8Array): boolean {
  let at = 0;
  let gap = -1;
  let start = 0;
  let value = 0;
  for (let i = 0; i <= text.length; i += 1) {
    const code = i === text.length ? 0 : text.charCodeAt(i);
    const isEnd = code === 0 || code === 0x25;
    if (code === 0x2e) {
      if (!readIpv4(text, start, into, at)) return false;
      at += 4;
      return spread(into, at, gap);
    }
    if (!isEnd && code !== 0x3a) {
      value = value * 16 + hexValue(code);
      continue;
    }
    if (i > start) {
      into[at] = value >> 8;
      into[at + 1] = value & 0xff;
      at += 2;
    }
    if (isEnd) break;
    if (text.charCodeAt(i + 1) === 0x3a) gap = at;
    start = i + 1;
    value = 0;
  }
  return spread(into, at, gap);
}

function hexValue(code: number): number {
  return code <= 0x39 ? code - 0x30 : (code | 0x20) - 0x57;
}

/** Moves what stands behind `::` to the end. */
function spread(into: Uint8Array, read: number, gap: number): boolean {
  if (read === ADDRESS_BYTES) return true;
  if (gap < 0 || read > ADDRESS_BYTES) return false;
  into.copyWithin(ADDRESS_BYTES - (read - gap), gap, read);
  into.fill(0, gap, ADDRESS_BYTES - (read - gap));
  return true;
}

/** IPv4 in its mapped form (RFC 4291 §2.5.5.2). */
export function isMapped(address: Uint8Array): boolean {
  for (let i = 0; i < 12; i += 1) if (address[i] !== (i < 10 ? 0 : 0xff)) return false;
  return true;
}

/** Allocates nothing. */
export function isInNetwork(address: Uint8Array, { bytes, prefixBits }: Network): boolean {
  const whole = prefixBits >> 3;
  for (let i = 0; i < whole; i += 1) if (address[i] !== bytes[i]) return false;
  const rest = prefixBits & 7;
  if (rest === 0) return true;
  const mask = 0xff00 >> rest;
  return (((address[whole] ?? 0) ^ (bytes[whole] ?? 0)) & mask & 0xff) === 0;
}

function hasZeroTail({ bytes, prefixBits }: Network): boolean {
  return bytes.every((byte, i) => {
    const kept = Math.min(8, Math.max(0, prefixBits - i * 8));
    return (byte & (0xff >> kept)) === 0;
  });
}
