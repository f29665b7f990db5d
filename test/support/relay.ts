/** A TCP relay on loopback that a test puts before a listener, and that says what goes first, and in which pieces. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setImmediate as turn } from "node:timers/promises";

export interface Relay {
  readonly port: number;
  readonly close: () => Promise<void>;
}

/**
 * @param pieces what is written of the client's first bytes, each in a segment of its own
 */
export async function startRelay(
  to: number,
  pieces: (first: Buffer) => readonly Uint8Array[],
): Promise<Relay> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const target = connect({ port: to, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
    for (const socket of [client, target]) {
      open.add(socket);
      socket.on("error", () => undefined);
      socket.once("close", () => {
        open.delete(socket);
        client.destroy();
        target.destroy();
      });
    }
    client.once("data", (first: Buffer) => {
      client.pause();
      void writeEach(target, pieces(first)).then(() => client.pipe(target));
    });
    target.pipe(client);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

async function writeEach(socket: Socket, pieces: readonly Uint8Array[]): Promise<void> {
  for (const piece of pieces) {
    socket.write(piece);
    await turn();
  }
}
