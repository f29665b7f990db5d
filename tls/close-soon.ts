/** The end of a connection that was told its last word, whatever its client does about it. */
import type { Duplex } from "node:stream";

/** It gets this long to read it. */
const FAREWELL_MS = 1_000;

/**
 * What the client still sends is passed over: unread, it would keep the connection from ending, and a client
 * that ends nothing would keep it for ever.
 */
export function closeSoon(socket: Duplex): void {
  socket.on("error", () => socket.destroy());
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), FAREWELL_MS);
  socket.once("close", () => clearTimeout(timer));
}
