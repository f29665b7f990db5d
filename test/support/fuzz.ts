/**
 * Structure-aware mutation of valid inputs, seeded so that a failure comes back. The structures are the
 * ones that parsers of this project meet: bytes with length fields, texts of three parts, JSON.
 */
import { concatBytes } from "../../wire/index.ts";

/** A whole number from 0 to one below the bound. */
export type Random = (below: number) => number;

/** mulberry32: small, seeded, good enough. */
export function createRandom(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

export function pick<T>(random: Random, items: readonly T[]): T {
  const item = items[random(items.length)];
  if (item === undefined) throw new RangeError("nothing to pick from");
  return item;
}

type Mutation = (bytes: Uint8Array, random: Random, other: Uint8Array) => Uint8Array;

const BOUNDARY_BYTES = [0x00, 0x01, 0x7f, 0x80, 0x81, 0x82, 0x9f, 0xbf, 0xfe, 0xff] as const;

const flip: Mutation = (bytes, random) => {
  const out = bytes.slice();
  for (let left = random(3); left >= 0; left -= 1) {
    const at = random(out.length);
    out[at] = (out[at] ?? 0) ^ (1 << random(8));
  }
  return out;
};
const boundary: Mutation = (bytes, random) => {
  const out = bytes.slice();
  out[random(out.length)] = pick(random, BOUNDARY_BYTES);
  return out;
};
const truncate: Mutation = (bytes, random) => bytes.slice(0, random(bytes.length));
const extend: Mutation = (bytes, random) =>
  concatBytes([bytes, Uint8Array.from({ length: 1 + random(8) }, () => random(256))]);
const remove: Mutation = (bytes, random) => {
  const at = random(bytes.length);
  return concatBytes([bytes.subarray(0, at), bytes.subarray(at + 1 + random(8))]);
};
const repeat: Mutation = (bytes, random) => {
  const from = random(bytes.length);
  const part = bytes.subarray(from, from + 1 + random(64));
  const at = random(bytes.length);
  return concatBytes([bytes.subarray(0, at), part, bytes.subarray(at)]);
};
/** A number of 1, 2 or 4 bytes in either order becomes another: its ends, its neighbours, the rest's length. */
const length: Mutation = (bytes, random) => {
  const out = bytes.slice();
  const size = pick(random, [1, 2, 4]);
  const at = random(Math.max(1, out.length - size));
  const isLittle = random(2) === 0;
  const view = out.subarray(at, at + size);
  const ordered = isLittle ? view.toReversed() : view;
  const value = ordered.reduce((sum, byte) => sum * 256 + byte, 0);
  const values = [0, 1, value + 1, value - 1, value * 2, 2 ** 31, 2 ** 32 - 1, out.length - at];
  let next = Math.max(0, pick(random, values));
  for (let i = view.length - 1; i >= 0; i -= 1) {
    view[isLittle ? view.length - 1 - i : i] = next % 256;
    next = Math.floor(next / 256);
  }
  return out;
};
const splice: Mutation = (bytes, random, other) =>
  concatBytes([
    bytes.subarray(0, random(bytes.length)),
    other.subarray(random(Math.max(1, other.length))),
  ]);
const swap: Mutation = (bytes, random) => {
  const [a, b] = [random(bytes.length), random(bytes.length)];
  const [from, to] = a < b ? [a, b] : [b, a];
  return concatBytes([bytes.subarray(to), bytes.subarray(from, to), bytes.subarray(0, from)]);
};

/** Flips weigh most: they alone get far into what a signature covers. */
const MUTATIONS = [
  flip,
  flip,
  flip,
  boundary,
  truncate,
  extend,
  remove,
  repeat,
  length,
  length,
  splice,
  swap,
] as const;

/** One input changed once or twice, partly with another of the same kind. Never the input itself. */
export function mutateBytes(
  bytes: Uint8Array,
  random: Random,
  others: readonly Uint8Array[],
): Uint8Array {
  for (let attempt = 0; attempt < 16; attempt += 1) {
    let out = pick(random, MUTATIONS)(bytes, random, pick(random, others));
    if (random(4) === 0 && out.length > 0) out = pick(random, MUTATIONS)(out, random, bytes);
    if (Buffer.compare(out, bytes) !== 0) return out;
  }
  return concatBytes([bytes, Uint8Array.of(0)]);
}

const CHARACTERS: readonly string[] = Array.from(`ABYZabyz0189-_.=+/ "\\{}[],:\0\n\u00e9\u{1f600}`);

/** The same for a text: of JWTs, PEM and JSON. Never the input itself. */
export function mutateText(text: string, random: Random, others: readonly string[]): string {
  const at = random(text.length);
  const other = pick(random, others);
  const character = pick(random, CHARACTERS);
  const parts = text.split(".");
  const part = random(parts.length);
  const out = pick(random, [
    () => text.slice(0, at) + character + text.slice(at + 1),
    () => text.slice(0, at) + character + text.slice(at),
    () => text.slice(0, at) + text.slice(at + 1 + random(6)),
    () => text.slice(0, at),
    () => text.slice(0, at) + text.slice(random(text.length)),
    () => text.slice(0, at) + other.slice(random(other.length)),
    () => parts.with(part, other.split(".")[part] ?? "").join("."),
    () => parts.with(part, mutatedBase64(parts[part] ?? "", random)).join("."),
    () => parts.with(part, mutatedBase64(parts[part] ?? "", random)).join("."),
  ])();
  return out === text ? `${text}${character}` : out;
}

/** Bytes behind base64url changed, and encoded again. */
function mutatedBase64(text: string, random: Random): string {
  const bytes = new Uint8Array(Buffer.from(text, "base64url"));
  if (bytes.length === 0) return text;
  return Buffer.from(mutateBytes(bytes, random, [bytes])).toString("base64url");
}

const ODD_VALUES: readonly unknown[] = [
  null,
  true,
  -1,
  0.5,
  2 ** 53,
  "",
  "A",
  "__proto__",
  [],
  {},
  "A".repeat(70_000),
  Array.from({ length: 200 }, () => 0),
];

/** A value as JSON.parse gives it, with one place changed. The input stays as it is. */
export function mutateJson(value: unknown, random: Random, others: readonly unknown[]): unknown {
  if (typeof value === "string" && value.length > 0 && random(2) === 0) {
    return mutateText(value, random, [value]);
  }
  if (typeof value !== "object" || value === null || random(12) === 0) {
    return pick(random, [...ODD_VALUES, ...others]);
  }
  if (Array.isArray(value)) return mutateArray(value, random, others);
  const members = Object.entries(value);
  const [name, member] = pick(random, members.length === 0 ? [["a", 1]] : members);
  const rest = Object.fromEntries(members.filter(([other]) => other !== name));
  const kind = random(8);
  if (kind === 0) return rest;
  if (kind === 1)
    return { ...value, [pick(random, ["extra", "then", "toJSON", "constructor"])]: 1 };
  if (kind === 2) return { ...rest, [mutateText(name, random, [name])]: member };
  return { ...value, [name]: mutateJson(member, random, others) };
}

function mutateArray(
  value: readonly unknown[],
  random: Random,
  others: readonly unknown[],
): unknown[] {
  const at = random(Math.max(1, value.length));
  const kind = random(4);
  if (value.length === 0) return [...others];
  if (kind === 0) return value.toSpliced(at, 1);
  if (kind === 1) return value.toSpliced(at, 0, value[at]);
  return value.with(Math.min(at, value.length - 1), mutateJson(value[at], random, others));
}
