/**
 * The expiration extension of draft-ietf-privacypass-expiration-extension-00: until when a token is good, in
 * steps that are coarse enough to be shared by many tokens.
 */
import { Reader, Writer } from "../../wire/index.ts";
import type { Extension } from "./extensions.ts";

export const EXTENSION_TYPE_EXPIRATION = 0x0001;

/** As the token says it; nothing here says that it is a sensible instant. */
export interface ExpirationTimestamp {
  /** Seconds that the timestamp is a multiple of. */
  readonly timestampPrecision: bigint;
  /** Unix seconds. */
  readonly timestamp: bigint;
}

/** @param bytes extension_data. @throws `WIRE_*` */
export function parseExpirationTimestamp(bytes: Uint8Array): ExpirationTimestamp {
  const reader = new Reader(bytes, "ExpirationTimestamp");
  const expiration = {
    // uint64_t timestamp_precision;
    timestampPrecision: reader.u64("timestamp_precision"),
    // uint64_t timestamp;
    timestamp: reader.u64("timestamp"),
  };
  reader.end();
  return expiration;
}

export function expirationExtension(expiration: ExpirationTimestamp): Extension {
  const { timestamp, timestampPrecision } = expiration;
  const extensionData = new Writer().u64(timestampPrecision).u64(timestamp).finish();
  return { extensionType: EXTENSION_TYPE_EXPIRATION, extensionData };
}
