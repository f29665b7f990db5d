/**
 * The TLS exporter of a connection (RFC 8446 §7.5), as RFC 9266 §2 defines it for channel binding. Evidence
 * that carries it is of no use on another connection. It does not say who the client is.
 */
import type { TLSSocket } from "node:tls";

const LABEL = "EXPORTER-Channel-Binding";
const EXPORTER_BYTES = 32;
/** It does not change while the connection lasts, and every request asks for it. */
const exported = new WeakMap<TLSSocket, Uint8Array>();

/**
 * 32 bytes that only the two ends of this connection know. The handshake must be complete: Node throws
 * ERR_TLS_INVALID_STATE otherwise. The context is the empty string (RFC 9266 §2).
 */
export function tlsExporter(socket: TLSSocket): Uint8Array {
  const known = exported.get(socket);
  if (known !== undefined) return known.slice();
  const secret = socket.exportKeyingMaterial(EXPORTER_BYTES, LABEL, Buffer.alloc(0));
  exported.set(socket, Uint8Array.from(secret));
  return Uint8Array.from(secret);
}
