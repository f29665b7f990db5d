/** What the public listener's TLS is made from: files that may change while it runs, each looked at anew. */
import { randomBytes } from "node:crypto";
import {
  type CertificateFiles,
  type CertificateSource,
  createTicketKeys,
  fileCertificates,
  type TicketKeySource,
} from "../tls/index.ts";
import { acmeCertificateFiles } from "./acme/files.ts";
import type { TlsConfig } from "./config/index.ts";
import type { Metrics } from "./metrics.ts";
import type { Composition } from "./sidecar.ts";

export interface TlsFiles {
  readonly certificates: CertificateSource;
  readonly ticketKeys: TicketKeySource;
  /** Looks at all of them at once, rather than at the next interval. */
  readonly reload: () => void;
}

type TlsFilesDeps = Pick<Composition, "clock" | "config" | "log" | "metrics" | "onClose">;

/**
 * @param toldTicketKeys instead of random ones, where several processes share what no file has
 * @throws `TLS_CERTIFICATE_INVALID`, `TLS_TICKET_KEYS_INVALID`
 */
export function openTlsFiles(
  { clock, config, log, metrics, onClose }: TlsFilesDeps,
  toldTicketKeys?: TicketKeySource,
): TlsFiles {
  const { tls } = config;
  const pollMs = tls.reloadSeconds * 1_000;
  const files = [...ownFiles(tls), ...tls.certificates, ...acmeCertificateFiles(config)];
  const [first, ...further] = files;
  if (first === undefined) throw new TypeError("no certificate is configured");
  const certificates = fileCertificates({
    ...first,
    further,
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
  showValidity(certificates, metrics);
  certificates.onChange(() => showValidity(certificates, metrics));
  const ticketKeys = toldTicketKeys ?? openTicketKeys({ clock, config, log, metrics, onClose });
  const reload = (): void => {
    certificates.reload();
    ticketKeys.reload();
  };
  return { certificates, ticketKeys, reload };
}

function openTicketKeys({ clock, config, log, metrics, onClose }: TlsFilesDeps): TicketKeySource {
  const { tls } = config;
  const ticketKeys = createTicketKeys({
    seconds: tls.ticketKeySeconds,
    ...(tls.ticketKeyFile === undefined ? {} : { file: tls.ticketKeyFile }),
    pollMs: tls.reloadSeconds * 1_000,
    clock,
    random: (length) => Uint8Array.from(randomBytes(length)),
    observe: (event) => {
      metrics.tlsEvents.inc({ event });
      log.write(event === "ticket-keys-changed" ? "info" : "error", event);
    },
  });
  onClose(() => ticketKeys.close());
  return ticketKeys;
}

function ownFiles({ certificateFile, keyFile, ocspFile }: TlsConfig): readonly CertificateFiles[] {
  if (certificateFile === undefined || keyFile === undefined) return [];
  return [{ certificateFile, keyFile, ...(ocspFile === undefined ? {} : { ocspFile }) }];
}

function showValidity(certificates: CertificateSource, { certificateNotAfter }: Metrics): void {
  certificateNotAfter.reset();
  // Of those with one first name and kind of key, the one that goes first.
  for (const { names, notAfterMs, signsWith } of certificates.all().toReversed()) {
    // The key as in signsWith: `ECDSA+SHA256`, `RSA-PSS+`.
    const key = signsWith.split("+")[0]?.toLowerCase() ?? "";
    certificateNotAfter.set({ name: names[0] ?? "", key }, notAfterMs / 1_000);
  }
}
