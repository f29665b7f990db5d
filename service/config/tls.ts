/** Settings of the public listener's TLS (docs/tls.md). */
import { Type } from "typebox";
import type { AcmeConfig } from "./acme.ts";
import type { PlainHttpConfig } from "./plain-http.ts";
import { type ClientCertificatesConfig, clientCertificateSettings } from "./tls-clients.ts";
import { choice, closed, DAY, section, text, whole } from "./kinds.ts";

export interface ServerCertificateConfig {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly names?: readonly string[];
  readonly ocspFile?: string;
}

export interface TlsConfig {
  readonly certificateFile?: string;
  readonly keyFile?: string;
  readonly ocspFile?: string;
  readonly certificates: readonly ServerCertificateConfig[];
  readonly clientCertificates: readonly ClientCertificatesConfig[];
  readonly unknownName: "refuse" | "first";
  readonly ticketKeySeconds: number;
  readonly ticketKeyFile?: string;
  readonly reloadSeconds: number;
  readonly maxConnections: number;
  readonly maxConnectionsPerAddress: number;
  readonly maxHandshakes: number;
  readonly maxHandshakesPerAddress: number;
  readonly http2: boolean;
}

const OCSP_FILE =
  "DER file with the OCSP response that is stapled; without it, that of certificateFile with .ocsp at its end, where there is one";

const serverCertificate = Type.Object(
  {
    certificateFile: text("PEM file with the certificate and its intermediates"),
    keyFile: text("PEM file with its private key"),
    names: Type.Optional(
      Type.Array(text("server name, or *.domain"), {
        description: "server names that it is used for; without them, all of its subjectAltName",
        minItems: 1,
        maxItems: 256,
      }),
    ),
    ocspFile: Type.Optional(text(OCSP_FILE)),
  },
  closed,
);

const settings = Type.Object(
  {
    certificateFile: Type.Optional(
      text("PEM file with the server certificate and its intermediates; needed without acme"),
    ),
    keyFile: Type.Optional(text("PEM file with the server's private key")),
    ocspFile: Type.Optional(text(OCSP_FILE)),
    certificates: Type.Array(serverCertificate, {
      description: "further certificates: for other server names, or with keys of another type",
      maxItems: 256,
      default: [],
    }),
    clientCertificates: clientCertificateSettings,
    unknownName: choice(
      "a client that asks for a name which no certificate covers: refuse it, or give it the first certificate",
      ["refuse", "first"],
    ),
    ticketKeySeconds: whole(
      "how long a key of session tickets is used; then they are answered with a full handshake",
      60,
      7 * DAY,
      DAY / 2,
    ),
    ticketKeyFile: Type.Optional(
      text("file with 32 random bytes or more, for processes that take each other's tickets"),
    ),
    reloadSeconds: whole("how often the files are looked at for a change", 1, 86_400, 10),
    maxConnections: whole("open connections; more are dropped and counted", 1, 1_000_000, 10_000),
    maxConnectionsPerAddress: whole(
      "of one address, IPv6 by its /64; not of listen.trustedProxies, which many clients share",
      1,
      1_000_000,
      1_000,
    ),
    maxHandshakes: whole("handshakes under way; more are cut and counted", 1, 1_000_000, 4_096),
    maxHandshakesPerAddress: whole("of one address, as above", 1, 1_000_000, 256),
    http2: Type.Boolean({
      description: "offers HTTP/2 before HTTP/1.1 (docs/http2.md)",
      default: true,
    }),
  },
  section,
);

/** The section `tls`. */
export const tlsSettings: Type.TUnsafe<TlsConfig> = Type.Unsafe<TlsConfig>(settings);

/** Where the certificates come from: files, an ACME server, or both. */
export function certificateFault({ acme, listen, tls }: CertificateSettings): string | undefined {
  if (acme === undefined && tls.certificateFile === undefined) {
    return "missing setting tls.certificateFile";
  }
  if (tls.certificateFile !== undefined && tls.keyFile === undefined) {
    return "missing setting tls.keyFile";
  }
  const isAlone = (name: "keyFile" | "ocspFile"): boolean =>
    tls[name] !== undefined && tls.certificateFile === undefined;
  if (isAlone("keyFile")) return "tls.keyFile has no effect without tls.certificateFile";
  if (isAlone("ocspFile")) return "tls.ocspFile has no effect without tls.certificateFile";
  if (acme?.challenge === "http-01" && listen.http === undefined) {
    return "acme.challenge http-01 needs listen.http";
  }
  return undefined;
}

interface CertificateSettings {
  readonly acme?: AcmeConfig;
  readonly listen: { readonly http?: PlainHttpConfig };
  readonly tls: TlsConfig;
}
