/** What the upstream is told of the client's connection: X-Forwarded-*, or Forwarded (RFC 7239), or both. */
import { isIPv6 } from "node:net";
import { plainAddress } from "./upstreams/proxy-out.ts";

export type ForwardedHeader = "x-forwarded" | "forwarded" | "both";

/** RFC 9110 §5.6.2. */
const TOKEN = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;

/**
 * @param address of the client, as a socket has it; undefined where it is gone
 * @returns name, value, name, value
 */
export function forwardedHeadersOf(
  choice: ForwardedHeader,
  address: string | undefined,
  host: string,
): string[] {
  const plain = address === undefined ? undefined : plainAddress(address);
  const headers: string[] = [];
  if (choice !== "forwarded") {
    if (plain !== undefined) headers.push("X-Forwarded-For", plain);
    headers.push("X-Forwarded-Proto", "https", "X-Forwarded-Host", host);
  }
  if (choice !== "x-forwarded") {
    headers.push("Forwarded", `for=${nodeOf(plain)};host=${quoted(host)};proto=https`);
  }
  return headers;
}

/** RFC 7239 §6: an IPv6 address is in brackets, and quoted for its colons. */
function nodeOf(address: string | undefined): string {
  if (address === undefined) return "unknown";
  return isIPv6(address) ? `"[${address}]"` : address;
}

/** §4: a value is a token or a quoted-string (RFC 9110 §5.6.4). */
function quoted(value: string): string {
  return TOKEN.test(value) ? value : `"${value.replaceAll(/["\\]/g, "\\$&")}"`;
}
