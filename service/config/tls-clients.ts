/** Settings of client certificates by server name (docs/tls.md). */
import { Type } from "typebox";
import { isSpiffePattern } from "../../tls/index.ts";
import { choice, closed, some, text } from "./kinds.ts";
import type { Config } from "./types.ts";

export interface ClientCertificatesConfig {
  readonly name: string;
  readonly hosts: readonly string[];
  readonly mode: "optional" | "required";
  readonly caFile: string;
  readonly crlFile?: string;
  readonly allow?: {
    readonly spiffe?: readonly string[];
    readonly uris?: readonly string[];
    readonly dnsNames?: readonly string[];
  };
  readonly upstream: "none" | "identity" | "certificate";
}

const clientCertificates = Type.Object(
  {
    name: Type.String({
      description: "names it in rules, in metrics and in the log",
      pattern: "^[a-z0-9][a-z0-9-]{0,31}$",
    }),
    hosts: Type.Array(Type.String({ pattern: "^[a-z0-9_-]{1,63}(?:\\.[a-z0-9_-]{1,63})*$" }), {
      description: "server names, of hosts in edge.hosts: lower case, without a port",
      minItems: 1,
      maxItems: 256,
    }),
    mode: choice("whether who has none is let in", ["optional", "required"]),
    caFile: text("PEM file of the CAs, with all intermediates where there is a crlFile"),
    crlFile: Type.Optional(text("PEM file with a CRL of each of these CAs")),
    allow: Type.Optional(
      Type.Object(
        {
          spiffe: some(
            "SPIFFE IDs, or all below one: spiffe://example.org/ns/prod/*",
            "^spiffe://",
          ),
          uris: some("URIs of the subjectAltName, exactly", "^[!-~]+$"),
          dnsNames: some("DNS names of the subjectAltName, or *. for one label", "^[a-z0-9_*.-]+$"),
        },
        { ...closed, minProperties: 1 },
      ),
    ),
    upstream: choice(
      "what the upstream gets: nothing, Stile-Client-Identity, or Client-Cert (RFC 9440)",
      ["none", "identity", "certificate"],
    ),
  },
  closed,
);

export const clientCertificateSettings: Type.TUnsafe<readonly ClientCertificatesConfig[]> =
  Type.Unsafe<readonly ClientCertificatesConfig[]>(
    Type.Array(clientCertificates, {
      description:
        "who is asked for a client certificate, by server name; then no tickets are given",
      maxItems: 64,
      default: [],
    }),
  );

/** What of them has no effect, or would not hold. */
export function clientCertificateFault({ edge, tls }: Config): string | undefined {
  const rules = tls.clientCertificates;
  if (rules.length === 0 || edge === undefined) return undefined;
  if (edge.authorize.headers !== "off" || edge.extAuthz !== undefined) {
    // Another proxy ends TLS there, and asks for no certificates.
    return "edge.authorize.headers and edge.extAuthz must be off where tls.clientCertificates is set";
  }
  const served = new Set(edge.hosts.map((host) => host.toLowerCase().replace(/:[0-9]+$/, "")));
  const hosts = rules.flatMap((rule) => rule.hosts);
  if (hosts.some((host) => !served.has(host))) {
    return "tls.clientCertificates.hosts: a host is not one of edge.hosts";
  }
  if (new Set(hosts).size !== hosts.length) return "tls.clientCertificates: two have one host";
  if (new Set(rules.map(({ name }) => name)).size !== rules.length) {
    return "tls.clientCertificates: two have one name";
  }
  const patterns = rules.flatMap(({ allow }) => allow?.spiffe ?? []);
  if (!patterns.every((pattern) => isSpiffePattern(pattern))) {
    return "tls.clientCertificates.allow.spiffe: expected a SPIFFE ID, or one with /* behind it";
  }
  return undefined;
}
