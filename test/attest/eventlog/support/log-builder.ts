/** Measured-boot logs built event by event, and the quote that a TPM would give after them. */
import { createHash } from "node:crypto";
import { parseEventLog, replayEventLog } from "../../../../attest/eventlog/index.ts";
import type { AttestCrypto, VerifiedQuote } from "../../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import { HASH_ROWS, type HashName } from "../../../../attest/structures/constants.ts";

export const crypto: AttestCrypto = createNodeAttestCrypto();

export interface BuiltEvent {
  readonly pcr: number;
  readonly type: number;
  readonly data: Uint8Array;
  /** What the digest is of, where it is not of the data. */
  readonly measured?: Uint8Array;
}

const u16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
};
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const rows = (hashes: readonly HashName[]): typeof HASH_ROWS =>
  HASH_ROWS.filter(({ name }) => hashes.includes(name));

/** TCG_EfiSpecIDEvent with the given banks, or with whatever stands in their place. */
export function specIdEvent(
  algorithms: readonly { readonly alg: number; readonly digestBytes: number }[],
): Uint8Array {
  return Buffer.concat([
    Buffer.from("Spec ID Event03\0"),
    u32(0),
    Buffer.from([0, 2, 0, 2]),
    u32(algorithms.length),
    ...algorithms.flatMap(({ alg, digestBytes }) => [u16(alg), u16(digestBytes)]),
    Buffer.from([0]),
  ]);
}

export function sha1Event(pcr: number, type: number, digest: Uint8Array, data: Uint8Array): Buffer {
  return Buffer.concat([u32(pcr), u32(type), digest, u32(data.length), data]);
}

export function agileEvent(event: BuiltEvent, hashes: readonly HashName[]): Buffer {
  const digests = rows(hashes).flatMap(({ alg, name }) => [
    u16(alg),
    createHash(name)
      .update(event.measured ?? event.data)
      .digest(),
  ]);
  return Buffer.concat([
    u32(event.pcr),
    u32(event.type),
    u32(hashes.length),
    ...digests,
    u32(event.data.length),
    event.data,
  ]);
}

export function buildLog(
  events: readonly BuiltEvent[],
  hashes: readonly HashName[] = ["sha256"],
): Uint8Array {
  const header = sha1Event(0, 3, Buffer.alloc(20), specIdEvent(rows(hashes)));
  return new Uint8Array(
    Buffer.concat([header, ...events.map((event) => agileEvent(event, hashes))]),
  );
}

export type QuotedPcrs = Pick<VerifiedQuote, "kind" | "pcrValues">;

/** What a TPM quotes that has extended exactly this log. */
export function quoteOf(log: Uint8Array, hashes: readonly HashName[] = ["sha256"]): QuotedPcrs {
  const parsed = parseEventLog(log);
  const pcrValues = rows(hashes).flatMap((row) =>
    replayEventLog(parsed, row, crypto).map((value, pcr) => ({ hash: row.name, pcr, value })),
  );
  return { kind: "verified-quote", pcrValues };
}

/** UEFI_VARIABLE_DATA. */
export function variable(vendor: string, name: string, data: Uint8Array): Uint8Array {
  return Buffer.concat([
    guid(vendor),
    u64(name.length),
    u64(data.length),
    Buffer.from(name, "utf16le"),
    data,
  ]);
}

/** EFI_SIGNATURE_LIST of X.509 entries. */
export function signatureList(...entries: readonly Uint8Array[]): Uint8Array {
  const lists = entries.map((entry) => {
    const size = 16 + entry.length;
    const head = [guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"), u32(28 + size), u32(0), u32(size)];
    return Buffer.concat([...head, Buffer.alloc(16, 7), entry]);
  });
  return Buffer.concat(lists);
}

function guid(text: string): Buffer {
  const [a = "", b = "", c = "", d = "", e = ""] = text.split("-");
  const swapped = [a, b, c].map((part) => Buffer.from(part, "hex").reverse());
  return Buffer.concat([...swapped, Buffer.from(d + e, "hex")]);
}
