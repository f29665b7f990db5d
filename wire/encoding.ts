/**
 * Text encodings of bytes: hex, base64 and base64url (RFC 4648), strict UTF-8.
 * A decoder accepts one spelling per value: an input that decodes re-encodes to the same text.
 * Web-standard code: no Buffer.
 */
import { StileError } from "./errors.ts";

const HEX = /^(?:[0-9a-f]{2})*$/i;
const BASE64URL_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE64URL_CODES: Uint8Array = Uint8Array.from(BASE64URL_ALPHABET, (letter) =>
  letter.charCodeAt(0),
);
const asciiDecoder = new TextDecoder();
/** Value of each ASCII letter, or 0xff where it is not in the alphabet. */
const BASE64URL_VALUES: Uint8Array = Uint8Array.from({ length: 128 }, (_, code) => {
  const value = BASE64URL_ALPHABET.indexOf(String.fromCharCode(code));
  return value < 0 ? 0xff : value;
});

/** Of each byte. */
const HEX_DIGITS: readonly string[] = Array.from({ length: 256 }, (_, byte) =>
  byte.toString(16).padStart(2, "0"),
);

/** Lower-case hexadecimal text. */
export function encodeHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += HEX_DIGITS[byte] ?? "";
  return text;
}

/** @throws `WIRE_BAD_ENCODING` */
export function decodeHex(text: string, field = "hex"): Uint8Array<ArrayBuffer> {
  if (!HEX.test(text)) throw badEncoding(field, "hexadecimal text");
  return Uint8Array.from({ length: text.length / 2 }, (_, i) =>
    Number.parseInt(text.slice(2 * i, 2 * i + 2), 16),
  );
}

/** How a base64url text ends: RFC 9577 §2.1.2 wants padding, JOSE (RFC 7515 §2) forbids it. */
export type Base64UrlPadding = "padded" | "unpadded";

export function encodeBase64Url(bytes: Uint8Array, padding: Base64UrlPadding = "unpadded"): string {
  const codes = new Uint8Array(Math.ceil((bytes.length * 4) / 3));
  // Four letters for three bytes; what stands behind the last one falls off the end of the array.
  for (let i = 0, at = 0; i < bytes.length; i += 3, at += 4) {
    const [a, b, c] = [bytes[i] ?? 0, bytes[i + 1] ?? 0, bytes[i + 2] ?? 0];
    codes[at] = BASE64URL_CODES[a >> 2] ?? 0;
    codes[at + 1] = BASE64URL_CODES[((a << 4) | (b >> 4)) & 0x3f] ?? 0;
    codes[at + 2] = BASE64URL_CODES[((b << 2) | (c >> 6)) & 0x3f] ?? 0;
    codes[at + 3] = BASE64URL_CODES[c & 0x3f] ?? 0;
  }
  const text = asciiDecoder.decode(codes);
  return padding === "padded" ? text.padEnd(Math.ceil(text.length / 4) * 4, "=") : text;
}

/**
 * Decodes base64url text, padded in full or not at all. Refuses other alphabets, white space and
 * non-zero left-over bits, so that two texts never decode to one value by their last letter.
 * @throws `WIRE_BAD_ENCODING`
 */
export function decodeBase64Url(text: string, field = "base64url"): Uint8Array<ArrayBuffer> {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const letters = text.length - padding;
  if (letters % 4 === 1 || (padding > 0 && text.length % 4 !== 0)) {
    throw badEncoding(field, "base64url text");
  }
  const out = new Uint8Array(Math.floor((letters * 3) / 4));
  let bits = 0;
  let held = 0;
  let at = 0;
  for (let i = 0; i < letters; i += 1) {
    const value = BASE64URL_VALUES[text.charCodeAt(i)] ?? 0xff;
    if (value === 0xff) throw badEncoding(field, "base64url text");
    held = ((held << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[at] = (held >> bits) & 0xff;
      at += 1;
    }
  }
  if ((held & ((1 << bits) - 1)) !== 0) throw badEncoding(field, "canonical base64url text");
  return out;
}

export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** @throws `WIRE_BAD_ENCODING` on malformed UTF-8 */
export function decodeUtf8(bytes: Uint8Array, field = "text"): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new StileError("WIRE_BAD_ENCODING", `${field}: expected UTF-8`, { cause });
  }
}

function badEncoding(field: string, expected: string): StileError {
  return new StileError("WIRE_BAD_ENCODING", `${field}: expected ${expected}`);
}
