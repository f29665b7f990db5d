/** Addresses of listeners that are for this machine alone: a Unix socket, or a port on loopback. */
import { BlockList, isIP } from "node:net";
import { StileError } from "../../wire/index.ts";

export type LocalTarget =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/**
 * @param setting its full path, for the message
 * @throws `SERVICE_CONFIG_INVALID`
 */
export function parseLocalListen(listen: string, setting: string): LocalTarget {
  if (listen.startsWith("unix:/")) return { kind: "unix", path: listen.slice("unix:".length) };
  const match =
    /^(?:\[(?<v6>[0-9a-f:]+)\]|(?<v4>[0-9.]+)|(?<name>localhost)):(?<port>\d{1,5})$/i.exec(listen);
  const host = match?.groups?.["v6"] ?? match?.groups?.["v4"] ?? match?.groups?.["name"] ?? "";
  const port = Number(match?.groups?.["port"] ?? "-1");
  if (port < 0 || port > 65_535 || !isLoopback(host)) {
    throw new StileError(
      "SERVICE_CONFIG_INVALID",
      `configuration: ${setting} must be unix:/path or host:port on loopback`,
    );
  }
  return { kind: "tcp", host, port };
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

function isLoopback(host: string): boolean {
  if (host.toLowerCase() === "localhost") return true;
  const family = isIP(host);
  return family !== 0 && loopback.check(host, family === 4 ? "ipv4" : "ipv6");
}
