/**
 * Structured field values (RFC 9651, as RFC 8941 had them): dictionaries and items, read strictly and within
 * bounds, and written back in the one form that they have. Dates and display strings are left out: nothing that
 * signatures need has them. Input is hostile.
 */
import { StileError } from "../../../wire/index.ts";

export type BareItem =
  | { readonly type: "integer" | "decimal"; readonly value: number }
  | { readonly type: "string" | "token"; readonly value: string }
  | { readonly type: "bytes"; readonly value: Uint8Array }
  | { readonly type: "boolean"; readonly value: boolean };

export type Parameters = ReadonlyMap<string, BareItem>;

export interface Item {
  readonly kind: "item";
  readonly bare: BareItem;
  readonly parameters: Parameters;
}

export interface InnerList {
  readonly kind: "list";
  readonly items: readonly Item[];
  readonly parameters: Parameters;
}

export type Member = Item | InnerList;
export type Dictionary = ReadonlyMap<string, Member>;

/** A header is at most so long: the listener's own limit for a whole head is twice that. */
const MAX_CHARS = 8_192;
/** Signatures of one request, say: two is common, more than a few are an attack. */
const MAX_MEMBERS = 8;
/** Components of one signature. */
const MAX_ITEMS = 32;
const MAX_PARAMETERS = 16;

const KEY = /[a-z*][a-z0-9_.*-]*/y;
/** RFC 9651 §4.2.4: 15 digits, or 12 and a fraction of 3. */
const NUMBER = /-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])/y;
const STRING = /"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"/y;
const TOKEN = /[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*/y;
const BYTES = /:(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?:/y;
const BOOLEAN = /\?[01]/y;
const SPACES = / */y;
const OPTIONAL_WHITESPACE = /[ \t]*/y;

/** @throws `SERVICE_SIGNATURE_MALFORMED` */
export function parseDictionary(text: string): Dictionary {
  const scanner = new Scanner(text);
  const members = new Map<string, Member>();
  while (!scanner.isAtEnd) {
    const key = scanner.expect(KEY, "a key");
    // RFC 9651 lets the last one win: two readers may not, so two are refused.
    if (members.has(key) || members.size === MAX_MEMBERS) throw malformed("a member too many");
    members.set(key, scanner.take("=") ? readMember(scanner) : flagItem(scanner));
    scanner.expect(OPTIONAL_WHITESPACE, "");
    if (scanner.isAtEnd) break;
    scanner.need(",");
    scanner.expect(OPTIONAL_WHITESPACE, "");
    if (scanner.isAtEnd) throw malformed("a comma at the end");
  }
  return members;
}

/** @throws `SERVICE_SIGNATURE_MALFORMED` */
export function parseItem(text: string): Item {
  const scanner = new Scanner(text);
  const item = readItem(scanner);
  scanner.expect(SPACES, "");
  if (!scanner.isAtEnd) throw malformed("something after an item");
  return item;
}

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    if (text.length > MAX_CHARS) throw malformed("a value that is too long");
    this.#text = text.replace(/^ +| +$/g, "");
  }

  get isAtEnd(): boolean {
    return this.#at === this.#text.length;
  }

  next(): string {
    return this.#text.charAt(this.#at);
  }

  take(char: string): boolean {
    if (this.next() !== char) return false;
    this.#at += 1;
    return true;
  }

  need(char: string): void {
    if (!this.take(char)) throw malformed(`no ${char}`);
  }

  expect(pattern: RegExp, what: string): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found === undefined) throw malformed(`no ${what}`);
    this.#at += found.length;
    return found;
  }
}

function readMember(scanner: Scanner): Member {
  return scanner.next() === "(" ? readInnerList(scanner) : readItem(scanner);
}

/** A key without a value is true. */
function flagItem(scanner: Scanner): Item {
  const bare: BareItem = { type: "boolean", value: true };
  return { kind: "item", bare, parameters: readParameters(scanner) };
}

function readInnerList(scanner: Scanner): InnerList {
  scanner.need("(");
  const items: Item[] = [];
  for (;;) {
    scanner.expect(SPACES, "");
    if (scanner.take(")")) return { kind: "list", items, parameters: readParameters(scanner) };
    if (items.length === MAX_ITEMS) throw malformed("a list that is too long");
    items.push(readItem(scanner));
    if (scanner.next() !== " " && scanner.next() !== ")") throw malformed("no space in a list");
  }
}

function readItem(scanner: Scanner): Item {
  const bare = readBareItem(scanner);
  return { kind: "item", bare, parameters: readParameters(scanner) };
}

function readParameters(scanner: Scanner): Parameters {
  const parameters = new Map<string, BareItem>();
  while (scanner.take(";")) {
    scanner.expect(SPACES, "");
    const key = scanner.expect(KEY, "a key");
    if (parameters.has(key) || parameters.size === MAX_PARAMETERS) {
      throw malformed("a parameter too many");
    }
    const flag: BareItem = { type: "boolean", value: true };
    parameters.set(key, scanner.take("=") ? readBareItem(scanner) : flag);
  }
  return parameters;
}

function readBareItem(scanner: Scanner): BareItem {
  const first = scanner.next();
  if (first === '"') {
    const text = scanner.expect(STRING, "a string");
    return { type: "string", value: text.slice(1, -1).replaceAll(/\\(.)/g, "$1") };
  }
  if (first === ":") {
    const text = scanner.expect(BYTES, "bytes").slice(1, -1);
    const value = Uint8Array.from(Buffer.from(text, "base64"));
    // Bits that padding hides would make two texts of one value.
    if (Buffer.from(value).toString("base64") !== text)
      throw malformed("bytes in another spelling");
    return { type: "bytes", value };
  }
  if (first === "?") {
    return { type: "boolean", value: scanner.expect(BOOLEAN, "a boolean") === "?1" };
  }
  if (/[-0-9]/.test(first)) {
    const text = scanner.expect(NUMBER, "a number");
    return { type: text.includes(".") ? "decimal" : "integer", value: Number(text) };
  }
  return { type: "token", value: scanner.expect(TOKEN, "a value") };
}

/** As RFC 9651 §4.1 writes it: one text for one value. */
export function writeMember(member: Member): string {
  const text =
    member.kind === "item"
      ? writeBareItem(member.bare)
      : `(${member.items.map((item) => writeMember(item)).join(" ")})`;
  return text + writeParameters(member.parameters);
}

function writeParameters(parameters: Parameters): string {
  return [...parameters]
    .map(([key, bare]) => {
      const isTrue = bare.type === "boolean" && bare.value;
      return isTrue ? `;${key}` : `;${key}=${writeBareItem(bare)}`;
    })
    .join("");
}

function writeBareItem(bare: BareItem): string {
  if (bare.type === "string") return `"${bare.value.replaceAll(/["\\]/g, "\\$&")}"`;
  if (bare.type === "bytes") return `:${Buffer.from(bare.value).toString("base64")}:`;
  if (bare.type === "boolean") return bare.value ? "?1" : "?0";
  const isWhole = bare.type === "decimal" && Number.isInteger(bare.value);
  return isWhole ? `${bare.value}.0` : String(bare.value);
}

export function malformed(what: string): StileError {
  return new StileError("SERVICE_SIGNATURE_MALFORMED", `message signature: ${what}`);
}
