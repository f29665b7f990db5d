/**
 * Client certificates by server name: who is asked for one in the handshake, what OpenSSL must say of it, and which
 * requests of its connection it counts for. Clients of other names are not asked. A connection counts for the
 * name that its handshake was for: a request for a host under another rule is refused with 421 (RFC 9110 §15.5.20),
 * as after a resumption, for which nothing is verified: there are no tickets where this is used.
 */
import type { X509Certificate } from "node:crypto";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { StileError } from "../../wire/index.ts";
import type { WatchedFiles } from "../watched-files.ts";
import { type AllowedClients, identityOf } from "./identity.ts";
import { type ClientTrust, type ClientTrustFiles, watchClientTrust } from "./trust.ts";

export interface ClientCertificateRule extends ClientTrustFiles {
  readonly name: string;
  /** Server names, without a port, in lower case. */
  readonly hosts: readonly string[];
  /** `required` ends the handshake of who has none; `optional` takes one that does not count for none. */
  readonly mode: "optional" | "required";
  readonly allow?: AllowedClients;
}

/** A client whose certificate was verified, and is one that its rule lets in. */
export interface VerifiedClient {
  /** Name of the rule. */
  readonly rule: string;
  /** The name in the certificate that let it in, or its fingerprint where every certificate of the CAs counts. */
  readonly identity: string;
  readonly certificate: X509Certificate;
}

export type ClientCertificateEvent =
  | "client-certificate-verified"
  | "client-certificate-refused"
  | "client-ca-reloaded"
  | "client-ca-failed";

export interface ClientCertificatesOptions {
  readonly rules: readonly ClientCertificateRule[];
  readonly pollMs: number;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** @param rule whose name it is about. @param reason words of this program or of OpenSSL */
  readonly observe: (event: ClientCertificateEvent, rule: string, reason?: string) => void;
}

export interface ClientCertificates {
  /**
   * From within the handshake, before its certificate is chosen.
   * @returns what the certificate of the client is verified with; undefined where it is not asked for one
   */
  readonly ask: (socket: TLSSocket, serverName: string) => ClientTrust | undefined;
  /** Once the handshake is complete: cuts who needs a certificate and has none that counts. */
  readonly settle: (socket: TLSSocket) => void;
  /**
   * Of each request.
   * @param host of the request, one that is served; a port is ignored
   * @param socket the TLS connection itself
   * @throws `TLS_CLIENT_MISDIRECTED` where the handshake was not for this host's rule, or what it has verified has ended
   */
  readonly clientOf: (host: string, socket: Duplex) => VerifiedClient | undefined;
  readonly reload: () => void;
  readonly close: () => void;
}

interface WatchedRule {
  readonly rule: ClientCertificateRule;
  readonly trust: WatchedFiles<ClientTrust>;
}

interface Handshake {
  readonly watched: WatchedRule;
  readonly trust: ClientTrust;
  client: VerifiedClient | undefined;
}

/** @throws `TLS_CLIENT_CA_INVALID` */
export function createClientCertificates(options: ClientCertificatesOptions): ClientCertificates {
  const rules = options.rules.map((rule) => watchRule(rule, options));
  const byName = new Map(
    rules.flatMap((watched) => watched.rule.hosts.map((host) => [host, watched])),
  );
  const handshakes = new WeakMap<Duplex, Handshake>();

  function settle(socket: TLSSocket): void {
    const handshake = handshakes.get(socket);
    if (handshake === undefined) return;
    const { rule } = handshake.watched;
    const verified = verifiedClient(socket, rule);
    if (typeof verified === "object") {
      handshake.client = verified;
      options.observe("client-certificate-verified", rule.name);
      return;
    }
    if (verified !== NONE) options.observe("client-certificate-refused", rule.name, verified);
    if (rule.mode === "required") socket.destroy();
  }

  function clientOf(host: string, socket: Duplex): VerifiedClient | undefined {
    const wanted = byName.get(host.replace(/:[0-9]+$/, ""));
    const handshake = handshakes.get(socket);
    if (wanted !== handshake?.watched) throw misdirected("it was made for another host");
    if (handshake?.client === undefined) return undefined;
    const { certificate } = handshake.client;
    const endsMs = Math.min(handshake.trust.endsMs, certificate.validToDate.getTime());
    // A certificate that was revoked since shows in the next handshake.
    const isStale = handshake.trust !== handshake.watched.trust.current();
    if (isStale || options.clock() >= endsMs) throw misdirected("what it has verified has changed");
    return handshake.client;
  }

  return {
    ask: (socket, serverName) => {
      const watched = byName.get(serverName.toLowerCase().replace(/\.$/, ""));
      if (watched === undefined) return undefined;
      const trust = watched.trust.current();
      askForCertificate(socket, watched.rule.mode === "required");
      handshakes.set(socket, { watched, trust, client: undefined });
      return trust;
    },
    settle,
    clientOf,
    reload: () => {
      for (const { trust } of rules) trust.reload();
    },
    close: () => {
      for (const { trust } of rules) trust.close();
    },
  };
}

/** What is said of a client that showed no certificate. */
const NONE = "none";

/** The client, or why it is none. */
function verifiedClient(socket: TLSSocket, rule: ClientCertificateRule): VerifiedClient | string {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return NONE;
  if (socket.isSessionReused()) return "resumed";
  // OpenSSL's verdict on path, times, purpose and CRLs; anything but true is a refusal.
  if (!socket.authorized) return String(socket.authorizationError);
  const identity = identityOf(certificate, rule.allow);
  return identity === undefined ? "not allowed" : { rule: rule.name, identity, certificate };
}

function watchRule(
  rule: ClientCertificateRule,
  { clock, observe, pollMs }: ClientCertificatesOptions,
): WatchedRule {
  const trust = watchClientTrust(rule, {
    pollMs,
    clock,
    observe: (isUsable, reason) =>
      observe(isUsable ? "client-ca-reloaded" : "client-ca-failed", rule.name, reason),
  });
  return { rule, trust };
}

/** Of Node's TLSSocket, and not documented. */
interface AskingSocket {
  readonly _handle: { readonly setVerifyMode: (asks: boolean, requires: boolean) => void };
  _requestCert: boolean;
  _rejectUnauthorized: boolean;
}

/**
 * In this handshake only: what Node documents asks all clients of a server. It sets OpenSSL's mode for the one
 * connection, and has Node look at OpenSSL's verdict. Where a Node does it in another way, this throws or nobody
 * is `authorized`; test/tls/client-certificates.test.ts sees both.
 */
function askForCertificate(socket: TLSSocket, isRequired: boolean): void {
  const asking = socket as unknown as AskingSocket;
  asking._handle.setVerifyMode(true, isRequired);
  asking._requestCert = true;
  // `settle` does, and says why.
  asking._rejectUnauthorized = false;
}

function misdirected(what: string): StileError {
  return new StileError(
    "TLS_CLIENT_MISDIRECTED",
    `the connection cannot be used for this: ${what}`,
  );
}
