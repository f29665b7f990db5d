/**
 * The TLS exporter of a connection (RFC 8446 §7.5), as RFC 9266 §2 defines it for channel binding. Evidence
 * that carries it is of no use on another connection. It does not say who the client is.
 */
import type { TLSSocket } from "node:tls";

const LABEL = "EXPORTER-Channel-Binding";
const EXPORTER_BYTES = 32;

/**
 * 32 bytes that only the two ends of this connection know. The handshake must be complete: Node throws
 * ERR_TLS_INVALID_STATE otherwise. The context is the empty string (RFC 9266 §2).
 */
export function tlsExporter(socket: TLSSocket): Uint8Array {
  return Uint8Array.from(socket.exportKeyingMaterial(EXPORTER_BYTES, LABEL, Buffer.alloc(0)));
}
