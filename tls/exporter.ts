/** The TLS exporter of a connection (RFC 8446 §7.5) as RFC 9266 §2 defines it for channel binding. */
import type { TLSSocket } from "node:tls";

const LABEL = "EXPORTER-Channel-Binding";
const EXPORTER_BYTES = 32;

/** 32 bytes that only the two ends of this connection know; the handshake must be complete. */
export function tlsExporter(socket: TLSSocket): Uint8Array {
  return Uint8Array.from(socket.exportKeyingMaterial(EXPORTER_BYTES, LABEL, Buffer.alloc(0)));
}
