/**
 * The issuer directory as it is served (RFC 9578 §4): the same bytes for every client, since a client
 * that gets a key of its own can be followed (RFC 9576 §6.2), with a strong ETag (RFC 9110 §8.8.3) and
 * a cache life that ends before the listed keys do.
 */
import { encodeBase64Url } from "../../wire/index.ts";
import type { TokenCrypto } from "../crypto.ts";
import { encodeIssuerDirectory } from "../structures/issuer-directory.ts";
import { type IssuerKeyRecord, keyStateAt } from "./issuer-key-record.ts";
import type { KeyRing } from "./key-ring.ts";

export interface DirectoryOptions {
  /** Absolute, or relative to the directory. */
  readonly issuerRequestUri: string;
  /** The same as in the key schedule. */
  readonly directoryLifetimeMs: number;
  readonly clock: () => number;
  readonly crypto: TokenCrypto;
}

export interface EncodedDirectory {
  readonly body: Uint8Array;
  /** Quoted and strong: a digest of `body`. */
  readonly etag: string;
  /** Seconds, 0 or more, for `Cache-Control: max-age`. */
  readonly maxAgeSeconds: number;
}

/**
 * Lists published and active keys, newest first: the first key whose not-before has passed is the one
 * to use, so a cached copy moves over to the successor by itself.
 */
export function encodeDirectory(ring: KeyRing, options: DirectoryOptions): EncodedDirectory {
  const nowMs = options.clock();
  const listed = ring.records().filter((record) => isListed(record, nowMs));
  const body = encodeIssuerDirectory({
    issuerRequestUri: options.issuerRequestUri,
    tokenKeys: listed.map((record) => ({
      tokenType: record.tokenType,
      tokenKey: record.publicKeySpki,
      // rounded up: a client must not come before the key signs
      notBefore: Math.ceil(record.notBeforeMs / 1000),
    })),
  });
  const lastRetireMs = Math.max(nowMs, ...listed.map((record) => record.retireAtMs));
  const cacheMs = Math.min(options.directoryLifetimeMs, lastRetireMs - nowMs);
  return {
    body,
    etag: `"${encodeBase64Url(options.crypto.sha256(body))}"`,
    maxAgeSeconds: Math.floor(cacheMs / 1000),
  };
}

function isListed(record: IssuerKeyRecord, nowMs: number): boolean {
  const state = keyStateAt(record, nowMs);
  return nowMs >= record.publishedAtMs && (state === "published" || state === "active");
}
