/** Reads of single fields that several structures share. Hostile input; `WIRE_*` errors. */
import type { Reader } from "../../wire/index.ts";
import { type HashRow, hashRow } from "./constants.ts";

/** The largest digest of the registry (SHA-512): TPM2B_DIGEST and TPM2B_NAME bounds follow from it. */
export const MAX_DIGEST_BYTES = 64;
/** TPM2B_NAME: a nameAlg (2 bytes) and a digest (64), or a 4-byte handle. */
export const MAX_NAME_BYTES = 66;

/** TPM2B_DATA (§10.4.3): as large as a TPMT_HA, a hash identifier and the largest digest. */
export const MAX_DATA_BYTES: number = 2 + MAX_DIGEST_BYTES;

/** TPMI_ALG_HASH. @throws `WIRE_VALUE_NOT_ALLOWED` */
export function readHashAlg(reader: Reader, field: string): HashRow {
  const row = hashRow(reader.u16(field));
  return row ?? reader.fail("WIRE_VALUE_NOT_ALLOWED", field, "expected a known hash", -2);
}

/** TPMI_YES_NO: any byte but 0 and 1 is refused. @throws `WIRE_VALUE_NOT_ALLOWED` */
export function readYesNo(reader: Reader, field: string): boolean {
  const value = reader.u8(field);
  if (value > 1) reader.fail("WIRE_VALUE_NOT_ALLOWED", field, "expected yes or no", -1);
  return value === 1;
}
