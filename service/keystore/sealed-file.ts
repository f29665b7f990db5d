/**
 * The form of a sealed file: JSON with one spelling. A file that parses is, byte for byte, what
 * {@link encodeSealedFile} writes, which leaves no unknown, repeated or missing member and no second
 * encoding. Nothing here is verified: the seal (sealer.ts) decides whether the content is genuine.
 */
import { encodeUtf8, StileError } from "../../wire/index.ts";

/** Parameters of scrypt (RFC 7914) and its salt in hexadecimal. */
export interface SealKdf {
  readonly name: "scrypt";
  readonly n: number;
  readonly r: number;
  readonly p: number;
  readonly salt: string;
}

/** Public facts about the content; sealed with it. The order of members counts. */
export type SealMetadata = Readonly<Record<string, string | number>>;

/** All that is bound to the ciphertext as associated data. */
export interface SealHeader {
  readonly version: 1;
  /** What the content is for: a file does not open as something else. */
  readonly purpose: string;
  readonly kdf: SealKdf;
  readonly metadata: SealMetadata;
  readonly cipher: "aes-256-gcm";
}

export interface SealedFile {
  readonly header: SealHeader;
  /** 12 bytes, in hexadecimal as all of these. */
  readonly iv: string;
  readonly ciphertext: string;
  /** 16 bytes. */
  readonly tag: string;
}

/** A sealed RSA-2048 key is 4 KiB; this leaves room, and keeps a wrong file out of memory. */
export const MAX_SEALED_FILE_BYTES: number = 64 * 1024;

/** log2 of the cost that is written, and the bounds of what is read: 128 to 512 MiB of memory. */
const SCRYPT_N = 2 ** 17;
const MAX_SCRYPT_N = 2 ** 19;
const SCRYPT_R = 8;
const SCRYPT_P = 1;
const HEX_16 = /^[0-9a-f]{32}$/;
const HEX_12 = /^[0-9a-f]{24}$/;
const HEX = /^(?:[0-9a-f]{2})+$/;

/** The parameters for new files: OWASP's first choice for scrypt, some 0.4 s. */
export function newSealKdf(salt: string): SealKdf {
  return { name: "scrypt", n: SCRYPT_N, r: SCRYPT_R, p: SCRYPT_P, salt };
}

export function encodeSealedFile({ header, iv, ciphertext, tag }: SealedFile): Uint8Array {
  const { version, purpose, kdf, metadata, cipher } = header;
  const { name, n, r, p, salt } = kdf;
  const ordered = { version, purpose, kdf: { name, n, r, p, salt }, metadata, cipher };
  return encodeUtf8(`${JSON.stringify({ ...ordered, iv, ciphertext, tag }, null, 2)}\n`);
}

/** The associated data: the header in one spelling. */
export function encodeSealHeader(header: SealHeader): Uint8Array {
  const { version, purpose, kdf, metadata, cipher } = header;
  const { name, n, r, p, salt } = kdf;
  const ordered = { version, purpose, kdf: { name, n, r, p, salt }, metadata, cipher };
  return encodeUtf8(JSON.stringify(ordered));
}

/** @throws `TOKEN_KEY_STORE_INVALID` */
export function parseSealedFile(bytes: Uint8Array): SealedFile {
  if (bytes.length > MAX_SEALED_FILE_BYTES) throw invalidFile("the file is too large");
  const top = membersOf(parseJson(bytes));
  const kdf = membersOf(top["kdf"]);
  const { n, salt } = kdf;
  if (top["version"] !== 1) throw invalidFile("unknown version");
  if (kdf["name"] !== "scrypt" || kdf["r"] !== SCRYPT_R || kdf["p"] !== SCRYPT_P) {
    throw invalidFile("unknown key derivation");
  }
  // Less than what is written would be a gift to who tries passphrases, more could exhaust memory.
  if (
    typeof n !== "number" ||
    n < SCRYPT_N ||
    n > MAX_SCRYPT_N ||
    !Number.isInteger(Math.log2(n))
  ) {
    throw invalidFile("the cost of the key derivation is out of bounds");
  }
  if (top["cipher"] !== "aes-256-gcm") throw invalidFile("unknown cipher");
  const file: SealedFile = {
    header: {
      version: 1,
      purpose: textOf(top["purpose"], /^[ -~]{1,64}$/),
      kdf: { name: "scrypt", n, r: SCRYPT_R, p: SCRYPT_P, salt: textOf(salt, HEX_16) },
      metadata: metadataOf(top["metadata"]),
      cipher: "aes-256-gcm",
    },
    iv: textOf(top["iv"], HEX_12),
    ciphertext: textOf(top["ciphertext"], HEX),
    tag: textOf(top["tag"], HEX_16),
  };
  if (Buffer.compare(encodeSealedFile(file), bytes) !== 0)
    throw invalidFile("not in its one spelling");
  return file;
}

/** The error for whatever is wrong with a stored key: the message names no content. */
export function invalidFile(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_KEY_STORE_INVALID", message, { cause });
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    // Without its cause: the message of JSON.parse quotes the file.
    throw invalidFile("not JSON in UTF-8");
  }
}

function membersOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidFile("expected an object");
  }
  return { ...value };
}

function metadataOf(value: unknown): SealMetadata {
  const metadata: Record<string, string | number> = {};
  for (const [name, member] of Object.entries(membersOf(value))) {
    if (typeof member !== "string" && !Number.isSafeInteger(member)) {
      throw invalidFile("expected text and integers as metadata");
    }
    metadata[name] = typeof member === "string" ? member : Number(member);
  }
  return metadata;
}

function textOf(value: unknown, form: RegExp): string {
  if (typeof value !== "string" || !form.test(value)) throw invalidFile("malformed text");
  return value;
}
