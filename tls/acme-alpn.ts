/**
 * The TLS-ALPN challenge of ACME (RFC 8737), as the listener answers it: the protocol `acme-tls/1` is agreed on with
 * a client that offers nothing else and names a server of which a challenge is pending. That client gets the
 * challenge's certificate and the end of the connection; HTTP is never spoken on it, and no other client is shown
 * that certificate.
 */
import type { ServerOptions } from "node:https";
import { TLSSocket } from "node:tls";
import type { ServerCertificate } from "./server-names.ts";

const ACME_TLS_ALPN = "acme-tls/1";

/** @param serverName hostile: from the ClientHello, in lower case */
export type ChallengeCertificates = (serverName: string) => ServerCertificate | undefined;

export interface AlpnChallenges {
  readonly serverOptions: Pick<ServerOptions, "ALPNCallback" | "ALPNProtocols">;
  /** Of a handshake that has agreed on the challenge's protocol. @param socket what Node calls back with as `this` */
  readonly certificateOf: (socket: unknown) => ServerCertificate | undefined;
}

/**
 * @param pending undefined where no challenge is ever answered
 * @param protocols for everybody else, the preferred one first
 */
export function createAlpnChallenges(
  pending: ChallengeCertificates | undefined,
  protocols: readonly string[],
): AlpnChallenges {
  if (pending === undefined) {
    return { serverOptions: { ALPNProtocols: [...protocols] }, certificateOf: () => undefined };
  }
  return answering(pending, protocols);
}

function answering(pending: ChallengeCertificates, protocols: readonly string[]): AlpnChallenges {
  // Node asks for the protocol before it asks for the certificate: TLS 1.3 negotiates it with the extensions.
  const agreed = new WeakMap<TLSSocket, ServerCertificate>();

  function agree(
    this: unknown,
    offer: { readonly servername: string; readonly protocols: readonly string[] },
  ): string | undefined {
    const [first, ...others] = offer.protocols;
    if (first !== ACME_TLS_ALPN || others.length > 0) {
      // Undefined ends the handshake with no_application_protocol.
      return protocols.find((protocol) => offer.protocols.includes(protocol));
    }
    // Node says false where the client names no server.
    const name: unknown = offer.servername;
    const certificate = typeof name === "string" ? pending(name.toLowerCase()) : undefined;
    if (certificate === undefined || !(this instanceof TLSSocket)) return undefined;
    agreed.set(this, certificate);
    return ACME_TLS_ALPN;
  }

  return {
    serverOptions: { ALPNCallback: agree },
    certificateOf: (socket) => (socket instanceof TLSSocket ? agreed.get(socket) : undefined),
  };
}

/** Ends a connection that was made for the challenge alone (RFC 8737 §3). @returns false for any other */
export function endChallenge(socket: TLSSocket): boolean {
  if (socket.alpnProtocol !== ACME_TLS_ALPN) return false;
  socket.destroySoon();
  return true;
}
