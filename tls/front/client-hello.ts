/**
 * The ClientHello (RFC 8446 §4.1.2) as it comes in TLS records (§5.1), in one or in several. Strict where a second
 * reader could understand something else: whoever is forwarded by the name in it is read once here, and once
 * more by the server that gets its bytes. Extensions are read that say where to forward, or what a fingerprint
 * is made of; the others keep their bytes. Nothing of it is verified: it is what a client claims.
 */
import { Reader } from "../../wire/index.ts";
import type { Looked } from "./first-bytes.ts";

export interface Extension {
  readonly type: number;
  readonly data: Uint8Array;
}

/** Every field is hostile. Lists are as sent, in order, GREASE (RFC 8701) among them. */
export interface ClientHello {
  readonly legacyVersion: number;
  readonly random: Uint8Array;
  readonly legacySessionId: Uint8Array;
  readonly cipherSuites: readonly number[];
  readonly legacyCompressionMethods: Uint8Array;
  readonly extensions: readonly Extension[];
  /** Of printable ASCII, as sent: in any case, and a name or not. */
  readonly serverName: string | undefined;
  readonly alpnProtocols: readonly Uint8Array[];
  readonly supportedVersions: readonly number[];
  readonly supportedGroups: readonly number[];
  readonly signatureAlgorithms: readonly number[];
}

/** RFC 8446 §4.2 and RFC 6066 §3, RFC 7301. */
export const EXTENSION = {
  SERVER_NAME: 0,
  SUPPORTED_GROUPS: 10,
  SIGNATURE_ALGORITHMS: 13,
  ALPN: 16,
  SUPPORTED_VERSIONS: 43,
} as const;

/** Ours: some ten times what a browser sends with a hybrid key share, room for large tickets. */
export const MAX_CLIENT_HELLO_BYTES = 16_384;
/** Ours: clients send one or two; each more would be another look at the same bytes. */
const MAX_RECORDS = 32;
const RECORD_HEADER_BYTES = 5;
const MESSAGE_HEADER_BYTES = 4;
/** RFC 8446 §5.1. */
const MAX_FRAGMENT_BYTES = 16_384;
const CONTENT_TYPE_HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const NAME_TYPE_HOST_NAME = 0;
const MAX_HOST_NAME_BYTES = 255;

/**
 * @param bytes hostile: the first of a connection; what follows the ClientHello's records is left alone
 * @throws `WIRE_TOO_SHORT`, `WIRE_TRAILING_BYTES`, `WIRE_LENGTH_OUT_OF_BOUNDS`, `WIRE_VALUE_NOT_ALLOWED`
 */
export function readClientHello(bytes: Uint8Array): Looked<ClientHello> {
  const reader = new Reader(bytes, "TLSPlaintext");
  const fragments: Uint8Array[] = [];
  let length = 0;
  for (let records = 1; ; records += 1) {
    const missing = readFragment(reader, fragments);
    if (missing > 0) return { kind: "more", atLeast: bytes.length + missing };
    length += fragments.at(-1)?.length ?? 0;
    const message = new Reader(Buffer.concat(fragments, length), "Handshake");
    const body = length < MESSAGE_HEADER_BYTES ? undefined : readMessage(message);
    if (body !== undefined) return { kind: "found", value: parseClientHello(body), taken: 0 };
    if (records === MAX_RECORDS) {
      reader.fail(
        "WIRE_LENGTH_OUT_OF_BOUNDS",
        "fragment",
        `expected ${MAX_RECORDS} records at most`,
      );
    }
  }
}

/** The next record's content. @returns how many bytes are missing for it, at least */
function readFragment(reader: Reader, into: Uint8Array[]): number {
  if (reader.remaining === 0) return RECORD_HEADER_BYTES;
  if (reader.u8("type") !== CONTENT_TYPE_HANDSHAKE) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "type", "expected handshake");
  }
  if (reader.remaining < RECORD_HEADER_BYTES - 1) return RECORD_HEADER_BYTES - 1 - reader.remaining;
  // The minor version is any: RFC 8446 §5.1 wants it ignored.
  if (reader.u8("legacy_record_version") !== 3) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "legacy_record_version", "expected major version 3");
  }
  reader.u8("legacy_record_version");
  const length = reader.u16("length");
  if (length === 0 || length > MAX_FRAGMENT_BYTES) {
    reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", "length", `expected 1 to ${MAX_FRAGMENT_BYTES}`);
  }
  if (reader.remaining < length) return length - reader.remaining;
  into.push(reader.bytes("fragment", length));
  return 0;
}

/** Undefined where it goes on in the next record. Nothing may follow it in the last: RFC 8446 §5.1. */
function readMessage(reader: Reader): Uint8Array | undefined {
  if (reader.u8("msg_type") !== CLIENT_HELLO) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "msg_type", "expected client_hello");
  }
  const length = reader.u8("length") * 65_536 + reader.u16("length");
  if (length > MAX_CLIENT_HELLO_BYTES) {
    reader.fail(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
      "length",
      `expected ${MAX_CLIENT_HELLO_BYTES} at most`,
    );
  }
  if (reader.remaining < length) return undefined;
  const body = reader.bytes("body", length);
  reader.end();
  return body;
}

/** @param bytes the message without its header. @throws as {@link readClientHello} */
export function parseClientHello(bytes: Uint8Array): ClientHello {
  const reader = new Reader(bytes, "ClientHello");
  const legacyVersion = reader.u16("legacy_version");
  const random = reader.bytes("random", 32);
  const legacySessionId = reader.vec8("legacy_session_id", 0, 32);
  const cipherSuites = readNumbers(
    reader,
    "cipher_suites",
    reader.vec16("cipher_suites", 2, 65_534),
  );
  const legacyCompressionMethods = reader.vec8("legacy_compression_methods", 1, 255);
  // Before TLS 1.3 there may be none at all.
  const extensions = reader.remaining === 0 ? [] : readExtensions(reader);
  reader.end();
  const of = (type: number): Uint8Array | undefined =>
    extensions.find((extension) => extension.type === type)?.data;
  return {
    legacyVersion,
    random,
    legacySessionId,
    cipherSuites,
    legacyCompressionMethods,
    extensions,
    serverName: readServerName(of(EXTENSION.SERVER_NAME)),
    alpnProtocols: readProtocols(of(EXTENSION.ALPN)),
    supportedVersions: readList(of(EXTENSION.SUPPORTED_VERSIONS), "supported_versions", 1),
    supportedGroups: readList(of(EXTENSION.SUPPORTED_GROUPS), "supported_groups", 2),
    signatureAlgorithms: readList(of(EXTENSION.SIGNATURE_ALGORITHMS), "signature_algorithms", 2),
  };
}

/** RFC 8446 §4.2: not two of one type. Two server names would be two places to go to. */
function readExtensions(outer: Reader): Extension[] {
  const reader = new Reader(outer.vec16("extensions", 0, 65_535), "ClientHello.extensions");
  const extensions: Extension[] = [];
  const seen = new Set<number>();
  while (reader.remaining > 0) {
    const type = reader.u16("extension_type");
    if (seen.has(type)) reader.fail("WIRE_VALUE_NOT_ALLOWED", "extension_type", "is there twice");
    seen.add(type);
    extensions.push({ type, data: reader.vec16("extension_data", 0, 65_535) });
  }
  return extensions;
}

/** RFC 6066 §3: exactly one name, of the only type there is. */
function readServerName(data: Uint8Array | undefined): string | undefined {
  if (data === undefined) return undefined;
  const outer = new Reader(data, "server_name");
  const reader = new Reader(outer.vec16("server_name_list", 1, 65_535), "server_name");
  outer.end();
  if (reader.u8("name_type") !== NAME_TYPE_HOST_NAME) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "name_type", "expected host_name");
  }
  const name = reader.vec16("host_name", 1, MAX_HOST_NAME_BYTES);
  reader.end();
  if (name.some((byte) => byte <= 0x20 || byte >= 0x7f)) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "host_name", "expected printable ASCII");
  }
  return Buffer.from(name).toString("latin1");
}

function readProtocols(data: Uint8Array | undefined): Uint8Array[] {
  if (data === undefined) return [];
  const outer = new Reader(data, "application_layer_protocol_negotiation");
  const reader = new Reader(outer.vec16("protocol_name_list", 2, 65_535), "ProtocolNameList");
  outer.end();
  const names: Uint8Array[] = [];
  while (reader.remaining > 0) names.push(reader.vec8("ProtocolName", 1, 255));
  return names;
}

/** @param width of the list's length field */
function readList(data: Uint8Array | undefined, field: string, width: 1 | 2): number[] {
  if (data === undefined) return [];
  const reader = new Reader(data, field);
  const list = width === 1 ? reader.vec8(field, 2, 254) : reader.vec16(field, 2, 65_534);
  reader.end();
  return readNumbers(reader, field, list);
}

function readNumbers(outer: Reader, field: string, bytes: Uint8Array): number[] {
  if (bytes.length % 2 !== 0)
    outer.fail("WIRE_LENGTH_OUT_OF_BOUNDS", field, "expected pairs of bytes");
  const reader = new Reader(bytes, field);
  return Array.from({ length: bytes.length / 2 }, () => reader.u16(field));
}
