/**
 * What a handshake is answered with: the TLS context by server name (RFC 6066 §3), and the OCSP response that
 * goes with its certificate (RFC 8446 §4.4.2.1). Contexts are made once for each certificate. Everything that
 * keeps TLS strict is said here, for every context alike.
 */
import { constants } from "node:crypto";
import type { ServerOptions } from "node:https";
import {
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  TLSSocket,
} from "node:tls";
import type { AlpnChallenges } from "./acme-alpn.ts";
import type { CertificateSource } from "./certificates.ts";
import type { ClientCertificates } from "./clients/client-certificates.ts";
import type { ClientTrust } from "./clients/trust.ts";
import type { TicketKeySource } from "./ticket-keys.ts";
import { certificateFor, type CertificateGroup, type ServerCertificate } from "./server-names.ts";

/**
 * Groups (RFC 8446 §4.2.7): the hybrid with ML-KEM first. "/" makes OpenSSL ask a client that offers it
 * for a second ClientHello rather than take the client's first guess.
 */
const GROUPS = "X25519MLKEM768/X25519:P-256";
const CLIENT_CERTIFICATES = {
  requestCert: true,
  rejectUnauthorized: false,
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const;

export interface ServerContextsOptions {
  readonly certificates: CertificateSource;
  readonly unknownName: "refuse" | "first";
  /** All clients; any certificate, or none. */
  readonly asksForCertificates?: boolean | undefined;
  /** Who is asked by server name. */
  readonly clients?: ClientCertificates | undefined;
  /** Without them, Node's own of the process. */
  readonly ticketKeys?: TicketKeySource | undefined;
  /** Agrees on a protocol first, and knows the handshakes of ACME challenges. */
  readonly alpn: AlpnChallenges;
  /** Tells the client of this handshake, before it is cut, that no certificate has its name. */
  readonly refuseName: (socket: TLSSocket) => void;
}

type SniCallback = NonNullable<ServerOptions["SNICallback"]>;
type OcspAnswer = (error: Error | null, response: Buffer | null) => void;

export interface ServerContexts {
  /** The whole set for a client that names no server: Node's setSecureContext forgets what it is not given. */
  readonly fallback: () => SecureContextOptions;
  /** What a handshake agrees on: protocol and certificate. */
  readonly negotiation: Pick<ServerOptions, "ALPNCallback" | "ALPNProtocols" | "SNICallback">;
  /** For the server's event of that name. */
  readonly answerOcspRequest: (
    certificate: Buffer,
    issuer: Buffer | null,
    done: OcspAnswer,
  ) => void;
}

export function createServerContexts(options: ServerContextsOptions): ServerContexts {
  const { certificates, ticketKeys } = options;
  const contextOf = (group: CertificateGroup): SecureContextOptions => ({
    ...secureContext(group),
    ...(options.asksForCertificates === true ? CLIENT_CERTIFICATES : {}),
    // A resumed handshake asks nobody and verifies nothing, and tickets cannot be withheld from some.
    ...(options.clients === undefined ? {} : { secureOptions: constants.SSL_OP_NO_TICKET }),
    ...(ticketKeys === undefined ? {} : { ticketKeys: Buffer.from(ticketKeys.current()) }),
  });
  const contexts = createContextCache(contextOf);
  ticketKeys?.onChange(() => contexts.clear());
  /** Whose handshake Node is in: it asks for the OCSP response from within the callback of `select`. */
  let selected: ServerCertificate | undefined;

  /** Node calls it with the connection's TLSSocket as `this`, which leads to the connection to refuse. */
  function select(this: unknown, serverName: string, done: Parameters<SniCallback>[1]): void {
    const { fallback, select: groupOf } = certificates.current();
    const group = groupOf(serverName) ?? (options.unknownName === "first" ? fallback : undefined);
    const sharedSigalgs = this instanceof TLSSocket ? this.getSharedSigalgs() : [];
    // One certificate: of a context with several, Node takes over only the last.
    const challenge = options.alpn.certificateOf(this);
    const certificate = challenge ?? (group && certificateFor(group, sharedSigalgs));
    if (certificate === undefined) {
      if (this instanceof TLSSocket) options.refuseName(this);
      done(new Error("no certificate for the server name"));
      return;
    }
    // An ACME server has no certificate to show.
    const client = this instanceof TLSSocket && challenge === undefined ? this : undefined;
    let context: SecureContext;
    try {
      context = contexts.get(certificate, client && options.clients?.ask(client, serverName));
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    selected = certificate;
    try {
      done(null, context);
    } finally {
      selected = undefined;
    }
  }

  return {
    fallback: () => contextOf(certificates.current().fallback),
    negotiation: { SNICallback: select, ...options.alpn.serverOptions },
    answerOcspRequest: (_certificate, _issuer, done) => {
      const { fallback } = certificates.current();
      // Without a name OpenSSL picks of the group by itself, and a response for another certificate than the
      // one that it picks would end the handshake.
      const certificate = selected ?? (fallback.length === 1 ? fallback[0] : undefined);
      const staple = certificate && certificates.staple(certificate);
      done(null, staple === undefined ? null : Buffer.from(staple));
    },
  };
}

interface ContextCache {
  readonly get: (certificate: ServerCertificate, trust: ClientTrust | undefined) => SecureContext;
  readonly clear: () => void;
}

/** The contexts go with their certificates, with what clients are verified with, and with the ticket key of all. */
function createContextCache(
  contextOf: (group: CertificateGroup) => SecureContextOptions,
): ContextCache {
  let contexts = new WeakMap<ServerCertificate, WeakMap<object, SecureContext>>();
  return {
    get: (certificate, trust) => {
      const byTrust = contexts.get(certificate) ?? new WeakMap<object, SecureContext>();
      contexts.set(certificate, byTrust);
      const key = trust ?? certificate;
      const known = byTrust.get(key);
      if (known !== undefined) return known;
      const { ca, crl } = trust ?? {};
      const verifies = {
        ...(ca === undefined ? {} : { ca }),
        ...(crl === undefined ? {} : { crl }),
      };
      const context = createSecureContext({ ...contextOf([certificate]), ...verifies });
      byTrust.set(key, context);
      return context;
    },
    clear: () => {
      contexts = new WeakMap();
    },
  };
}

function secureContext(group: CertificateGroup): SecureContextOptions {
  return {
    cert: group.map(({ cert }) => cert),
    key: group.map(({ key }) => key),
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    ecdhCurve: GROUPS,
    honorCipherOrder: true,
  };
}
