/**
 * Follows the directory log of an issuer elsewhere: fetches what is new of it and verifies that it continues
 * what was seen before, under the key that was seen first or that the operator has pinned. For edges, and for
 * auditors by the command line.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import {
  type DirectoryLogEntry,
  type DirectoryLogHead,
  followDirectoryLog,
  isLoggedDirectory,
  ISSUER_DIRECTORY_PATH,
  MEDIA_TYPE_ISSUER_DIRECTORY,
  type TokenCrypto,
} from "../../tokens/index.ts";
import {
  decodeBase64Url,
  decodeUtf8,
  encodeBase64Url,
  isStileError,
  StileError,
} from "../../wire/index.ts";
import { exchange, type ExchangeAnswer } from "../agent/exchange.ts";
import { DIRECTORY_LOG_PATH } from "../issuer/routes.ts";
import { es256KeyId } from "../secrets.ts";
import { logKeyOf, logVerifier } from "./log-signature.ts";

/** What a follower keeps from one time to the next. */
export interface KnownLog {
  readonly publicKey: KeyObject;
  readonly head: DirectoryLogHead;
}

export interface FollowedIssuer {
  /** Origin. */
  readonly url: string;
  /** PEM of further CAs. */
  readonly ca: string | undefined;
  /** Issuer name. */
  readonly name: string;
  /** Pins the log's key; without it, the first that is seen is the one. */
  readonly keyId: string | undefined;
  readonly crypto: TokenCrypto;
}

export interface FollowedLog extends KnownLog {
  /** Those that are new. */
  readonly entries: readonly DirectoryLogEntry[];
}

/** A directory that was fetched, and the log that it is in. */
export interface LoggedDirectory {
  readonly directory: Uint8Array;
  /** Undefined where the issuer keeps none. */
  readonly log: FollowedLog | undefined;
  /** False where there is a log, and the directory is not its newest. */
  readonly isLogged: boolean;
}

/** Some 2 KB a line, 500 lines a round: 100,000 entries, a thousand years of weekly rotation. */
const MAX_ROUNDS = 200;
const JWKS_PATH = "/.well-known/jwks.json";

/**
 * The log, then the directory, then the log again: whatever was served in between is in it by then.
 * @param known of the last time
 * @throws `TOKEN_DIRECTORY_LOG_INVALID`; `TOKEN_ISSUER_UNAVAILABLE` where something cannot be fetched
 */
export async function fetchLoggedDirectory(
  issuer: FollowedIssuer,
  known: KnownLog | undefined,
): Promise<LoggedDirectory> {
  const before = await followLog(issuer, known);
  const directory = await fetchDirectory(issuer);
  if (before === undefined) return { directory, log: undefined, isLogged: false };
  const after = await followLog(issuer, before);
  if (after === undefined) throw invalid("the issuer does not show its log any more");
  const log = { ...after, entries: [...before.entries, ...after.entries] };
  const isLogged = isLoggedDirectory(before.head, after, directory, issuer.crypto);
  return { directory, log, isLogged };
}

async function fetchDirectory(issuer: FollowedIssuer): Promise<Uint8Array> {
  // No copy of a cache in between, which may be older than the log.
  const headers = { accept: MEDIA_TYPE_ISSUER_DIRECTORY, "cache-control": "no-cache" };
  const answer = await fetched(issuer, ISSUER_DIRECTORY_PATH, headers);
  const mediaType = (answer.headers["content-type"] ?? "").split(";")[0]?.trim();
  if (answer.status === 200 && mediaType === MEDIA_TYPE_ISSUER_DIRECTORY) return answer.body;
  throw unavailable(`directory: status ${answer.status}`);
}

/** Undefined where the issuer keeps no log, and never did. */
async function followLog(
  issuer: FollowedIssuer,
  known: KnownLog | undefined,
): Promise<FollowedLog | undefined> {
  const first = await linesFrom(issuer, known?.head.index ?? 0);
  if (first === undefined) {
    if (known === undefined) return undefined;
    throw invalid("the issuer does not show its log any more");
  }
  const publicKey = known?.publicKey ?? (await firstKey(issuer, first[0]));
  if (issuer.keyId !== undefined && issuer.keyId !== es256KeyId(publicKey)) {
    throw invalid("the log has another key than the one that was pinned");
  }
  const verifier = { issuer: issuer.name, crypto: issuer.crypto, verify: logVerifier(publicKey) };
  const entries: DirectoryLogEntry[] = [];
  let lines = first;
  let head = known?.head;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const followed = await followDirectoryLog(lines, head, verifier);
    head = followed.head;
    if (followed.entries.length === 0) return { publicKey, head, entries };
    entries.push(...followed.entries);
    lines = (await linesFrom(issuer, head.index)) ?? [];
  }
  throw invalid("the log does not end");
}

async function linesFrom(
  issuer: FollowedIssuer,
  index: number,
): Promise<readonly string[] | undefined> {
  const { body, status } = await fetched(issuer, `${DIRECTORY_LOG_PATH}?from=${index}`);
  if (status === 404) return undefined;
  if (status !== 200) throw unavailable(`directory log: status ${status}`);
  const lines = decodeUtf8(body, "directory log").split("\n");
  if (lines.pop() !== "") throw invalid("the log ends within a line");
  return lines;
}

async function firstKey(issuer: FollowedIssuer, line: string | undefined): Promise<KeyObject> {
  if (line === undefined) throw invalid("the log is empty");
  const { body } = await fetched(issuer, JWKS_PATH);
  try {
    return logKeyOf(JSON.parse(decodeUtf8(body, "key set")), line);
  } catch (cause) {
    throw invalid("the issuer does not show the key of its log", cause);
  }
}

async function fetched(
  { ca, url }: FollowedIssuer,
  path: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<ExchangeAnswer> {
  try {
    return await exchange({ url: new URL(path, url).href, method: "GET", headers, ca });
  } catch (cause) {
    if (!isStileError(cause)) throw cause;
    throw unavailable(cause.message, cause);
  }
}

/** As JSON. */
export function encodeKnownLog({ head, publicKey }: KnownLog): string {
  return JSON.stringify({
    ...head,
    publicKey: publicKey.export({ format: "der", type: "spki" }).toString("base64url"),
    keyId: es256KeyId(publicKey),
    digest: encodeBase64Url(head.digest),
    directoryDigest: encodeBase64Url(head.directoryDigest),
  });
}

/** @param text what {@link encodeKnownLog} wrote, from a file of our own. @throws where it is damaged */
export function parseKnownLog(text: string): KnownLog {
  const { digest, directoryDigest, index, issuer, publicKey, revoked, timeMs } = JSON.parse(
    text,
  ) as Readonly<Record<string, unknown>>;
  const key = Buffer.from(String(publicKey), "base64url");
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(timeMs) || !Array.isArray(revoked)) {
    throw new TypeError("not a known log");
  }
  return {
    publicKey: createPublicKey({ key, format: "der", type: "spki" }),
    head: {
      issuer: String(issuer),
      index: Number(index),
      timeMs: Number(timeMs),
      digest: decodeBase64Url(String(digest), "digest"),
      directoryDigest: decodeBase64Url(String(directoryDigest), "directoryDigest"),
      revoked: revoked.map(String),
    },
  };
}

function invalid(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_DIRECTORY_LOG_INVALID", message, { cause });
}

function unavailable(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_ISSUER_UNAVAILABLE", `the issuer: ${message}`, { cause });
}
