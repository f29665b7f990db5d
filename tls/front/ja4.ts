/**
 * JA4, the fingerprint of a TLS client (FoxIO's JA4.md, "JA4: TLS Client Fingerprinting", the part under the BSD
 * 3-clause licence): which program speaks, not who. It is made of what a client claims, and is easily imitated:
 * for logs, never for a decision.
 */
import { createHash } from "node:crypto";
import { type ClientHello, EXTENSION } from "./client-hello.ts";

const VERSIONS: Readonly<Record<number, string>> = {
  0x0304: "13",
  0x0303: "12",
  0x0302: "11",
  0x0301: "10",
  0x0300: "s3",
  0x0002: "s2",
};
const NOTHING = "000000000000";
const MAX_COUNT = 99;

/** RFC 8701 §2: 0x0a0a, 0x1a1a, … 0xfafa. */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 0xff);
}

/** Of a ClientHello over TCP: three parts, 36 characters of `[0-9A-Za-z_]`. */
export function ja4Of(hello: ClientHello): string {
  const ciphers = hexOf(hello.cipherSuites);
  const types = hexOf(hello.extensions.map(({ type }) => type));
  const versions = hello.supportedVersions.filter((version) => !isGrease(version));
  const version = versions.length > 0 ? Math.max(...versions) : hello.legacyVersion;
  const hasName = hello.extensions.some(({ type }) => type === EXTENSION.SERVER_NAME);
  const shape = [
    `t${VERSIONS[version] ?? "00"}${hasName ? "d" : "i"}`,
    countOf(ciphers),
    countOf(types),
    alpnOf(hello.alpnProtocols[0]),
  ].join("");
  // The name and the protocols are in the first part already, as far as they say something of the program.
  const told: readonly string[] = hexOf([EXTENSION.SERVER_NAME, EXTENSION.ALPN]);
  const others = types.filter((type) => !told.includes(type)).toSorted();
  const algorithms = hexOf(hello.signatureAlgorithms);
  const behind = algorithms.length > 0 ? `_${algorithms.join(",")}` : "";
  return [
    shape,
    ciphers.length === 0 ? NOTHING : hashOf(ciphers.toSorted().join(",")),
    others.length === 0 ? NOTHING : hashOf(`${others.join(",")}${behind}`),
  ].join("_");
}

function hexOf(values: readonly number[]): string[] {
  return values
    .filter((value) => !isGrease(value))
    .map((value) => value.toString(16).padStart(4, "0"));
}

function countOf(values: readonly string[]): string {
  return String(Math.min(values.length, MAX_COUNT)).padStart(2, "0");
}

/** Its first and its last character, or those of its hexadecimal form where one of the two is no letter or digit. */
function alpnOf(first: Uint8Array | undefined): string {
  if (first === undefined || first.length === 0) return "00";
  const ends = [first[0] ?? 0, first.at(-1) ?? 0];
  const text = String.fromCharCode(...ends);
  if (/^[0-9A-Za-z]{2}$/.test(text)) return text;
  const hex = Buffer.from(first).toString("hex");
  return `${hex.at(0) ?? ""}${hex.at(-1) ?? ""}`;
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, NOTHING.length);
}
