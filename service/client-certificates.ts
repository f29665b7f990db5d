/** Client certificates as the configuration wants them, and what upstreams hear of them. */
import type { Duplex } from "node:stream";
import {
  type ClientCertificates,
  createClientCertificates,
  type VerifiedClient,
} from "../tls/index.ts";
import type { ClientCertificatesConfig } from "./config/index.ts";
import type { Composition } from "./sidecar.ts";

/** A client whose certificate was verified for the host of its request. */
export interface KnownClient {
  /** Name of the rule. */
  readonly rule: string;
  /** What the upstream gets of it. */
  readonly headers: readonly (readonly [name: string, value: string])[];
}

export interface Clients {
  readonly certificates: ClientCertificates;
  /**
   * Of each request, before anything else is done for it.
   * @throws `TLS_CLIENT_MISDIRECTED`
   */
  readonly knownClient: (host: string, socket: Duplex) => KnownClient | undefined;
}

type ClientsDeps = Pick<
  Composition,
  "clock" | "config" | "log" | "metrics" | "onClose" | "onReload"
>;

/** @throws `TLS_CLIENT_CA_INVALID` */
export function openClients(deps: ClientsDeps): Clients | undefined {
  const { clock, config, log, metrics, onClose, onReload } = deps;
  const rules = config.tls.clientCertificates;
  if (rules.length === 0) return undefined;
  const certificates = createClientCertificates({
    rules,
    pollMs: config.tls.reloadSeconds * 1_000,
    clock,
    observe: (event, rule, reason) => {
      metrics.tlsEvents.inc({ event });
      const why = reason === undefined ? {} : { reason };
      if (event === "client-ca-failed") log.write("error", event, { rule, ...why });
      else if (event === "client-ca-reloaded") log.write("info", event, { rule });
      // A line for each handshake is the client's to make.
      else log.write("debug", event, { rule, ...why });
    },
  });
  onClose(() => certificates.close());
  onReload(() => certificates.reload());
  const upstream = new Map(rules.map((rule) => [rule.name, rule.upstream]));
  return {
    certificates,
    knownClient: (host, socket) => {
      const client = certificates.clientOf(host, socket);
      if (client === undefined) return undefined;
      return { rule: client.rule, headers: headersOf(client, upstream.get(client.rule)) };
    },
  };
}

function headersOf(
  { certificate, identity }: VerifiedClient,
  upstream: ClientCertificatesConfig["upstream"] | undefined,
): KnownClient["headers"] {
  if (upstream === "identity") return [["Stile-Client-Identity", identity]];
  if (upstream !== "certificate") return [];
  // RFC 9440 §2.1: a byte sequence of structured fields.
  return [["Client-Cert", `:${certificate.raw.toString("base64")}:`]];
}
