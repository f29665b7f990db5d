/**
 * TPML_PCR_SELECTION: TPM 2.0 Library Part 2 §10.9.7, §10.6.2 (TPMS_PCR_SELECTION).
 * One spelling per selection: a bank occurs once, and has at least one PCR.
 */
import { Reader, Writer } from "../../wire/index.ts";
import { HASH_ROWS, type HashName, type HashRow } from "./constants.ts";
import { readHashAlg } from "./fields.ts";

/** PC Client platforms have 24 PCRs, so TPMS_PCR_SELECTION.sizeofSelect is 3 (PTP §3.7). */
export const PCR_COUNT = 24;
const SIZEOF_SELECT = 3;

/** One bank with its PCRs in ascending order. */
export interface TpmsPcrSelection {
  readonly hash: HashRow;
  readonly pcrs: readonly number[];
}

export interface TpmlPcrSelection {
  readonly raw: Uint8Array;
  readonly banks: readonly TpmsPcrSelection[];
}

/** A whole TPML_PCR_SELECTION. @throws `WIRE_*` */
export function parseTpmlPcrSelection(bytes: Uint8Array): TpmlPcrSelection {
  const reader = new Reader(bytes, "TPML_PCR_SELECTION");
  const selection = readTpmlPcrSelection(reader);
  reader.end();
  return selection;
}

/** @param minBanks 0 where a selection of nothing is meant, as at creation @throws `WIRE_*` */
export function readTpmlPcrSelection(reader: Reader, minBanks = 1): TpmlPcrSelection {
  const start = reader.offset;
  // UINT32 count: at most one entry per known hash
  const count = reader.count32("pcrSelections.count", minBanks, HASH_ROWS.length);
  const banks: TpmsPcrSelection[] = [];
  for (let i = 0; i < count; i += 1) {
    const hash = readHashAlg(reader, "pcrSelections.hash");
    if (banks.some((bank) => bank.hash === hash)) {
      reader.fail("WIRE_VALUE_NOT_ALLOWED", "pcrSelections.hash", "expected each bank once", -2);
    }
    const select = reader.vec8("pcrSelections.pcrSelect", SIZEOF_SELECT, SIZEOF_SELECT);
    const pcrs = pcrsOf(select);
    if (pcrs.length === 0) {
      reader.fail("WIRE_VALUE_NOT_ALLOWED", "pcrSelections.pcrSelect", "expected a PCR", -3);
    }
    banks.push({ hash, pcrs });
  }
  return { raw: reader.since(start), banks };
}

function pcrsOf(select: Uint8Array): number[] {
  return Array.from({ length: PCR_COUNT }, (_, pcr) => pcr).filter(
    (pcr) => (((select[pcr >> 3] ?? 0) >> (pcr & 7)) & 1) === 1,
  );
}

/** A selection of one or more banks, in the order given. @throws RangeError for a PCR above 23 */
export function encodeTpmlPcrSelection(
  banks: readonly { readonly hash: HashName; readonly pcrs: readonly number[] }[],
): Uint8Array<ArrayBuffer> {
  const writer = new Writer().u32(banks.length);
  for (const bank of banks) {
    const row = HASH_ROWS.find((candidate) => candidate.name === bank.hash);
    if (row === undefined) throw new RangeError("expected a known hash");
    const select = new Uint8Array(SIZEOF_SELECT);
    for (const pcr of bank.pcrs) {
      if (!Number.isInteger(pcr) || pcr < 0 || pcr >= PCR_COUNT)
        throw new RangeError("pcr: 0 to 23");
      select[pcr >> 3] = (select[pcr >> 3] ?? 0) | (1 << (pcr & 7));
    }
    writer.u16(row.alg).vec8(select);
  }
  return writer.finish();
}
