/**
 * Server names as RFC 9577 §2.1.1 uses them in `issuer_name` and `origin_info`: ASCII, `host[:port]`
 * of RFC 3986 §3.2, no userinfo. Percent-encoding and sub-delims of reg-name are refused: no DNS name
 * needs them, and each gives one host a second spelling. Names are compared byte for byte.
 */
import { decodeUtf8, encodeUtf8, type Reader } from "../../wire/index.ts";

const SERVER_NAME = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$/;

/** True for `host` or `host:port`; the text may come from anywhere. Linear time. */
export function isServerName(text: string): boolean {
  return SERVER_NAME.test(text);
}

/** True for the text of `origin_info`: empty, or server names joined by single commas. */
export function isOriginInfo(text: string): boolean {
  return text === "" || text.split(",").every(isServerName);
}

/** Reads `opaque name<min..2^16-1>` and checks its form. @throws `WIRE_*` */
export function readServerNameField(
  reader: Reader,
  field: string,
  min: 0 | 1,
  isAllowed: (text: string) => boolean,
): string {
  const text = decodeUtf8(reader.vec16(field, min, 0xffff), field);
  if (!isAllowed(text)) reader.fail("WIRE_VALUE_NOT_ALLOWED", field, "expected a server name");
  return text;
}

/** The bytes of a name that the caller vouches for. @throws RangeError */
export function encodeServerName(
  field: string,
  text: string,
  isAllowed: (text: string) => boolean,
): Uint8Array<ArrayBuffer> {
  if (!isAllowed(text)) throw new RangeError(`${field}: expected a server name`);
  return encodeUtf8(text);
}
