/**
 * The OCSP response of one certificate, from a file beside it that something else renews (`openssl ocsp`, an
 * ACME client, Stile's own fetcher). It is verified before it is used, dropped at the end of its window, and
 * a broken one leaves the last good one in use: no handshake fails for want of a staple.
 */
import { readFileSync } from "node:fs";
import { StileError } from "../wire/index.ts";
import { type OcspStaple, verifyOcspResponse } from "./ocsp.ts";
import { certificatesIn, issuerAmong } from "./pem.ts";

export type OcspEvent = "ocsp-loaded" | "ocsp-failed" | "ocsp-expired";

export interface OcspFileOptions {
  readonly file: string;
  /** False where there may be no such file, which then is no failure. */
  readonly isExpected: boolean;
  /** @param reason of a failure: words of this program, nothing of the file */
  readonly observe: (event: OcspEvent, reason?: string) => void;
}

export interface OcspFile {
  /**
   * Looks at the file.
   * @param certificate PEM of the certificate and its intermediates, of which the first must be its issuer
   */
  readonly look: (certificate: string, nowMs: number) => void;
  /** What is to be stapled to this certificate now. */
  readonly staple: (certificate: string, nowMs: number) => Uint8Array | undefined;
  /** Reports what is broken again at the next look. */
  readonly forget: () => void;
}

interface Accepted extends OcspStaple {
  readonly certificate: string;
}

export function createOcspFile({ file, isExpected, observe }: OcspFileOptions): OcspFile {
  let accepted: Accepted | undefined;
  let failed: string | undefined;

  function fail(reason: string): void {
    // Once for each way in which it is broken, not once for each look.
    if (reason !== failed) observe("ocsp-failed", reason);
    failed = reason;
  }

  function drop(): void {
    accepted = undefined;
    observe("ocsp-expired");
  }

  function read(): Uint8Array | undefined {
    try {
      return readFileSync(file);
    } catch (cause) {
      const isMissing = (cause as NodeJS.ErrnoException).code === "ENOENT";
      if (isMissing && !isExpected) {
        // Taken away, and so meant.
        accepted = undefined;
        failed = undefined;
      } else fail(isMissing ? "the file is missing" : "the file cannot be read");
      return undefined;
    }
  }

  return {
    look: (certificate, nowMs) => {
      if (accepted !== undefined && nowMs >= accepted.nextUpdateMs) drop();
      const response = read();
      if (response === undefined) return;
      const isKnown =
        accepted?.certificate === certificate && Buffer.compare(accepted.der, response) === 0;
      if (isKnown) {
        failed = undefined;
        return;
      }
      try {
        accepted = { ...verifyFor(certificate, response, nowMs), certificate };
        failed = undefined;
        observe("ocsp-loaded");
      } catch (error) {
        fail(error instanceof StileError ? error.message : "cannot be read");
      }
    },
    staple: (certificate, nowMs) => {
      const isUsable =
        accepted?.certificate === certificate &&
        accepted.thisUpdateMs <= nowMs &&
        nowMs < accepted.nextUpdateMs;
      return isUsable ? accepted?.der : undefined;
    },
    forget: () => {
      failed = undefined;
    },
  };
}

function verifyFor(certificate: string, response: Uint8Array, nowMs: number): OcspStaple {
  const [leaf, ...chain] = certificatesIn(certificate);
  const issuer = leaf && issuerAmong(leaf, chain);
  if (leaf === undefined || issuer === undefined) {
    const message = "OCSP response: its certificate's file does not hold the issuer";
    throw new StileError("TLS_OCSP_INVALID", message);
  }
  return verifyOcspResponse(response, { leaf, issuer }, nowMs);
}
