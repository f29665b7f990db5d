/** ClientHellos made field by field, in one TLS record or in several, sound or not. */
import { concatBytes, Writer } from "../../../wire/index.ts";

export interface HelloParts {
  readonly legacyVersion?: number;
  readonly sessionId?: Uint8Array;
  readonly ciphers?: readonly number[];
  /** Instead of the ciphers. */
  readonly rawCiphers?: Uint8Array;
  readonly compression?: Uint8Array;
  /** Undefined: none at all, as before TLS 1.3. */
  readonly extensions?: readonly (readonly [type: number, data: Uint8Array])[] | undefined;
  readonly behind?: Uint8Array;
}

export const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
export const numbers = (...values: number[]): Uint8Array =>
  values.reduce((writer, value) => writer.u16(value), new Writer()).finish();
export const list16 = (inner: Uint8Array): Uint8Array => new Writer().vec16(inner).finish();
export const list8 = (inner: Uint8Array): Uint8Array => new Writer().vec8(inner).finish();

export const nameEntry = (name: string | Uint8Array, type = 0): Uint8Array =>
  new Writer()
    .u8(type)
    .vec16(typeof name === "string" ? Buffer.from(name, "latin1") : name)
    .finish();
export const serverName = (...entries: Uint8Array[]): readonly [number, Uint8Array] => [
  0,
  list16(concatBytes(entries)),
];
export const alpn = (...names: string[]): readonly [number, Uint8Array] => [
  16,
  list16(concatBytes(names.map((name) => list8(Buffer.from(name, "latin1"))))),
];

/** The message's body. */
export function helloBody(parts: HelloParts = {}): Uint8Array {
  const { ciphers = [0x1301], compression = bytes(0), sessionId = bytes() } = parts;
  const body = new Writer().u16(parts.legacyVersion ?? 0x0303).bytes(new Uint8Array(32).fill(7));
  body
    .vec8(sessionId)
    .vec16(parts.rawCiphers ?? numbers(...ciphers))
    .vec8(compression);
  if (!("extensions" in parts) || parts.extensions !== undefined) {
    const extensions = new Writer();
    for (const [type, data] of parts.extensions ?? []) extensions.u16(type).vec16(data);
    body.vec16(extensions.finish());
  }
  return body.bytes(parts.behind ?? bytes()).finish();
}

export function message(body: Uint8Array, type = 1, length: number = body.length): Uint8Array {
  return new Writer()
    .u8(type)
    .u8(length >> 16)
    .u16(length & 0xffff)
    .bytes(body)
    .finish();
}

/** @param size of each record's content */
export function records(content: Uint8Array, size = 16_384, type = 22): Uint8Array {
  const all: Uint8Array[] = [];
  for (let at = 0; at < content.length; at += size) {
    all.push(
      new Writer()
        .u8(type)
        .u16(0x0301)
        .vec16(content.subarray(at, at + size))
        .finish(),
    );
  }
  return concatBytes(all);
}

export function helloRecord(parts: HelloParts = {}): Uint8Array {
  return records(message(helloBody(parts)));
}
