/** Fatal alerts before there are keys (RFC 8446 §6.2), which Node writes for OpenSSL's own refusals alone. */
import type { Socket } from "node:net";
import { closeSoon } from "./close-soon.ts";

/** A plaintext record with one alert (§5.1). */
export function fatalAlert(description: number): Uint8Array {
  return Uint8Array.of(0x15, 0x03, 0x03, 0x00, 0x02, 0x02, description);
}

/** Says why, and ends. What the client still sends is thrown away meanwhile: unread, it would take the alert with it. */
export function refuseWithAlert(socket: Socket, description: number): void {
  socket.once("end", () => socket.destroySoon());
  socket.end(fatalAlert(description));
  closeSoon(socket);
}
