/**
 * The path of a request as upstreams may read it, for rules that go by paths. Upstreams differ: some fold
 * case, some cut `;parameters`, some merge slashes. What only some would resolve is refused; what they
 * read differently is given in every reading, and the strictest verdict over all of them holds.
 * RFC 3986 §6.2 says which spellings are one path, and leaves the rest to the server. No query in here.
 */

/** Letters are compared without case where `isFolded`; the text is decoded. */
export interface PathReading {
  readonly text: string;
  readonly isFolded: boolean;
}

const SLASH = 0x2f;
const DOT = 0x2e;
/** What can follow a path that was decoded once too often, and parameters of a segment (RFC 3986 §3.3). */
const TAIL = /[;?#][^/]*/g;
/** Windows opens `admin.` and `admin ` as `admin`. */
const TRAILING = /[. ]+(?=\/|$)/g;
const ENCODED_SEPARATOR = /%(?:2f|5c)/i;
/** A segment that names another place, or none, once its parameters are cut: `..`, `..;x`, `;x`, ``. */
const PLACELESS = /\/[. ]*(?:[;?#][^/]*)?(?=\/)|\/(?:[. ]+(?:[;?#][^/]*)?|[;?#][^/]*)$/;
/** Of a decoded path: an escape that is left, a backslash, a control character. */
// oxlint-disable-next-line no-control-regex -- hostile bytes are what it looks for
const NEVER = /%[0-9a-f]{2}|%u[0-9a-f]{4}|[\\\u0000-\u001f\u007f-\u009f]/i;

/** 1 for the characters that every server reads alike and that no decoding touches. */
const PLAIN: Uint8Array = new Uint8Array(128);
for (const char of "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._~!$&'()*+,:=@-") {
  PLAIN[char.charCodeAt(0)] = 1;
}

/** Where the path of a request target ends. */
export function pathEnd(target: string): number {
  const query = target.indexOf("?");
  return query < 0 ? target.length : query;
}

/** True where only case can be read in two ways, so that nothing has to be decoded. Allocates nothing. */
export function isPlainPath(target: string, end: number): boolean {
  let previous = 0;
  for (let i = 0; i < end; i += 1) {
    const code = target.charCodeAt(i);
    if (PLAIN[code] !== 1) return false;
    if (code === SLASH && (previous === SLASH || previous === DOT)) return false;
    previous = code;
  }
  return previous !== DOT;
}

/**
 * Every reading of a path, or undefined where it is to be refused: it can leave its place, hides a
 * separator, or is not what one round of decoding makes of UTF-8.
 */
export function readingsOf(path: string): readonly PathReading[] | undefined {
  if (ENCODED_SEPARATOR.test(path)) return undefined;
  const decoded = decode(path);
  if (decoded === undefined || isRefused(decoded)) return undefined;
  const folded = foldPath(decoded);
  // Compatibility forms become separators and dots at servers that map them (U+FF0F, U+2024).
  if (isRefused(folded)) return undefined;
  return [
    { text: decoded, isFolded: false },
    { text: cut(decoded), isFolded: false },
    { text: folded, isFolded: true },
    { text: cut(folded), isFolded: true },
  ];
}

/** One spelling for all that differ in case or in Unicode's form (NFKC). */
export function foldPath(path: string): string {
  return path.normalize("NFKC").toLowerCase();
}

function decode(path: string): string | undefined {
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}

function isRefused(decoded: string): boolean {
  return NEVER.test(decoded) || PLACELESS.test(decoded);
}

function cut(decoded: string): string {
  return decoded.replaceAll(TAIL, "").replaceAll(TRAILING, "");
}

/**
 * Whether a path lies at or below a prefix: `/a` holds `/a` and `/a/b`, not `/ab`. Allocates nothing.
 * @param prefix without a slash at its end; empty holds every path. Folded where `isFolded`
 */
export function isBelow(text: string, end: number, prefix: string, isFolded: boolean): boolean {
  const { length } = prefix;
  if (end < length || text.charCodeAt(0) !== SLASH) return false;
  for (let i = 0; i < length; i += 1) {
    let code = text.charCodeAt(i);
    if (isFolded && code >= 0x41 && code <= 0x5a) code += 0x20;
    if (code !== prefix.charCodeAt(i)) return false;
  }
  return end === length || text.charCodeAt(length) === SLASH;
}
