/**
 * Challenges and credentials of RFC 9110 §11 as text: a list of `scheme [token68 | name=value, …]`.
 * One pass, every character read a bounded number of times. Two liberties that deployed clients need:
 * an unquoted value may hold any visible character but comma and quote (so `=` padding passes), and
 * empty list elements are skipped (RFC 9110 §5.6.1). It knows no scheme.
 */

/** One challenge or credentials, of hostile text. */
export interface AuthItem {
  /** As spelt; schemes compare without case. */
  readonly scheme: string;
  /** Lower-case name and unquoted value, in order; names may repeat. */
  readonly params: readonly (readonly [name: string, value: string])[];
  /** All of it, as it was received. */
  readonly text: string;
}

/** Of a header whose honest size is below 5 KiB (8 challenges); Node stops all headers at 16 KiB. */
export const MAX_AUTH_HEADER_LENGTH = 16_384;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const BLANKS = /[ \t]*/y;
const SEPARATORS = /[ \t,]*/y;
/** token68, when the element ends after it. */
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
const UNQUOTED = /[!#-+\--~]+/y;

/** `undefined` when the text is no list of challenges. The length is the caller's to check. */
export function parseAuthItems(text: string): readonly AuthItem[] | undefined {
  const scanner = createScanner(text);
  const items: { scheme: string; params: (readonly [string, string])[]; text: string }[] = [];
  let startsAt = 0;
  let afterScheme = false;
  scanner.skip(SEPARATORS);
  while (!scanner.atEnd()) {
    const nameAt = scanner.at();
    const name = scanner.take(TOKEN);
    if (name === undefined) return undefined;
    const blanks = scanner.take(BLANKS) ?? "";
    const open = items.at(-1);
    if (scanner.accept("=")) {
      scanner.skip(BLANKS);
      const value = takeValue(scanner);
      if (open === undefined || value === undefined) return undefined;
      open.params.push([name.toLowerCase(), value]);
      scanner.skip(BLANKS);
      afterScheme = false;
    } else {
      if (afterScheme) return undefined;
      items.push({ scheme: name, params: [], text: name });
      startsAt = nameAt;
      afterScheme = blanks !== "" && scanner.take(TOKEN68) === undefined && !scanner.atListEnd();
      if (afterScheme) continue;
    }
    if (!scanner.atListEnd()) return undefined;
    const last = items.at(-1);
    if (last !== undefined) last.text = text.slice(startsAt, scanner.at()).trimEnd();
    scanner.skip(SEPARATORS);
  }
  return items;
}

interface Scanner {
  /** The longest match here, consumed; `undefined` when there is none. */
  take(pattern: RegExp): string | undefined;
  skip(pattern: RegExp): void;
  accept(character: string): boolean;
  /** Of the next character. */
  at(): number;
  atEnd(): boolean;
  /** At a comma or at the end. */
  atListEnd(): boolean;
}

/** @param text matched in place: every pattern is sticky */
function createScanner(text: string): Scanner {
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(text)?.[0];
    at += match?.length ?? 0;
    return match;
  };
  return {
    take,
    skip(pattern) {
      take(pattern);
    },
    accept(character) {
      if (text[at] !== character) return false;
      at += 1;
      return true;
    },
    at: () => at,
    atEnd: () => at >= text.length,
    atListEnd: () => at >= text.length || text[at] === ",",
  };
}

function takeValue(scanner: Scanner): string | undefined {
  const quoted = scanner.take(QUOTED);
  if (quoted === undefined) return scanner.take(UNQUOTED);
  return quoted.slice(1, -1).replaceAll(/\\(.)/g, "$1");
}
