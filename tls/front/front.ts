/**
 * What happens to a connection of the public listener before TLS: a proxy's header says whose it is, limits of
 * its address say whether it may go on, the name in its ClientHello says whether it ends here. Where neither a header nor a passthrough is configured, nothing
 * of it is read here and TLS starts in the same turn.
 */
import { type Socket, SocketAddress } from "node:net";
import type { TLSSocket } from "node:tls";
import { isStileError } from "../../wire/index.ts";
import { refuseWithAlert } from "../alert.ts";
import {
  type AddressLimits,
  type CountedConnection,
  createAddressCounter,
  type ExceededLimit,
} from "./address-limits.ts";
import { type ClientHello, readClientHello } from "./client-hello.ts";
import { readFirstBytes } from "./first-bytes.ts";
import { type ProxyHeader, readProxyHeader } from "./parse-proxy-header.ts";
import {
  createPassthrough,
  type Passthrough,
  type PassthroughEvent,
  type PassthroughRecord,
  type PassthroughRoute,
} from "./passthrough.ts";
import type { Endpoint, ProxiedConnection } from "./proxy-header.ts";

export type FrontEvent =
  | ExceededLimit
  | PassthroughEvent
  | "proxy-header-refused"
  | "client-hello-refused";

export interface FrontLimits extends AddressLimits {
  /** From the connection to the end of its PROXY header: a proxy sends it at once. */
  readonly proxyHeaderTimeoutMs: number;
  /** To the end of the ClientHello where it is read here, and again to the end of a handshake. */
  readonly handshakeTimeoutMs: number;
}

export interface FrontOptions {
  /** Proxies that begin each connection with a header of the PROXY protocol; nobody else's is read. */
  readonly sendsProxyHeader?: (address: string | undefined) => boolean;
  /** Addresses that many clients come from: the limits per address are not theirs. */
  readonly isSharedAddress?: (address: string) => boolean;
  /** Only where there are some is a ClientHello read here. */
  readonly passthrough?: readonly PassthroughRoute[];
  /** Gets a record of each connection that was to be passed through. */
  readonly onPassedThrough?: (record: PassthroughRecord) => void;
}

export interface FrontDeps {
  readonly observe: (event: FrontEvent) => void;
  /** What Node does with a new connection. */
  readonly startTls: (socket: Socket) => void;
  /** Of a connection that TLS will not be started on. */
  readonly onForward: (socket: Socket) => void;
}

export interface Front {
  /** For every new connection. */
  readonly accept: (socket: Socket) => void;
  /** Once a handshake is complete: from now on the connection's ends are those that the proxy told. */
  readonly secured: (socket: TLSSocket, raw: Socket) => void;
}

/** RFC 8446 §6.2. */
const ILLEGAL_PARAMETER = 47;
const DECODE_ERROR = 50;
const NO_HEADER: ProxyHeader = { kind: "none" };

interface FrontConnection {
  readonly told: ProxyHeader;
  readonly counted: CountedConnection;
}

export function createFront(limits: FrontLimits, options: FrontOptions, deps: FrontDeps): Front {
  const { observe } = deps;
  const counter = createAddressCounter(limits, options.isSharedAddress ?? (() => false));
  const connections = new WeakMap<Socket, FrontConnection>();
  const { passthrough: routes = [], onPassedThrough: record = () => undefined } = options;
  const passthrough =
    routes.length === 0 ? undefined : createPassthrough(routes, { observe, record });

  async function accept(socket: Socket): Promise<void> {
    const isSender = options.sendsProxyHeader?.(socket.remoteAddress) ?? false;
    const told = isSender ? await readHeader(socket, limits, observe) : NO_HEADER;
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
    if (passthrough === undefined) deps.startTls(socket);
    else await sort(socket, { told, counted }, passthrough);
  }

  /** By the name in its ClientHello. */
  async function sort(
    socket: Socket,
    { counted, told }: FrontConnection,
    { forward, targetFor }: Passthrough,
  ): Promise<void> {
    const hello = await readHello(socket, limits, observe);
    if (hello === undefined || socket.destroyed) return;
    const target = targetFor(hello.serverName);
    if (target === undefined) {
      deps.startTls(socket);
      return;
    }
    counted.handshakeOver();
    deps.onForward(socket);
    forward(socket, target, hello, endsOf(told, socket));
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
  { proxyHeaderTimeoutMs }: FrontLimits,
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
    proxyHeaderTimeoutMs,
  );
  if (first.kind === "found") return first.value;
  // Who only looks whether somebody listens has not tried to pass anything on.
  if (first.kind === "refused") observe("proxy-header-refused");
  return undefined;
}

/** Undefined where there is none; the client has been told why. */
async function readHello(
  socket: Socket,
  { handshakeTimeoutMs }: FrontLimits,
  observe: FrontDeps["observe"],
): Promise<ClientHello | undefined> {
  socket.on("error", () => socket.destroy());
  const first = await readFirstBytes(socket, readClientHello, handshakeTimeoutMs);
  if (first.kind === "found") return first.value;
  if (first.kind === "gone") {
    socket.destroy();
    return undefined;
  }
  observe("client-hello-refused");
  const isIllegal = isStileError(first.error, "WIRE_VALUE_NOT_ALLOWED");
  if (first.error === undefined) socket.destroy();
  else refuseWithAlert(socket, isIllegal ? ILLEGAL_PARAMETER : DECODE_ERROR);
  return undefined;
}

function addressOf(told: ProxyHeader, socket: Socket): string | undefined {
  if (told.kind === "none") return socket.remoteAddress;
  return told.kind === "tcp" ? told.connection.source.address : undefined;
}

/** As the proxy tells them, or as they are here. */
function endsOf(told: ProxyHeader, socket: Socket): ProxiedConnection | undefined {
  if (told.kind !== "none") return told.kind === "tcp" ? told.connection : undefined;
  const { localAddress, localPort, remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined || localAddress === undefined) return undefined;
  return {
    source: { address: remoteAddress, port: remotePort ?? 0 },
    destination: { address: localAddress, port: localPort ?? 0 },
  };
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
