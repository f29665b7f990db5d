/** Settings of the listener for plain HTTP (docs/acme.md). */
import { Type } from "typebox";
import { closed, text, whole } from "./kinds.ts";

export interface PlainHttpConfig {
  readonly host: string;
  readonly port: number;
  readonly maxConnections: number;
  readonly maxConnectionsPerAddress: number;
}

/** The section `listen.http`: without it, nothing listens for plain HTTP. */
export const plainHttpSettings: Type.TUnsafe<PlainHttpConfig> = Type.Unsafe<PlainHttpConfig>(
  Type.Object(
    {
      host: text("address of the plain HTTP listener, which sends clients to https", "::"),
      port: whole("port of the plain HTTP listener", 0, 65_535, 80),
      maxConnections: whole("its open connections; more are cut and counted", 1, 100_000, 1_000),
      maxConnectionsPerAddress: whole(
        "of one address, IPv6 by its /64; not of listen.trustedProxies and listen.proxyProtocol",
        1,
        100_000,
        100,
      ),
    },
    closed,
  ),
);
