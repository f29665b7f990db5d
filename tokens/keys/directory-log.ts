/**
 * The log of an issuer's directories: every directory that was ever served and every key that was revoked,
 * in order, each entry signed and chained to the one before it by a digest. Who follows the log learns that
 * all were served the same keys (RFC 9576 §6.2 asks for consistency and leaves the means open): a directory
 * that is not in it, and a log that has changed behind one's back, are proof of the opposite.
 *
 * An entry is a compact JWS (RFC 7515), a log the lines of them. What is signed is JSON with one spelling.
 * Two logs of one issuer can only be told apart by who has seen both: followers compare their heads.
 */
import {
  constantTimeEqual,
  decodeBase64Url,
  decodeHex,
  decodeUtf8,
  encodeBase64Url,
  encodeHex,
  encodeUtf8,
  StileError,
} from "../../wire/index.ts";
import type { TokenCrypto } from "../crypto.ts";
import { parseIssuerDirectory } from "../structures/issuer-directory.ts";
import { TOKEN_KEY_ID_BYTES } from "../structures/token-types.ts";

/** `typ` of the JWS (RFC 7515 §4.1.9). */
export const DIRECTORY_LOG_JWS_TYPE = "stile-directory-log+jws";

export type DirectoryLogEvent =
  /** The body as it is served from this entry on. */
  | { readonly kind: "directory"; readonly directory: Uint8Array }
  /** No token of this key is to be accepted from this entry on. */
  | { readonly kind: "revocation"; readonly tokenKeyId: Uint8Array };

export interface DirectoryLogEntry {
  /** Issuer name (RFC 9577 §2.1.1). */
  readonly issuer: string;
  /** From 0 on, without gaps. */
  readonly index: number;
  /** SHA-256 of the line before this one; empty for the first. */
  readonly previous: Uint8Array;
  /** Unix milliseconds, never less than those of the entry before. */
  readonly timeMs: number;
  readonly event: DirectoryLogEvent;
}

/** What a follower has to remember. */
export interface DirectoryLogHead {
  readonly issuer: string;
  readonly index: number;
  /** SHA-256 of the newest line. */
  readonly digest: Uint8Array;
  readonly timeMs: number;
  /** SHA-256 of the newest directory; empty where there was none yet. */
  readonly directoryDigest: Uint8Array;
  /** Hexadecimal ids of all keys that were ever revoked. */
  readonly revoked: readonly string[];
}

export interface DirectoryLogVerifier {
  readonly issuer: string;
  readonly crypto: TokenCrypto;
  /** The payload of a JWS of {@link DIRECTORY_LOG_JWS_TYPE} by the log's key. @throws where it is none */
  readonly verify: (jws: string) => Promise<Uint8Array>;
}

export interface FollowedDirectoryLog {
  readonly head: DirectoryLogHead;
  /** The new ones, without the entry that was known. */
  readonly entries: readonly DirectoryLogEntry[];
}

const SHA256_BYTES = 32;

/** What is signed. */
export function encodeDirectoryLogEntry(entry: DirectoryLogEntry): Uint8Array {
  const { event, index, issuer, previous, timeMs } = entry;
  const subject =
    event.kind === "directory"
      ? { directory: encodeBase64Url(event.directory) }
      : { revoked: encodeHex(event.tokenKeyId) };
  const previousText = encodeBase64Url(previous);
  return encodeUtf8(JSON.stringify({ issuer, index, previous: previousText, timeMs, ...subject }));
}

/**
 * Verifies lines of a log that follow on what is known of it.
 * @param lines hostile; with `known` they begin with the line of the known head, else with the first of all
 * @throws `TOKEN_DIRECTORY_LOG_INVALID` where they are not the continuation of one honest log
 */
export async function followDirectoryLog(
  lines: readonly string[],
  known: DirectoryLogHead | undefined,
  verifier: DirectoryLogVerifier,
): Promise<FollowedDirectoryLog> {
  const [first, ...further] = lines;
  if (first === undefined) throw invalid("the log is empty");
  if (known !== undefined && !constantTimeEqual(digestOf(verifier, first), known.digest)) {
    throw invalid("the log was changed behind an entry that had been seen");
  }
  let head = known;
  const entries: DirectoryLogEntry[] = [];
  for (const line of known === undefined ? lines : further) {
    const entry = await verifiedEntry(line, verifier);
    head = nextHead(head, entry, digestOf(verifier, line), verifier);
    entries.push(entry);
  }
  if (head === undefined) throw invalid("the log is empty");
  return { head, entries };
}

/**
 * Whether a directory is one that the log had for its newest while it was fetched. Another entry of the log
 * will not do: who is kept at an old directory can be told apart from everybody else, too.
 * @param before of the log before the directory was fetched
 * @param after the log followed on from there, after it was fetched
 */
export function isLoggedDirectory(
  before: DirectoryLogHead,
  after: FollowedDirectoryLog,
  directory: Uint8Array,
  crypto: TokenCrypto,
): boolean {
  if (constantTimeEqual(before.directoryDigest, crypto.sha256(directory))) return true;
  return after.entries.some(
    ({ event }) => event.kind === "directory" && constantTimeEqual(event.directory, directory),
  );
}

function nextHead(
  head: DirectoryLogHead | undefined,
  entry: DirectoryLogEntry,
  digest: Uint8Array,
  { crypto, issuer }: DirectoryLogVerifier,
): DirectoryLogHead {
  const { event, index, previous, timeMs } = entry;
  if (entry.issuer !== issuer) throw invalid("the entry is another issuer's");
  if (index !== (head === undefined ? 0 : head.index + 1)) throw invalid("an entry is missing");
  if (!constantTimeEqual(previous, head?.digest ?? new Uint8Array(0))) {
    throw invalid("an entry does not follow on the one before it");
  }
  if (timeMs < (head?.timeMs ?? 0)) throw invalid("an entry is older than the one before it");
  const revoked = head?.revoked ?? [];
  const base = { issuer, index, digest, timeMs };
  if (event.kind === "revocation") {
    const directoryDigest = head?.directoryDigest ?? new Uint8Array(0);
    return { ...base, directoryDigest, revoked: [...revoked, encodeHex(event.tokenKeyId)] };
  }
  for (const { tokenKey } of parseIssuerDirectory(event.directory).tokenKeys) {
    if (revoked.includes(encodeHex(crypto.sha256(tokenKey)))) {
      throw invalid("a directory lists a key that was revoked");
    }
  }
  return { ...base, directoryDigest: crypto.sha256(event.directory), revoked };
}

async function verifiedEntry(
  line: string,
  verifier: DirectoryLogVerifier,
): Promise<DirectoryLogEntry> {
  let payload: Uint8Array;
  try {
    payload = await verifier.verify(line);
  } catch (cause) {
    throw invalid("an entry is not signed by the log's key", cause);
  }
  try {
    return parseEntry(payload);
  } catch (cause) {
    throw invalid("an entry is malformed", cause);
  }
}

/** One spelling: what parses is, byte for byte, what {@link encodeDirectoryLogEntry} writes. */
function parseEntry(payload: Uint8Array): DirectoryLogEntry {
  const text = decodeUtf8(payload, "entry");
  const members = { ...(JSON.parse(text) as Record<string, unknown>) };
  const { directory, index, issuer, previous, revoked, timeMs } = members;
  const entry: DirectoryLogEntry = {
    issuer: String(issuer),
    index: Number(index),
    previous: decodeBase64Url(String(previous), "previous"),
    timeMs: Number(timeMs),
    event:
      directory === undefined
        ? { kind: "revocation", tokenKeyId: hexOf(revoked) }
        : { kind: "directory", directory: base64Of(directory) },
  };
  const isWhole = Number.isSafeInteger(entry.index) && Number.isSafeInteger(entry.timeMs);
  const isChained = entry.previous.length === (entry.index === 0 ? 0 : SHA256_BYTES);
  const isSpelled = decodeUtf8(encodeDirectoryLogEntry(entry), "entry") === text;
  if (!isWhole || !isChained || !isSpelled) throw new RangeError("not in its one spelling");
  if (entry.event.kind === "directory") parseIssuerDirectory(entry.event.directory);
  return entry;
}

function base64Of(value: unknown): Uint8Array {
  if (typeof value !== "string") throw new TypeError("expected text");
  return decodeBase64Url(value, "directory");
}

function hexOf(value: unknown): Uint8Array {
  const bytes = decodeHex(String(value), "revoked");
  if (bytes.length !== TOKEN_KEY_ID_BYTES) throw new RangeError("expected a token key id");
  return bytes;
}

function digestOf({ crypto }: DirectoryLogVerifier, line: string): Uint8Array {
  return crypto.sha256(encodeUtf8(line));
}

function invalid(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_DIRECTORY_LOG_INVALID", message, { cause });
}
