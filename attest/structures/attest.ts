/**
 * TPMS_ATTEST for quotes, certifications and creations: TPM 2.0 Library Part 2 §10.12.
 * Parsed only after the signature over the received bytes has been verified; see `attest/quote`.
 */
import { Reader } from "../../wire/index.ts";
import {
  TPM_GENERATED_VALUE,
  TPM_ST_ATTEST_CERTIFY,
  TPM_ST_ATTEST_CREATION,
  TPM_ST_ATTEST_QUOTE,
} from "./constants.ts";
import { MAX_DATA_BYTES, MAX_DIGEST_BYTES, MAX_NAME_BYTES, readYesNo } from "./fields.ts";
import { readTpmlPcrSelection, type TpmlPcrSelection } from "./pcr-selection.ts";

/** TPMS_CLOCK_INFO (§10.11.1). */
export interface TpmsClockInfo {
  /** Milliseconds during which the TPM was powered. */
  readonly clock: bigint;
  readonly resetCount: number;
  readonly restartCount: number;
  readonly safe: boolean;
}

interface TpmsAttestCommon {
  readonly raw: Uint8Array;
  readonly qualifiedSigner: Uint8Array;
  readonly extraData: Uint8Array;
  readonly clockInfo: TpmsClockInfo;
  readonly firmwareVersion: bigint;
}

export interface TpmsAttestQuote extends TpmsAttestCommon {
  readonly type: typeof TPM_ST_ATTEST_QUOTE;
  readonly pcrSelect: TpmlPcrSelection;
  readonly pcrDigest: Uint8Array;
}

export interface TpmsAttestCertify extends TpmsAttestCommon {
  readonly type: typeof TPM_ST_ATTEST_CERTIFY;
  readonly name: Uint8Array;
  readonly qualifiedName: Uint8Array;
}

export interface TpmsAttestCreation extends TpmsAttestCommon {
  readonly type: typeof TPM_ST_ATTEST_CREATION;
  readonly objectName: Uint8Array;
  readonly creationHash: Uint8Array;
}

/** A whole TPMS_ATTEST of type quote. @throws `WIRE_*`, `ATTEST_MAGIC_MISMATCH`, `ATTEST_TYPE_MISMATCH` */
export function parseTpmsAttestQuote(bytes: Uint8Array): TpmsAttestQuote {
  const reader = new Reader(bytes, "TPMS_ATTEST");
  const common = readCommon(reader, bytes, TPM_ST_ATTEST_QUOTE);
  // TPMS_QUOTE_INFO (§10.12.4)
  const pcrSelect = readTpmlPcrSelection(reader);
  const pcrDigest = reader.vec16("pcrDigest", 1, MAX_DIGEST_BYTES);
  reader.end();
  return { ...common, type: TPM_ST_ATTEST_QUOTE, pcrSelect, pcrDigest };
}

/** A whole TPMS_ATTEST of type certify. @throws as {@link parseTpmsAttestQuote} */
export function parseTpmsAttestCertify(bytes: Uint8Array): TpmsAttestCertify {
  const reader = new Reader(bytes, "TPMS_ATTEST");
  const common = readCommon(reader, bytes, TPM_ST_ATTEST_CERTIFY);
  // TPMS_CERTIFY_INFO (§10.12.3)
  const name = reader.vec16("name", 1, MAX_NAME_BYTES);
  const qualifiedName = reader.vec16("qualifiedName", 1, MAX_NAME_BYTES);
  reader.end();
  return { ...common, type: TPM_ST_ATTEST_CERTIFY, name, qualifiedName };
}

/** A whole TPMS_ATTEST of type creation. @throws as {@link parseTpmsAttestQuote} */
export function parseTpmsAttestCreation(bytes: Uint8Array): TpmsAttestCreation {
  const reader = new Reader(bytes, "TPMS_ATTEST");
  const common = readCommon(reader, bytes, TPM_ST_ATTEST_CREATION);
  // TPMS_CREATION_INFO (§10.12.6)
  const objectName = reader.vec16("objectName", 1, MAX_NAME_BYTES);
  const creationHash = reader.vec16("creationHash", 1, MAX_DIGEST_BYTES);
  reader.end();
  return { ...common, type: TPM_ST_ATTEST_CREATION, objectName, creationHash };
}

function readCommon(reader: Reader, raw: Uint8Array, type: number): TpmsAttestCommon {
  // TPM_CONSTANTS32 magic
  if (reader.u32("magic") !== TPM_GENERATED_VALUE) {
    reader.fail("ATTEST_MAGIC_MISMATCH", "magic", "expected TPM_GENERATED_VALUE", -4);
  }
  // TPMI_ST_ATTEST type
  if (reader.u16("type") !== type) {
    reader.fail("ATTEST_TYPE_MISMATCH", "type", "expected another attestation type", -2);
  }
  // TPM2B_NAME qualifiedSigner
  const qualifiedSigner = reader.vec16("qualifiedSigner", 0, MAX_NAME_BYTES);
  // TPM2B_DATA extraData
  const extraData = reader.vec16("extraData", 0, MAX_DATA_BYTES);
  // TPMS_CLOCK_INFO clockInfo
  const clockInfo: TpmsClockInfo = {
    clock: reader.u64("clockInfo.clock"),
    resetCount: reader.u32("clockInfo.resetCount"),
    restartCount: reader.u32("clockInfo.restartCount"),
    safe: readYesNo(reader, "clockInfo.safe"),
  };
  // UINT64 firmwareVersion
  const firmwareVersion = reader.u64("firmwareVersion");
  return { raw, qualifiedSigner, extraData, clockInfo, firmwareVersion };
}
