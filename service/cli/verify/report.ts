/** How a verdict is printed: lines for people, or one JSON object for programs. */
import { readFileSync } from "node:fs";
import { encodeBase64Url, encodeHex, isStileError } from "../../../wire/index.ts";
import { CliUsageError } from "../usage.ts";

/** Flat or nested; bytes are shown in hexadecimal. */
export type Facts = Readonly<Record<string, unknown>>;

/** Runs a verification and prints its verdict. @returns the exit code: 0 verified, 1 refused */
export async function report(json: boolean, verify: () => Promise<Facts> | Facts): Promise<number> {
  try {
    const facts = await verify();
    print(json, { verdict: "verified", ...facts });
    return 0;
  } catch (error) {
    if (!isStileError(error)) throw error;
    print(json, { verdict: "refused", code: error.code, reason: error.message });
    return 1;
  }
}

function print(json: boolean, facts: Facts): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(facts, plain)}\n`);
    return;
  }
  for (const [name, value] of Object.entries(facts)) printFact(name, value, "");
}

function printFact(name: string, value: unknown, indent: string): void {
  if (Array.isArray(value) && value.some((item) => typeof item === "object")) {
    process.stdout.write(`${indent}${name}:\n`);
    for (const item of value) process.stdout.write(`${indent}  - ${oneLine(item)}\n`);
  } else if (isPlainObject(value)) {
    process.stdout.write(`${indent}${name}:\n`);
    for (const [inner, item] of Object.entries(value)) printFact(inner, item, `${indent}  `);
  } else if (value !== undefined) {
    process.stdout.write(`${indent}${name}: ${oneLine(value)}\n`);
  }
}

function oneLine(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.map(oneLine).join(", ");
  if (isPlainObject(value)) {
    return Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([name, item]) => `${name} ${oneLine(item)}`)
      .join(", ");
  }
  const shown = plain("", value);
  // What comes from a log must not be able to write to the terminal.
  return String(shown).replaceAll(/[^\x20-\x7e\u00a0-\uffff]/gu, "?");
}

function isPlainObject(value: unknown): value is Facts {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Uint8Array) &&
    !(value instanceof Map)
  );
}

function plain(_name: string, value: unknown): unknown {
  if (value instanceof Uint8Array) {
    return value.length <= 64 ? encodeHex(value) : encodeBase64Url(value);
  }
  if (value instanceof Map) return Object.fromEntries(value);
  return typeof value === "bigint" ? String(value) : value;
}

/** @throws CliUsageError where it cannot be read */
export function readBytes(file: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(file));
  } catch (error) {
    throw new CliUsageError(`cannot read ${file}: ${(error as Error).message}`);
  }
}

/** @throws CliUsageError where it is not there or no JSON */
export function readJson(file: string): unknown {
  try {
    return JSON.parse(Buffer.from(readBytes(file)).toString("utf8")) as unknown;
  } catch (error) {
    if (error instanceof CliUsageError) throw error;
    throw new CliUsageError(`${file} is not JSON`);
  }
}

/** The one file or option that a verification cannot do without. @throws CliUsageError */
export function needed(value: string | undefined, what: string): string {
  if (value === undefined) throw new CliUsageError(`expected ${what}`);
  return value;
}

/** `--at`, or now, in Unix milliseconds. @throws CliUsageError */
export function instantOf(text: string | undefined): number {
  const at = text === undefined ? Date.now() : Date.parse(text);
  if (Number.isNaN(at))
    throw new CliUsageError("--at: expected a date such as 2026-01-31T12:00:00Z");
  return at;
}
