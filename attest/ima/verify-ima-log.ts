/**
 * Verification of an IMA log against quoted PCRs (checklist E11). Each entry's template hash is recomputed;
 * the log is replayed until the quoted value of its PCR is reached, so that entries which were added after
 * the quote are left out, not refused; boot_aggregate ties it to the PCRs of the boot.
 */
import { concatBytes, constantTimeEqual, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { PcrValue, VerifiedQuote } from "../quote/verify-quote.ts";
import { HASH_ROWS, type HashRow } from "../structures/constants.ts";
import { type ImaEntry, parseImaLog } from "./parse-ima-log.ts";

export interface ImaLogCheck {
  readonly log: Uint8Array;
  readonly form: "ascii" | "binary";
  readonly quote: Pick<VerifiedQuote, "kind" | "pcrValues">;
  readonly crypto: AttestCrypto;
}

export interface VerifiedImaLog {
  readonly kind: "verified-ima-log";
  /** What had been measured when the quote was made, in order. */
  readonly entries: readonly ImaEntry[];
  /** Entries of the log that are later than the quote, and that nothing vouches for. */
  readonly later: number;
  /**
   * A file changed while it was read, or was opened for both: its digest is unknown. That there was one
   * at this place is covered, its path is the log's word alone.
   */
  readonly violations: readonly ImaEntry[];
  /** Kernels before 5.8 extend every bank with the SHA-1 template hash, padded with zeros. */
  readonly extension: "bank" | "padded-sha1";
  /** Whether the first entry is of the quoted PCRs 0 to 7 or 0 to 9; unknown where they are not quoted. */
  readonly bootAggregate: "matches" | "differs" | "unknown";
}

const IMA_PCR = 10;
/** Kernels from 5.8 on aggregate PCRs 8 and 9, too, except with SHA-1. */
const AGGREGATE_PCRS = [10, 8] as const;

/** @throws `WIRE_*`, `ATTEST_EVENT_LOG_INVALID`, `ATTEST_EVENT_LOG_MISMATCH` */
export function verifyImaLog(check: ImaLogCheck): VerifiedImaLog {
  const entries = parseImaLog(check.log, check.form);
  for (const entry of entries) checkTemplateHash(entry, check.crypto);
  const quoted = check.quote.pcrValues.filter(({ pcr }) => pcr === IMA_PCR);
  if (quoted.length === 0) throw mismatch("PCR 10 was not quoted");
  for (const extension of ["bank", "padded-sha1"] as const) {
    const counts = quoted.map((value) => matchPrefix(entries, value, extension, check.crypto));
    const [count] = counts;
    if (count === undefined || counts.some((other) => other !== count)) continue;
    const matched = entries.slice(0, count);
    return {
      kind: "verified-ima-log",
      entries: matched,
      later: entries.length - count,
      violations: matched.filter(isViolation),
      extension,
      bootAggregate: judgeBootAggregate(matched, check),
    };
  }
  throw mismatch("no part of it replays to the quoted value of PCR 10");
}

function checkTemplateHash(entry: ImaEntry, crypto: AttestCrypto): void {
  if (entry.pcr !== IMA_PCR) throw mismatch("an entry of another PCR than 10");
  if (isViolation(entry)) return;
  const row = HASH_ROWS.find(({ digestBytes }) => digestBytes === entry.templateHash.length);
  const expected = crypto.hash(row?.name ?? "sha1", entry.templateData);
  if (!constantTimeEqual(entry.templateHash, expected)) {
    throw mismatch("a template hash is not of its entry");
  }
}

/** An entry without a hash, extended as all ones, says that what it names cannot be known. */
function isViolation(entry: ImaEntry): boolean {
  return entry.templateHash.every((byte) => byte === 0);
}

/** How many entries it takes to reach the quoted value, or undefined. */
function matchPrefix(
  entries: readonly ImaEntry[],
  quoted: PcrValue,
  extension: "bank" | "padded-sha1",
  crypto: AttestCrypto,
): number | undefined {
  let value: Uint8Array = new Uint8Array(quoted.value.length);
  if (constantTimeEqual(value, quoted.value)) return 0;
  for (const [index, entry] of entries.entries()) {
    const digest = extendedDigest(entry, quoted, extension, crypto);
    value = crypto.hash(quoted.hash, concatBytes([value, digest]));
    if (constantTimeEqual(value, quoted.value)) return index + 1;
  }
  return undefined;
}

function extendedDigest(
  entry: ImaEntry,
  { hash, value }: PcrValue,
  extension: "bank" | "padded-sha1",
  crypto: AttestCrypto,
): Uint8Array {
  if (isViolation(entry)) return new Uint8Array(value.length).fill(0xff);
  if (extension === "bank") return crypto.hash(hash, entry.templateData);
  const padded = new Uint8Array(value.length);
  padded.set(crypto.hash("sha1", entry.templateData));
  return padded;
}

function judgeBootAggregate(
  entries: readonly ImaEntry[],
  { crypto, quote }: ImaLogCheck,
): VerifiedImaLog["bootAggregate"] {
  const first = entries[0];
  if (first === undefined || first.path !== "boot_aggregate") return "differs";
  const row = HASH_ROWS.find(({ name }) => name === first.fileHash);
  if (row === undefined) return "unknown";
  const values = quote.pcrValues.filter(({ hash }) => hash === row.name);
  const first8 = aggregate(values, 8, row, crypto);
  if (first8 === undefined) return "unknown";
  const isMatch = AGGREGATE_PCRS.some((count) => {
    const digest = aggregate(values, count, row, crypto);
    return digest !== undefined && constantTimeEqual(digest, first.fileDigest);
  });
  return isMatch ? "matches" : "differs";
}

/** The hash of the first PCRs, where all of them were quoted. */
function aggregate(
  values: readonly PcrValue[],
  count: number,
  row: HashRow,
  crypto: AttestCrypto,
): Uint8Array | undefined {
  const parts = Array.from({ length: count }, (_, pcr) =>
    values.find((value) => value.pcr === pcr),
  );
  const known = parts.filter((part) => part !== undefined);
  if (known.length < count) return undefined;
  return crypto.hash(row.name, concatBytes(known.map(({ value }) => value)));
}

function mismatch(message: string): StileError {
  return new StileError("ATTEST_EVENT_LOG_MISMATCH", `IMA log: ${message}`);
}
