/**
 * Certificates from an ACME server, and the files that they are kept in: key and chain in one file, replaced in one
 * step, so that no crash can leave a key beside another key's certificate.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { dnsNamesOf } from "../../tls/index.ts";
import { encodeUtf8, StileError } from "../../wire/index.ts";
import { replaceFileDurably } from "../stores/durable-file.ts";

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;
const MAX_CHAIN = 10;
const MAX_CHAIN_BYTES = 65_536;

/** When a certificate was and ceases to be valid, in Unix milliseconds. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface IssuedCertificate extends Validity {
  /** PEM: the certificate, its chain, its key. Secret. */
  readonly pem: string;
}

/**
 * The chain that a server sent (RFC 8555 §7.4.2), found to be what was asked for.
 * @param body hostile: nothing but certificates of it is kept, for it goes into one file with the key
 * @throws `SERVICE_ACME_CERTIFICATE_INVALID`
 */
export function verifyIssued(
  body: Uint8Array,
  key: string,
  names: readonly string[],
  nowMs: number,
): IssuedCertificate {
  const text = body.length > MAX_CHAIN_BYTES ? "" : Buffer.from(body).toString("latin1");
  const blocks = text.match(CERTIFICATE) ?? [];
  if (blocks.length > MAX_CHAIN) throw invalid("its chain is too long");
  const pem = `${blocks.join("\n")}\n${key}`;
  const validity = validityOf(pem, names);
  if (validity.notAfterMs <= nowMs) throw invalid("it has ended");
  return { pem, ...validity };
}

/** The one that is kept, if it is whole and for these names. */
export function readKept(file: string, names: readonly string[]): Validity | undefined {
  try {
    return validityOf(readFileSync(file, "utf8"), names);
  } catch {
    // Missing, cut short or for other names: a new one takes its place.
    return undefined;
  }
}

export async function keepIssued(file: string, { pem }: IssuedCertificate): Promise<void> {
  await replaceFileDurably(file, encodeUtf8(pem));
}

/** @throws `SERVICE_ACME_CERTIFICATE_INVALID` */
function validityOf(pem: string, names: readonly string[]): Validity {
  const leaf = read(() => new X509Certificate(pem));
  const key = read(() => createPrivateKey(pem));
  if (!leaf.checkPrivateKey(key)) throw invalid("it is for another key");
  const covered = dnsNamesOf(leaf);
  if (!names.every((name) => covered.includes(name))) throw invalid("it is for other names");
  return { notBeforeMs: leaf.validFromDate.getTime(), notAfterMs: leaf.validToDate.getTime() };
}

function read<T>(parse: () => T): T {
  try {
    return parse();
  } catch {
    // Without the cause: it may quote the file.
    throw invalid("it cannot be read");
  }
}

function invalid(reason: string): StileError {
  const message = `the certificate of the ACME server is not what was asked for: ${reason}`;
  return new StileError("SERVICE_ACME_CERTIFICATE_INVALID", message);
}
