/**
 * The other end of a request's TLS connection. Where the connection is this process's, it is asked; where it is
 * a worker's, the worker has told (service/processes), and its word is set on the socket between the two for as
 * long as the request lasts. One request at a time comes over such a socket, so nothing of one client is another's.
 */
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { tlsExporter } from "../../tls/index.ts";

export interface Peer {
  readonly address: string | undefined;
  /** 32 bytes (RFC 9266); undefined where the connection is not TLS. */
  readonly tlsExporter: Uint8Array | undefined;
  /** SHA-256 of the client's certificate, in hexadecimal. TLS has made the client prove that it owns it. */
  readonly certificateSha256: string | undefined;
}

const told = new WeakMap<Socket, Peer>();

/** @param peer from a worker that has shown that it is one: nothing else may say whom a socket stands for */
export function tellPeer(socket: Socket, peer: Peer): void {
  told.set(socket, peer);
  // Whoever asks for the address, Fastify too, reads it here.
  Object.defineProperty(socket, "remoteAddress", { value: peer.address, configurable: true });
}

export function peerOf(socket: Socket): Peer {
  return (
    told.get(socket) ?? {
      address: socket.remoteAddress,
      tlsExporter: socket instanceof TLSSocket ? tlsExporter(socket) : undefined,
      certificateSha256: socket instanceof TLSSocket ? certificateOf(socket) : undefined,
    }
  );
}

function certificateOf(socket: TLSSocket): string | undefined {
  // Typed as always there; without a certificate it is an empty object.
  const { fingerprint256 } = socket.getPeerCertificate() as { fingerprint256?: string };
  return fingerprint256?.replaceAll(":", "").toLowerCase();
}
