/**
 * Every connection of a listener, so that it can be drained: node's own close() waits for connections that
 * never sent a request, leaves `keep-alive` in the answers that are under way, and forgets upgraded
 * connections. States: in its handshake, idle, answering, upgraded.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Server } from "node:https";
import { Server as NetServer, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { FastConnection } from "./splice/splicer.ts";

interface OpenConnection {
  /** Answers under way: several where the client pipelines. */
  readonly answers: Set<ServerResponse>;
  /** Its answer was out before its body was there. */
  early: IncomingMessage | undefined;
  upgraded: boolean;
  /** While the connection is not node:http's. */
  fast: FastConnection | undefined;
}

export interface Connections {
  /** Undefined once the connection is node:http's, or closed. */
  readonly setFast: (socket: Duplex, fast: FastConnection | undefined) => void;
  /** A connection that is passed on undecrypted, and lasts until it ends or the deadline of a drain. */
  readonly setForwarded: (raw: Socket) => void;
  /** The TCP connection below one that is still in its handshake. */
  readonly rawOf: (socket: Socket) => Socket | undefined;
  /** True once the handshake is complete. */
  readonly isSecure: (socket: Duplex) => boolean;
  /**
   * Ends a connection on which the answer to a whole request is still owed: whatever else were written there would be
   * taken for it, or for part of it. @returns false where none is
   */
  readonly endOwing: (socket: Duplex) => boolean;
  /** True where a silent client is waiting for us: its request is whole and nothing waits to be read. */
  readonly isOurTurn: (socket: Duplex) => boolean;
  /**
   * Stops accepting, lets answers end until the deadline, then cuts the rest.
   * @param idleMs how long a connection without a request may still send one, which is then its last; default 0
   */
  readonly drain: (deadlineMs: number, idleMs?: number) => Promise<void>;
}

/** @param onSecure gets each TLS connection first, with the TCP connection below it */
export function trackConnections(
  server: Server,
  onSecure: (socket: TLSSocket, raw: Socket) => void,
): Connections {
  const handshaking = new Set<Socket>();
  const open = new Map<Duplex, OpenConnection>();
  let draining = false;
  let cutsIdle = false;

  server.on("connection", (socket: Socket) => {
    handshaking.add(socket);
    socket.once("close", () => handshaking.delete(socket));
  });
  server.on("secureConnection", (socket) => {
    const raw = rawOf(socket);
    if (raw === undefined || !handshaking.delete(raw)) socket.destroy();
    else onSecure(socket, raw);
    keepOpen(open, socket, false);
    if (cutsIdle) socket.destroy();
  });
  trackAnswers(server, open, { isDraining: () => draining, cutsIdle: () => cutsIdle });

  function cutIdle(): void {
    cutsIdle = true;
    destroyAll(handshaking);
    for (const [socket, connection] of open) if (isIdle(connection)) socket.destroy();
  }

  return {
    setFast: (socket, fast) => {
      const connection = open.get(socket);
      if (connection !== undefined) connection.fast = fast;
      if (draining) fast?.endAfterAnswer();
    },
    setForwarded: (raw) => {
      if (handshaking.delete(raw)) keepOpen(open, raw, true);
    },
    rawOf,
    isSecure: (socket) => open.has(socket),
    endOwing: (socket) => endOwing(open.get(socket), socket),
    isOurTurn: (socket) => isOurTurn(open.get(socket), socket),
    drain: async (deadlineMs, idleMs = 0) => {
      draining = true;
      const closed = stopAccepting(server);
      for (const connection of open.values()) {
        for (const response of connection.answers) response.shouldKeepAlive = false;
        connection.fast?.endAfterAnswer();
      }
      const idle = setTimeout(cutIdle, idleMs);
      if (idleMs === 0) cutIdle();
      const deadline = setTimeout(() => {
        destroyAll(handshaking);
        destroyAll(open.keys());
      }, deadlineMs);
      await closed;
      clearTimeout(idle);
      clearTimeout(deadline);
    },
  };
}

function keepOpen(open: Map<Duplex, OpenConnection>, socket: Duplex, upgraded: boolean): void {
  open.set(socket, { answers: new Set(), early: undefined, upgraded, fast: undefined });
  socket.once("close", () => open.delete(socket));
}

/** Which answers are under way at which connection, and which connections are HTTP no more. */
function trackAnswers(
  server: Server,
  open: ReadonlyMap<Duplex, OpenConnection>,
  { cutsIdle, isDraining }: Readonly<Record<"cutsIdle" | "isDraining", () => boolean>>,
): void {
  const onRequest = ({ socket }: IncomingMessage, response: ServerResponse): void => {
    const connection = open.get(socket);
    if (connection === undefined) return;
    connection.answers.add(response);
    if (isDraining()) response.shouldKeepAlive = false;
    response.once("close", () => {
      connection.answers.delete(response);
      connection.early = response.req.complete ? undefined : response.req;
      // One that breaks off before its turn node:http would send as far as it came, and wait for the rest for ever.
      if (!response.writableFinished) response.once("socket", (own: Socket) => own.destroy());
      // The head may have promised keep-alive before the drain began.
      if (cutsIdle() && isIdle(connection)) socket.end();
    });
  };
  for (const event of ["request", "checkContinue", "checkExpectation"]) {
    server.prependListener(event, onRequest);
  }
  server.prependListener("upgrade", (request: IncomingMessage) => {
    const connection = open.get(request.socket);
    if (connection !== undefined) connection.upgraded = true;
  });
}

/** Not by node:http's own close(), which cuts a connection whose request is on its way. */
async function stopAccepting(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    NetServer.prototype.close.call(server, () => resolve());
  });
  // Of node:http there is only the timer left.
  server.close();
}

function endOwing(connection: OpenConnection | undefined, socket: Duplex): boolean {
  const answers = [...(connection?.answers ?? [])];
  const isOut = answers.some((response) => response.headersSent);
  // Of a request that was answered early, the rest did not come: that needs no second answer.
  const isAnswered = connection?.early?.complete === false;
  if (isOut || isAnswered || connection?.fast?.isAnswering() === true) {
    socket.destroy();
    return true;
  }
  if (!answers.some((response) => response.req.complete)) return false;
  // A request that was refused at once has its answer by then.
  setImmediate(() => (socket instanceof Socket ? socket.destroySoon() : socket.destroy()));
  return true;
}

function isOurTurn(connection: OpenConnection | undefined, socket: Duplex): boolean {
  if (connection === undefined) return false;
  // A tunnel has its own idle limit, but not for a client that does not read the last of it.
  if (connection.upgraded) return socket.writableLength === 0;
  const answers = [...connection.answers];
  const isWhole = answers.every((response) => response.req.complete);
  return answers.length > 0 && isWhole && socket.writableLength === 0;
}

function isIdle(connection: OpenConnection): boolean {
  const { answers, fast, upgraded } = connection;
  return answers.size === 0 && !upgraded && fast?.isIdle() !== false;
}

/**
 * Node's own name for it, which it does not document: addresses and ports name a TCP connection as well, but not
 * one to a Unix socket. Without it every connection would be cut, and every test would say so.
 */
function rawOf(socket: Socket): Socket | undefined {
  const parent: unknown = Reflect.get(socket, "_parent");
  return parent instanceof Socket ? parent : undefined;
}

function destroyAll(sockets: Iterable<Duplex>): void {
  for (const socket of sockets) socket.destroy();
}
