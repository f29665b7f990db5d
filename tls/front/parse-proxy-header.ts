/**
 * Reads the PROXY protocol's header (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2) from the first bytes
 * of a connection. Strict: one spelling for each field, stated bounds, the checksum where there is one. What
 * it says is the sender's word; whether the sender is believed was decided before, by its network.
 */
import { isIPv4, isIPv6 } from "node:net";
import { Reader } from "../../wire/index.ts";
import { crc32c } from "./crc32c.ts";
import {
  addressText,
  type Endpoint,
  PROXY_V2_COMMAND,
  PROXY_V2_FAMILY,
  PROXY_V2_SIGNATURE,
  type ProxiedConnection,
} from "./proxy-header.ts";

export type ProxyHeader =
  | { readonly kind: "tcp"; readonly connection: ProxiedConnection }
  /** The sender's client has no IP address (AF_UNIX). */
  | { readonly kind: "unix" }
  /** LOCAL, UNKNOWN or AF_UNSPEC: the connection's own ends count, which are the sender's. */
  | { readonly kind: "none" };

export type ReadProxyHeader =
  | { readonly kind: "header"; readonly header: ProxyHeader; readonly length: number }
  | { readonly kind: "incomplete" };

/** Section 2.1: the longest line, its CRLF included. */
export const MAX_PROXY_V1_BYTES = 107;
/** Ours: addresses are 216 bytes at most; the rest is for TLVs, of which a client certificate is the largest. */
export const MAX_PROXY_V2_BYTES = 4_096;
const V2_FIXED_BYTES = 16;
const V1_START = Uint8Array.from(Buffer.from("PROXY "));
/** Section 2.2: the path of a Unix socket, padded. */
const UNIX_PATH_BYTES = 108;
/** Section 2.2.3. */
const PP2_TYPE_CRC32C = 0x03;
const CRC_BYTES = 4;
const INCOMPLETE: ReadProxyHeader = { kind: "incomplete" };

/**
 * @param bytes hostile; what follows the header is left alone
 * @throws `WIRE_TOO_SHORT`, `WIRE_TRAILING_BYTES`, `WIRE_LENGTH_OUT_OF_BOUNDS`, `WIRE_VALUE_NOT_ALLOWED`,
 * `WIRE_BAD_ENCODING` as soon as no bytes to come could make it a header
 */
export function readProxyHeader(bytes: Uint8Array): ReadProxyHeader {
  if (bytes.length === 0) return INCOMPLETE;
  return bytes[0] === V1_START[0] ? readV1(bytes) : readV2(bytes);
}

function readV1(bytes: Uint8Array): ReadProxyHeader {
  const reader = new Reader(bytes, "PROXY v1");
  if (!expectStart(reader, V1_START)) return INCOMPLETE;
  const feed = bytes.indexOf(0x0a);
  if (feed < 0 && bytes.length < MAX_PROXY_V1_BYTES) return INCOMPLETE;
  if (feed < 0 || feed >= MAX_PROXY_V1_BYTES) {
    reader.fail(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
      "line",
      `expected ${MAX_PROXY_V1_BYTES} bytes at most`,
    );
  }
  const line = Buffer.from(reader.bytes("line", feed + 1 - reader.offset)).toString("latin1");
  if (!line.endsWith("\r\n")) reader.fail("WIRE_BAD_ENCODING", "line", "expected CRLF at its end");
  return { kind: "header", header: headerOfLine(line.slice(0, -2), reader), length: feed + 1 };
}

function headerOfLine(line: string, reader: Reader): ProxyHeader {
  // Section 2.1: whatever stands behind UNKNOWN is to be ignored.
  if (line === "UNKNOWN" || line.startsWith("UNKNOWN ")) return { kind: "none" };
  const [family, from = "", to = "", fromPort = "", toPort = "", ...rest] = line.split(" ");
  if ((family !== "TCP4" && family !== "TCP6") || rest.length > 0) {
    return reader.fail("WIRE_VALUE_NOT_ALLOWED", "line", "expected TCP4, TCP6 or UNKNOWN");
  }
  const isAddress = family === "TCP4" ? isIPv4 : isIPv6;
  const endpoint = (address: string, port: string): Endpoint => {
    // A zone is this machine's own, and nobody else's to name.
    if (!isAddress(address) || address.includes("%")) {
      reader.fail("WIRE_BAD_ENCODING", "address", "expected an address of the family");
    }
    if (!/^(?:0|[1-9][0-9]{0,4})$/.test(port) || Number(port) > 65_535) {
      reader.fail("WIRE_BAD_ENCODING", "port", "expected a decimal number to 65535");
    }
    return { address, port: Number(port) };
  };
  const source = endpoint(from, fromPort);
  return { kind: "tcp", connection: { source, destination: endpoint(to, toPort) } };
}

function readV2(bytes: Uint8Array): ReadProxyHeader {
  const reader = new Reader(bytes, "PROXY v2");
  if (!expectStart(reader, PROXY_V2_SIGNATURE)) return INCOMPLETE;
  if (bytes.length < V2_FIXED_BYTES) return INCOMPLETE;
  const command = reader.u8("ver_cmd");
  if (command !== PROXY_V2_COMMAND.LOCAL && command !== PROXY_V2_COMMAND.PROXY) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "ver_cmd", "expected version 2, LOCAL or PROXY");
  }
  const family = reader.u8("fam");
  const length = reader.u16("len");
  if (length > MAX_PROXY_V2_BYTES - V2_FIXED_BYTES) {
    reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", "len", `expected ${MAX_PROXY_V2_BYTES} at most`);
  }
  if (reader.remaining < length) return INCOMPLETE;
  const rest = new Reader(reader.bytes("addr", length), "PROXY v2");
  const header = readV2Addresses(rest, family);
  checkTlvs(rest, bytes.subarray(0, reader.offset));
  const isLocal = command === PROXY_V2_COMMAND.LOCAL;
  return { kind: "header", header: isLocal ? { kind: "none" } : header, length: reader.offset };
}

function readV2Addresses(reader: Reader, family: number): ProxyHeader {
  switch (family) {
    case PROXY_V2_FAMILY.UNSPEC:
      return { kind: "none" };
    case PROXY_V2_FAMILY.TCP4:
      return readEndpoints(reader, 4);
    case PROXY_V2_FAMILY.TCP6:
      return readEndpoints(reader, 16);
    case PROXY_V2_FAMILY.UNIX:
      reader.bytes("src_addr", UNIX_PATH_BYTES);
      reader.bytes("dst_addr", UNIX_PATH_BYTES);
      return { kind: "unix" };
    default:
      // UDP and datagrams are among them: this is a connection.
      return reader.fail("WIRE_VALUE_NOT_ALLOWED", "fam", "expected a stream of a known family");
  }
}

function readEndpoints(reader: Reader, width: 4 | 16): ProxyHeader {
  const from = addressText(reader.bytes("src_addr", width));
  const to = addressText(reader.bytes("dst_addr", width));
  const source = { address: from, port: reader.u16("src_port") };
  const destination = { address: to, port: reader.u16("dst_port") };
  return { kind: "tcp", connection: { source, destination } };
}

/** Section 2.2.1: types that are not known are skipped; so are those that say what is not asked here. */
function checkTlvs(reader: Reader, header: Uint8Array): void {
  let hasChecksum = false;
  while (reader.remaining > 0) {
    const type = reader.u8("type");
    const value = reader.vec16("value", 0, MAX_PROXY_V2_BYTES);
    if (type !== PP2_TYPE_CRC32C) continue;
    const said = new Reader(value, "PP2_TYPE_CRC32C");
    const checksum = said.u32("checksum");
    said.end();
    const at = V2_FIXED_BYTES + reader.offset - CRC_BYTES;
    const zeroes = new Uint8Array(CRC_BYTES);
    const own = crc32c(header.subarray(0, at), zeroes, header.subarray(at + CRC_BYTES));
    if (hasChecksum || own !== checksum) {
      reader.fail("WIRE_VALUE_NOT_ALLOWED", "value", "expected one checksum, that of this header");
    }
    hasChecksum = true;
  }
}

/** False where `start` may still come. Anything else is refused with its first wrong byte. */
function expectStart(reader: Reader, start: Uint8Array): boolean {
  const begun = reader.bytes("start", Math.min(start.length, reader.remaining));
  if (begun.some((byte, i) => byte !== start[i])) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "start", "expected the PROXY protocol");
  }
  return begun.length === start.length;
}
