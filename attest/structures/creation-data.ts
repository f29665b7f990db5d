/**
 * TPMS_CREATION_DATA: where and under what an object was made (TPM 2.0 Library Part 2 §15.1).
 * Parsed only after its digest has been compared with a certified one; see `attest/quote`.
 */
import { Reader } from "../../wire/index.ts";
import { type HashRow, hashRow, TPM_ALG_NULL } from "./constants.ts";
import { MAX_DATA_BYTES, MAX_DIGEST_BYTES, MAX_NAME_BYTES } from "./fields.ts";
import { readTpmlPcrSelection, type TpmlPcrSelection } from "./pcr-selection.ts";

export interface TpmsCreationData {
  readonly raw: Uint8Array;
  /** What the creator asked for; may be nothing. */
  readonly pcrSelect: TpmlPcrSelection;
  /** Of the selected PCRs, with the object's nameAlg; empty where nothing was selected. */
  readonly pcrDigest: Uint8Array;
  /** TPMA_LOCALITY: a bit for each of 0 to 4, or a number from 32. */
  readonly locality: number;
  /** Undefined for a primary: its parent is a hierarchy. */
  readonly parentNameAlg: HashRow | undefined;
  readonly parentName: Uint8Array;
  readonly parentQualifiedName: Uint8Array;
  /** The creator's own words: nothing vouches for them. */
  readonly outsideInfo: Uint8Array;
}

/** A whole TPMS_CREATION_DATA. @throws `WIRE_*` */
export function parseTpmsCreationData(bytes: Uint8Array): TpmsCreationData {
  const reader = new Reader(bytes, "TPMS_CREATION_DATA");
  const pcrSelect = readTpmlPcrSelection(reader, 0);
  const pcrDigest = reader.vec16("pcrDigest", 0, MAX_DIGEST_BYTES);
  const locality = reader.u8("locality");
  const parentNameAlg = readParentNameAlg(reader);
  const parentName = reader.vec16("parentName", 1, MAX_NAME_BYTES);
  const parentQualifiedName = reader.vec16("parentQualifiedName", 1, MAX_NAME_BYTES);
  const outsideInfo = reader.vec16("outsideInfo", 0, MAX_DATA_BYTES);
  reader.end();
  return {
    raw: bytes,
    pcrSelect,
    pcrDigest,
    locality,
    parentNameAlg,
    parentName,
    parentQualifiedName,
    outsideInfo,
  };
}

/** +TPMI_ALG_HASH. */
function readParentNameAlg(reader: Reader): HashRow | undefined {
  const alg = reader.u16("parentNameAlg");
  if (alg === TPM_ALG_NULL) return undefined;
  return (
    hashRow(alg) ??
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "parentNameAlg", "expected a known hash or none", -2)
  );
}
