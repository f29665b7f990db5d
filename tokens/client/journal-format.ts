/**
 * The bytes of the wallet's journal. A header, then records, each
 *   u32 length of the payload, u32 complement of it, payload, 8 bytes of SHA-256(payload).
 * One append is one record, and the next append waits until it is on disk: so a crash can only damage
 * the last record. Whatever else is wrong was not done by a crash, and the journal is refused, since a
 * lost "taken" record would hand a token out twice.
 */
import { constantTimeEqual, encodeUtf8, Reader, StileError, Writer } from "../../wire/index.ts";

export const JOURNAL_HEADER: Uint8Array = encodeUtf8("stile wallet 1\n");
/** 1,000 tokens of 354 bytes and more; `put` refuses more at a time. */
export const MAX_PAYLOAD_BYTES = 1_048_576;

const CHECKSUM_BYTES = 8;
const FRAME_BYTES = 8;
const KIND_ADDED = 1;
const KIND_TAKEN = 2;
/** As KIND_ADDED, and each token with its extensions, or with none. */
const KIND_ADDED_EXTENDED = 3;

export interface StoredToken {
  /** The encoded token. */
  readonly token: Uint8Array;
  /** Unix milliseconds. */
  readonly expiresAtMs: number;
  /** Encoded; of a token whose type has public metadata, and of no other. */
  readonly extensions?: Uint8Array;
}

export type JournalEntry =
  | { readonly kind: "added"; readonly tokens: readonly StoredToken[] }
  /** `id` is the digest of a token that was handed out. */
  | { readonly kind: "taken"; readonly id: Uint8Array };

/** What a journal holds, and where its intact part ends. */
export interface JournalContent {
  readonly entries: readonly JournalEntry[];
  /** Bytes from here on are a torn append, to be cut off. */
  readonly intactBytes: number;
}

type Sha256 = (data: Uint8Array) => Uint8Array;

export function encodeJournalEntry(entry: JournalEntry, sha256: Sha256): Uint8Array {
  const payload = encodePayload(entry);
  return new Writer()
    .u32(payload.length)
    .u32(complement(payload.length))
    .bytes(payload)
    .bytes(sha256(payload).subarray(0, CHECKSUM_BYTES))
    .finish();
}

/** @throws `TOKEN_WALLET_DAMAGED` for damage that no crash of ours leaves */
export function parseJournal(bytes: Uint8Array, sha256: Sha256): JournalContent {
  const header = bytes.subarray(0, JOURNAL_HEADER.length);
  if (!constantTimeEqual(header, JOURNAL_HEADER.subarray(0, header.length))) throw damaged();
  const entries: JournalEntry[] = [];
  if (header.length < JOURNAL_HEADER.length) return { entries, intactBytes: 0 };
  let intactBytes = header.length;
  while (intactBytes < bytes.length) {
    const rest = bytes.subarray(intactBytes);
    const payload = intactPayload(rest, sha256);
    if (payload === undefined) break;
    entries.push(parsePayload(payload));
    intactBytes += FRAME_BYTES + payload.length + CHECKSUM_BYTES;
  }
  return { entries, intactBytes };
}

/** The payload of the first record; `undefined` when that record is the torn end of the file. */
function intactPayload(rest: Uint8Array, sha256: Sha256): Uint8Array | undefined {
  if (rest.length < FRAME_BYTES) return undefined;
  const reader = new Reader(rest, "journal");
  const length = reader.u32("length");
  if (reader.u32("complement") !== complement(length) || length > MAX_PAYLOAD_BYTES) {
    // A file system may have grown the file before the data arrived: then all of it is zeros.
    if (rest.every((byte) => byte === 0)) return undefined;
    throw damaged();
  }
  if (reader.remaining < length + CHECKSUM_BYTES) return undefined;
  const payload = reader.bytes("payload", length);
  const checksum = reader.bytes("checksum", CHECKSUM_BYTES);
  if (constantTimeEqual(checksum, sha256(payload).subarray(0, CHECKSUM_BYTES))) return payload;
  if (reader.remaining === 0) return undefined;
  throw damaged();
}

function encodePayload(entry: JournalEntry): Uint8Array {
  if (entry.kind === "taken") return new Writer().u8(KIND_TAKEN).bytes(entry.id).finish();
  // Without extensions as ever: an older version reads it.
  const isExtended = entry.tokens.some(({ extensions }) => extensions !== undefined);
  const writer = new Writer().u8(isExtended ? KIND_ADDED_EXTENDED : KIND_ADDED);
  for (const { token, expiresAtMs, extensions } of entry.tokens) {
    writer.u64(BigInt(expiresAtMs)).vec16(token);
    if (isExtended) writer.vec16(extensions ?? new Uint8Array());
  }
  return writer.finish();
}

/** Of a payload whose checksum is right: an unknown kind was written by another version. */
function parsePayload(payload: Uint8Array): JournalEntry {
  const reader = new Reader(payload, "journal");
  const kind = reader.u8("kind");
  if (kind === KIND_TAKEN) return { kind: "taken", id: reader.rest("id") };
  if (kind !== KIND_ADDED && kind !== KIND_ADDED_EXTENDED) throw damaged();
  const tokens: StoredToken[] = [];
  while (reader.remaining > 0) {
    const expiresAtMs = Number(reader.u64("expires_at_ms"));
    const token = Uint8Array.from(reader.vec16("token", 1, 0xffff));
    const extensions =
      kind === KIND_ADDED ? undefined : Uint8Array.from(reader.vec16("extensions", 0, 0xffff));
    tokens.push({
      expiresAtMs,
      token,
      ...(extensions === undefined || extensions.length === 0 ? {} : { extensions }),
    });
  }
  return { kind: "added", tokens };
}

function complement(length: number): number {
  return 0xffff_ffff - length;
}

function damaged(): StileError {
  return new StileError("TOKEN_WALLET_DAMAGED", "the wallet's journal is damaged");
}
