/**
 * What happens to a connection of the public listener before TLS: a proxy's header says whose it is, limits of
 * its address say whether it may go on. Where neither a header nor a passthrough is configured, nothing
 * of it is read here and TLS starts in the same turn.
 */
import { type Socket, SocketAddress } from "node:net";
import type { TLSSocket } from "node:tls";
import {
  type AddressLimits,
  type CountedConnection,
  createAddressCounter,
  type ExceededLimit,
} from "./address-limits.ts";
import { readFirstBytes } from "./first-bytes.ts";
import { type ProxyHeader, readProxyHeader } from "./parse-proxy-header.ts";
import type { Endpoint } from "./proxy-header.ts";

export type FrontEvent = ExceededLimit | "proxy-header-refused";

export interface FrontLimits extends AddressLimits {
  /** From the connection to the end of its PROXY header: a proxy sends it at once. */
  readonly proxyHeaderTimeoutMs: number;
}

export interface FrontOptions {
  /** Proxies that begin each connection with a header of the PROXY protocol; nobody else's is read. */
  readonly sendsProxyHeader?: (address: string | undefined) => boolean;
  /** Addresses that many clients come from: the limits per address are not theirs. */
  readonly isSharedAddress?: (address: string) => boolean;
}

export interface FrontDeps {
  readonly observe: (event: FrontEvent) => void;
  /** What Node does with a new connection. */
  readonly startTls: (socket: Socket) => void;
}

export interface Front {
  /** For every new connection. */
  readonly accept: (socket: Socket) => void;
  /** Once a handshake is complete: from now on the connection's ends are those that the proxy told. */
  readonly secured: (socket: TLSSocket, raw: Socket) => void;
}

const NO_HEADER: ProxyHeader = { kind: "none" };

interface FrontConnection {
  readonly told: ProxyHeader;
  readonly counted: CountedConnection;
}

export function createFront(limits: FrontLimits, options: FrontOptions, deps: FrontDeps): Front {
  const { observe, startTls } = deps;
  const counter = createAddressCounter(limits, options.isSharedAddress ?? (() => false));
  const connections = new WeakMap<Socket, FrontConnection>();

  async function accept(socket: Socket): Promise<void> {
    const isSender = options.sendsProxyHeader?.(socket.remoteAddress) ?? false;
    const told = isSender
      ? await readHeader(socket, limits.proxyHeaderTimeoutMs, observe)
      : NO_HEADER;
    if (told === undefined || socket.destroyed) {
      socket.destroy();
      return;
    }
    const counted = counter.enter(addressOf(told, socket));
    if (typeof counted === "string") {
      observe(counted);
      socket.destroy();
      return;
    }
    socket.once("close", counted.closed);
    connections.set(socket, { told, counted });
    startTls(socket);
  }

  return {
    accept: (socket) => {
      accept(socket).catch(() => socket.destroy());
    },
    secured: (socket, raw) => {
      const connection = connections.get(raw);
      if (connection === undefined) {
        socket.destroy();
        return;
      }
      connection.counted.handshakeOver();
      assumeEnds(socket, connection.told);
    },
  };
}

/** Undefined where there is no valid one. */
async function readHeader(
  socket: Socket,
  timeoutMs: number,
  observe: FrontDeps["observe"],
): Promise<ProxyHeader | undefined> {
  socket.on("error", () => socket.destroy());
  const first = await readFirstBytes(
    socket,
    (bytes) => {
      const read = readProxyHeader(bytes);
      if (read.kind === "incomplete") return { kind: "more", atLeast: bytes.length + 1 };
      return { kind: "found", value: read.header, taken: read.length };
    },
    timeoutMs,
  );
  if (first.kind === "found") return first.value;
  // Who only looks whether somebody listens has not tried to pass anything on.
  if (first.kind === "refused") observe("proxy-header-refused");
  return undefined;
}

function addressOf(told: ProxyHeader, socket: Socket): string | undefined {
  if (told.kind === "none") return socket.remoteAddress;
  return told.kind === "tcp" ? told.connection.source.address : undefined;
}

/**
 * Own properties over those that the socket has from its class. Whatever asks a connection who its client is
 * (headers, rules, limits, node:http, Fastify, node:http2) asks these, so none can be forgotten.
 */
function assumeEnds(socket: TLSSocket, told: ProxyHeader): void {
  if (told.kind === "none") return;
  const ends = told.kind === "tcp" ? told.connection : undefined;
  const [remote, local] = [asNodeHasIt(ends?.source), asNodeHasIt(ends?.destination)];
  Object.defineProperties(socket, {
    remoteAddress: { value: remote?.address },
    remotePort: { value: remote?.port },
    remoteFamily: { value: remote?.family },
    localAddress: { value: local?.address },
    localPort: { value: local?.port },
    localFamily: { value: local?.family },
  });
}

/** In the one spelling that Node has for each address. */
function asNodeHasIt(end: Endpoint | undefined):
  | {
      address: string;
      port: number;
      family: "IPv4" | "IPv6";
    }
  | undefined {
  if (end === undefined) return undefined;
  const isV6 = end.address.includes(":");
  const { address, port } = new SocketAddress({ ...end, family: isV6 ? "ipv6" : "ipv4" });
  return { address, port, family: isV6 ? "IPv6" : "IPv4" };
}
