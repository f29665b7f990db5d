/**
 * Hosts whose connections are forwarded without being decrypted: by the server name of the ClientHello, every byte
 * as it came, to a server that has the certificate itself. Nothing of Stile applies to them but the limits
 * of the listener: no admission, no rules, no headers.
 */
import type { Socket } from "node:net";
import { refuseWithAlert } from "../alert.ts";
import { findByName } from "../server-names.ts";
import { join } from "../upgrade.ts";
import type { UpstreamAddress } from "../upstreams/address.ts";
import { dial } from "../upstreams/dial.ts";
import type { ClientHello } from "./client-hello.ts";
import { ja4Of } from "./ja4.ts";
import { encodeProxyHeader, type ProxiedConnection, type ProxyVersion } from "./proxy-header.ts";

export interface PassthroughRoute {
  /** In lower case; `*.b.example` stands for exactly one more label. No name is in two routes. */
  readonly names: readonly string[];
  /** TLS with it is the client's own: it is dialled without. */
  readonly upstream: UpstreamAddress;
  readonly proxyProtocol: "off" | ProxyVersion;
  /** Connections at a time; more are refused. */
  readonly maxConnections: number;
  readonly connectTimeoutMs: number;
  /** Silence of both sides. */
  readonly idleTimeoutMs: number;
}

export type PassthroughEvent = "passthrough" | "passthrough-busy" | "passthrough-failed";

/** What is known of a connection once it has ended; of none that was above its limit. No address is. */
export interface PassthroughRecord {
  /** Of the configuration, not as the client wrote it. */
  readonly name: string;
  readonly event: PassthroughEvent;
  readonly ja4: string;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

export interface PassthroughDeps {
  readonly observe: (event: PassthroughEvent) => void;
  readonly record: (record: PassthroughRecord) => void;
}

export interface PassthroughTarget {
  readonly name: string;
  readonly route: PassthroughRoute;
  /** Of the route, whatever its name. */
  readonly open: Set<Socket>;
}

export interface Passthrough {
  readonly targetFor: (serverName: string | undefined) => PassthroughTarget | undefined;
  /**
   * Takes the connection over, and what it has sent with it.
   * @param ends undefined where the client's are not known
   */
  readonly forward: (
    client: Socket,
    target: PassthroughTarget,
    hello: ClientHello,
    ends: ProxiedConnection | undefined,
  ) => void;
}

const INTERNAL_ERROR = 80;

export function createPassthrough(
  routes: readonly PassthroughRoute[],
  { observe, record }: PassthroughDeps,
): Passthrough {
  const targets = new Map<string, PassthroughTarget>();
  for (const route of routes) {
    const open = new Set<Socket>();
    for (const name of route.names) targets.set(name, { name, route, open });
  }

  /** Until it has ended. */
  async function pass(
    client: Socket,
    { open, route }: PassthroughTarget,
    ends: ProxiedConnection | undefined,
  ): Promise<PassthroughEvent> {
    if (open.size >= route.maxConnections) return refuse(client, "passthrough-busy");
    open.add(client);
    client.once("close", () => open.delete(client));
    client.allowHalfOpen = true;
    const upstream = await dialFor(client, route, ends);
    if (upstream === undefined) return refuse(client, "passthrough-failed");
    observe("passthrough");
    await join(client, upstream, route.idleTimeoutMs);
    return "passthrough";
  }

  function refuse(client: Socket, event: PassthroughEvent): PassthroughEvent {
    observe(event);
    if (!client.destroyed) refuseWithAlert(client, INTERNAL_ERROR);
    return event;
  }

  return {
    targetFor: (serverName) =>
      serverName === undefined ? undefined : findByName(targets, serverName),
    forward: (client, target, hello, ends) => {
      const over = (event: PassthroughEvent): void => {
        // A flood is counted, and does not fill the log as well.
        if (event === "passthrough-busy") return;
        const { bytesRead: receivedBytes, bytesWritten: sentBytes } = client;
        record({ name: target.name, event, ja4: ja4Of(hello), receivedBytes, sentBytes });
      };
      pass(client, target, ends).then(over, () => client.destroy());
    },
  };
}

/** Undefined where the upstream does not take the connection in time, or the client is gone before. */
function dialFor(
  client: Socket,
  { connectTimeoutMs: timeoutMs, proxyProtocol, upstream: address }: PassthroughRoute,
  ends: ProxiedConnection | undefined,
): Promise<Socket | undefined> {
  const header = proxyProtocol === "off" ? undefined : encodeProxyHeader(proxyProtocol, ends);
  return new Promise((resolve) => {
    const options = { address, tls: undefined, timeoutMs, header, halfOpen: true };
    const cancel = dial(options, (_error, socket) => {
      client.off("close", onGone);
      resolve(socket);
    });
    const onGone = (): void => {
      cancel();
      resolve(undefined);
    };
    client.once("close", onGone);
  });
}
