/** A refused WebSocket handshake: the client reads why, and holds nothing whatever it does then. */
import { once } from "node:events";
import { createServer, type AddressInfo, connect, type Socket } from "node:net";
import { expect, it } from "vitest";
import { problemOf } from "../../service/problems.ts";
import { refuseUpgrade } from "../../service/edge/refusal.ts";
import { StileError } from "../../wire/index.ts";

it("ends the connection of a client that goes on to send, reads nothing of it and never ends its side", async () => {
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer((socket) => {
    // As node:http leaves it: not read any more.
    socket.pause();
    refuseUpgrade(socket, problemOf(new StileError("SERVICE_TOKEN_REQUIRED", "required")), {});
    accepted.resolve(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const client = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  client.on("error", () => undefined);
  client.write("unread ".repeat(10_000));
  const [answer] = (await once(client, "data")) as [Buffer];
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 401 /);
  const socket = await accepted.promise;
  if (!socket.destroyed) await once(socket, "close");
  expect(client.writableEnded).toBe(false);
  client.destroy();
  server.close();
});
