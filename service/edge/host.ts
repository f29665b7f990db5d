/** Names of origins and networks, in the one spelling that challenges are made from. */
import { isIPv4, isIPv6 } from "node:net";

/** Lower case, without the default port of https: `Example.ORG:443` is `example.org`. */
export function normalHost(host: string): string {
  return host.toLowerCase().replace(/:443$/, "");
}

/**
 * The network of an address, for redemption contexts that are tied to one: /24 of IPv4, /48 of IPv6.
 * Coarse on purpose: a client that moves inside its network keeps its tokens, and the prefix names many.
 */
export function networkOf(address: string | undefined): string | undefined {
  if (address === undefined) return undefined;
  const mapped = address.startsWith("::ffff:") ? address.slice(7) : address;
  if (isIPv4(mapped)) return `${mapped.split(".").slice(0, 3).join(".")}.0/24`;
  const plain = mapped.split("%")[0] ?? "";
  if (!isIPv6(plain)) return undefined;
  const [left = "", right] = plain.split("::");
  const head = left === "" ? [] : left.split(":");
  const tail = right === undefined || right === "" ? [] : right.split(":");
  const zeros = Array.from({ length: Math.max(0, 8 - head.length - tail.length) }, () => "0");
  const groups = [...head, ...(right === undefined ? [] : zeros), ...tail].slice(0, 3);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/48`;
}
