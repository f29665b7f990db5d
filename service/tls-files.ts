/** What the public listener's TLS is made from: files that may change while it runs, each looked at anew. */
import { randomBytes } from "node:crypto";
import {
  type CertificateSource,
  createTicketKeys,
  fileCertificates,
  type TicketKeySource,
} from "../tls/index.ts";
import type { Composition } from "./sidecar.ts";

export interface TlsFiles {
  readonly certificates: CertificateSource;
  readonly ticketKeys: TicketKeySource;
  /** Looks at all of them at once, rather than at the next interval. */
  readonly reload: () => void;
}

/** @throws `TLS_CERTIFICATE_INVALID`, `TLS_TICKET_KEYS_INVALID` */
export function openTlsFiles({ clock, config, log, metrics, onClose }: Composition): TlsFiles {
  const { tls } = config;
  const pollMs = tls.reloadSeconds * 1_000;
  const certificates = fileCertificates({
    certificateFile: tls.certificateFile,
    keyFile: tls.keyFile,
    ...(tls.ocspFile === undefined ? {} : { ocspFile: tls.ocspFile }),
    further: tls.certificates,
    pollMs,
    clock,
    observe: (event, certificateFile, reason) => {
      metrics.tlsEvents.inc({ event });
      const isFine = event === "certificate-reloaded" || event === "ocsp-loaded";
      const why = reason === undefined ? {} : { reason };
      log.write(isFine ? "info" : "error", event, { certificateFile, ...why });
    },
  });
  onClose(() => certificates.close());
  const ticketKeys = createTicketKeys({
    seconds: tls.ticketKeySeconds,
    ...(tls.ticketKeyFile === undefined ? {} : { file: tls.ticketKeyFile }),
    pollMs,
    clock,
    random: (length) => Uint8Array.from(randomBytes(length)),
    observe: (event) => {
      metrics.tlsEvents.inc({ event });
      log.write(event === "ticket-keys-changed" ? "info" : "error", event);
    },
  });
  onClose(() => ticketKeys.close());
  const reload = (): void => {
    certificates.reload();
    ticketKeys.reload();
  };
  return { certificates, ticketKeys, reload };
}
