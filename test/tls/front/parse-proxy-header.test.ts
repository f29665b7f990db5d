/** The parser of the PROXY protocol: headers that others wrote, every refusal, and mutations of all of them. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { crc32c } from "../../../tls/front/crc32c.ts";
import {
  MAX_PROXY_V1_BYTES,
  MAX_PROXY_V2_BYTES,
  type ProxyHeader,
  readProxyHeader,
} from "../../../tls/front/parse-proxy-header.ts";
import { encodeProxyHeader } from "../../../tls/index.ts";
import { isStileError } from "../../../wire/index.ts";
import { codeOf } from "../../support/reject.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ""), "hex");
const line = (text: string): Buffer => Buffer.from(text, "latin1");
const tcp = (from: string, fromPort: number, to: string, toPort: number): ProxyHeader => ({
  kind: "tcp",
  connection: {
    source: { address: from, port: fromPort },
    destination: { address: to, port: toPort },
  },
});
const NONE: ProxyHeader = { kind: "none" };

const SIGNATURE = "0d0a0d0a000d0a515549540a";
const V4_ADDRESSES = "ac130001ac130003a6520050";
const v2 = (rest: string): Buffer => hex(SIGNATURE + rest);
/** With a length that is right. */
const v2Of = (command: string, family: string, body: string): Buffer => {
  const bytes = hex(body);
  return v2(`${command}${family}${bytes.length.toString(16).padStart(4, "0")}${body}`);
};
/** With a TLV that holds the checksum, right or wrong by so much. */
function withChecksum(wrongBy = 0, further = ""): Buffer {
  const bytes = v2Of("21", "11", `${V4_ADDRESSES}04000155 030004 00000000 ${further}`);
  bytes.writeUInt32BE((crc32c(bytes) + wrongBy) >>> 0, 16 + 12 + 4 + 3);
  return bytes;
}

const SOUND: readonly (readonly [string, Buffer, ProxyHeader])[] = [
  // Written by nginx 1.x (`proxy_protocol on`) and by HAProxy (`send-proxy-v2`), as others have recorded them.
  [
    "nginx's v1",
    line("PROXY TCP4 172.19.0.1 172.19.0.3 42272 80\r\n"),
    tcp("172.19.0.1", 42_272, "172.19.0.3", 80),
  ],
  ["HAProxy's v2", v2(`2111000c${V4_ADDRESSES}`), tcp("172.19.0.1", 42_578, "172.19.0.3", 80)],
  // Examples of the specification.
  [
    "the longest v1 of TCP4",
    line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
    tcp("255.255.255.255", 65_535, "255.255.255.255", 65_535),
  ],
  ["v1 that does not know", line("PROXY UNKNOWN\r\n"), NONE],
  [
    "the longest v1",
    line(`PROXY UNKNOWN ${"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ".repeat(2)}65535 65535\r\n`),
    NONE,
  ],
  ["v1 of TCP6", line("PROXY TCP6 2001:db8::1 ::1 1 2\r\n"), tcp("2001:db8::1", 1, "::1", 2)],
  ["v2 LOCAL", v2("20000000"), NONE],
  ["v2 LOCAL with addresses, which do not count", v2(`2011000c${V4_ADDRESSES}`), NONE],
  ["v2 of an unspecified family", v2("21000000"), NONE],
  [
    "v2 of TCP6",
    v2Of("21", "21", `20010db8${"00".repeat(11)}01 ${"00".repeat(15)}01 0001 0002`),
    tcp("2001:db8::1", 1, "::1", 2),
  ],
  ["v2 of a Unix socket", v2Of("21", "31", "2f".repeat(216)), { kind: "unix" }],
  [
    "v2 with TLVs: ALPN, an AWS endpoint, one that nobody knows",
    v2Of("21", "11", `${V4_ADDRESSES} 010002 6832 ea0003 010203 ff0000`),
    tcp("172.19.0.1", 42_578, "172.19.0.3", 80),
  ],
  ["v2 with a checksum", withChecksum(), tcp("172.19.0.1", 42_578, "172.19.0.3", 80)],
];

const REFUSED: readonly (readonly [string, Buffer, string])[] = [
  ["a ClientHello", hex("160301"), "WIRE_VALUE_NOT_ALLOWED"],
  ["HTTP", line("GET / HTTP/1.1\r\n"), "WIRE_VALUE_NOT_ALLOWED"],
  ["another method that begins alike", line("PROPFIND /"), "WIRE_VALUE_NOT_ALLOWED"],
  ["lower case", line("proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n"), "WIRE_VALUE_NOT_ALLOWED"],
  ["no CR", line("PROXY UNKNOWN\n"), "WIRE_BAD_ENCODING"],
  ["another family", line("PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n"), "WIRE_VALUE_NOT_ALLOWED"],
  ["a family that only begins alike", line("PROXY UNKNOWNX\r\n"), "WIRE_VALUE_NOT_ALLOWED"],
  ["two spaces", line("PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n"), "WIRE_VALUE_NOT_ALLOWED"],
  ["a space at the end", line("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n"), "WIRE_VALUE_NOT_ALLOWED"],
  ["an IPv6 address as TCP4", line("PROXY TCP4 ::1 1.1.1.1 1 1\r\n"), "WIRE_BAD_ENCODING"],
  ["an IPv4 address as TCP6", line("PROXY TCP6 ::1 1.1.1.1 1 1\r\n"), "WIRE_BAD_ENCODING"],
  ["a leading zero", line("PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n"), "WIRE_BAD_ENCODING"],
  ["a zone", line("PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n"), "WIRE_BAD_ENCODING"],
  ["no port", line("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n"), "WIRE_BAD_ENCODING"],
  ["a port with a sign", line("PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n"), "WIRE_BAD_ENCODING"],
  ["a port with a leading zero", line("PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n"), "WIRE_BAD_ENCODING"],
  ["a port too large", line("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n"), "WIRE_BAD_ENCODING"],
  ["a line too long", line(`PROXY UNKNOWN ${"x".repeat(92)}\r\n`), "WIRE_LENGTH_OUT_OF_BOUNDS"],
  ["a line without an end", line(`PROXY UNKNOWN ${"x".repeat(93)}`), "WIRE_LENGTH_OUT_OF_BOUNDS"],
  ["version 1 in version 2's form", v2(`1111000c${V4_ADDRESSES}`), "WIRE_VALUE_NOT_ALLOWED"],
  ["another command", v2(`2211000c${V4_ADDRESSES}`), "WIRE_VALUE_NOT_ALLOWED"],
  ["a length bomb", v2("2111ffff"), "WIRE_LENGTH_OUT_OF_BOUNDS"],
  ["one byte more than is taken", v2("21110ff1"), "WIRE_LENGTH_OUT_OF_BOUNDS"],
  ["UDP", v2(`2112000c${V4_ADDRESSES}`), "WIRE_VALUE_NOT_ALLOWED"],
  ["a family that nobody knows", v2(`2141000c${V4_ADDRESSES}`), "WIRE_VALUE_NOT_ALLOWED"],
  ["addresses that are cut", v2Of("21", "11", V4_ADDRESSES.slice(2)), "WIRE_TOO_SHORT"],
  ["addresses of the other family", v2Of("21", "21", V4_ADDRESSES), "WIRE_TOO_SHORT"],
  ["a Unix path that is cut", v2Of("21", "31", "2f".repeat(215)), "WIRE_TOO_SHORT"],
  ["a TLV without a length", v2Of("21", "11", `${V4_ADDRESSES}0400`), "WIRE_TOO_SHORT"],
  [
    "a TLV that is longer than the header",
    v2Of("21", "11", `${V4_ADDRESSES}04000901`),
    "WIRE_TOO_SHORT",
  ],
  ["a TLV behind LOCAL that is too long", v2Of("20", "00", "04ffff"), "WIRE_LENGTH_OUT_OF_BOUNDS"],
  ["a checksum of three bytes", v2Of("21", "11", `${V4_ADDRESSES}030003000000`), "WIRE_TOO_SHORT"],
  [
    "a checksum of five",
    v2Of("21", "11", `${V4_ADDRESSES}0300050000000000`),
    "WIRE_TRAILING_BYTES",
  ],
  ["a wrong checksum", withChecksum(1), "WIRE_VALUE_NOT_ALLOWED"],
  ["two checksums", withChecksum(0, "030004 00000000"), "WIRE_VALUE_NOT_ALLOWED"],
];

describe("a PROXY header", () => {
  test("has the checksum that RFC 3720 shows", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe306_9283);
    // Appendix B.4: 32 bytes of zeroes, of ones, and counted up.
    expect(crc32c(new Uint8Array(32))).toBe(0x8a91_36aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8_ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd_794e);
  });

  test.each(SOUND)("is read: %s", (_name, bytes, header) => {
    const expected = { kind: "header", header, length: bytes.length };
    expect(readProxyHeader(bytes)).toStrictEqual(expected);
    // What follows is not looked at, and a view at an offset says the same.
    const inside = Buffer.concat([hex("ffff"), bytes, hex("16030100")]);
    expect(readProxyHeader(inside.subarray(2))).toStrictEqual(expected);
  });

  test.each(SOUND)("is waited for, byte by byte: %s", (_name, bytes) => {
    for (let length = 0; length < bytes.length; length += 1) {
      expect(readProxyHeader(bytes.subarray(0, length))).toStrictEqual({ kind: "incomplete" });
    }
  });

  test.each(REFUSED)("rejects %s", (_name, bytes, code) => {
    expect(codeOf(() => readProxyHeader(bytes))).toBe(code);
  });

  test("rejects another protocol with its first wrong byte, and holds little of any", () => {
    expect(codeOf(() => readProxyHeader(line("PROXX")))).toBe("WIRE_VALUE_NOT_ALLOWED");
    expect(codeOf(() => readProxyHeader(hex("0d0a0d0b")))).toBe("WIRE_VALUE_NOT_ALLOWED");
    const longest = Buffer.concat([v2("21110ff0"), hex(V4_ADDRESSES), Buffer.alloc(4_068, 4)]);
    expect(longest).toHaveLength(MAX_PROXY_V2_BYTES);
    expect(readProxyHeader(longest.subarray(0, -1))).toStrictEqual({ kind: "incomplete" });
    expect(readProxyHeader(line("PROXY UNKNOWN").subarray(0, MAX_PROXY_V1_BYTES)).kind).toBe(
      "incomplete",
    );
  });

  test("is, of any bytes, one that says the same when it is written again, or refused", () => {
    const sources = SOUND.map(([, bytes]) => bytes);
    const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.constantFrom("set", "cut", "add")), {
      maxLength: 4,
    });
    let [found, refused] = [0, 0];
    const property = fc.property(fc.constantFrom(...sources), edits, (source, changes) => {
      const bytes = changes.reduce((now, [at, byte, how]) => {
        const i = at % (now.length + 1);
        const behind = now.subarray(how === "add" ? i : i + 1);
        const put = how === "cut" ? [] : [byte];
        return Buffer.concat([now.subarray(0, i), Buffer.from(put), behind]);
      }, source);
      try {
        const read = readProxyHeader(bytes);
        if (read.kind === "incomplete") return;
        found += 1;
        expect(read.length).toBeLessThanOrEqual(bytes.length);
        if (read.header.kind !== "tcp") return;
        for (const version of ["v1", "v2"] as const) {
          const again = readProxyHeader(encodeProxyHeader(version, read.header.connection));
          const ends = again.kind === "header" && again.header.kind === "tcp" && again.header;
          expect(ends && ends.connection.source.port).toBe(read.header.connection.source.port);
          const rewritten = ends && encodeProxyHeader(version, ends.connection);
          expect(rewritten).toStrictEqual(encodeProxyHeader(version, read.header.connection));
        }
      } catch (error) {
        if (!isStileError(error)) throw error;
        refused += 1;
      }
    });
    fc.assert(property, { seed: 20_261_128, numRuns: 3_000 });
    expect(Math.min(found, refused)).toBeGreaterThan(300);
  });
});
