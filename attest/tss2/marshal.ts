/**
 * Structures between TPM wire bytes and the C memory of tpm2-tss, through Tss2_MU_* only (TCG TSS 2.0
 * Marshaling/Unmarshaling API). The wire form is what the rest of the project handles.
 */
import { StileError } from "../../wire/index.ts";
import type { TssLibraries } from "./libraries.ts";
import { parseResponseCode } from "./response-codes.ts";

/** The structures that cross; the names are the suffix of the Tss2_MU function. */
export type MuType =
  | "TPM2B_ATTEST"
  | "TPM2B_DATA"
  | "TPM2B_DIGEST"
  | "TPM2B_ENCRYPTED_SECRET"
  | "TPM2B_ID_OBJECT"
  | "TPM2B_MAX_NV_BUFFER"
  | "TPM2B_NAME"
  | "TPM2B_NV_PUBLIC"
  | "TPM2B_PRIVATE"
  | "TPM2B_PUBLIC"
  | "TPM2B_SENSITIVE_CREATE"
  | "TPM2B_SENSITIVE_DATA"
  | "TPML_DIGEST"
  | "TPML_DIGEST_VALUES"
  | "TPML_PCR_SELECTION"
  | "TPMS_ATTEST"
  | "TPMS_CAPABILITY_DATA"
  | "TPMS_CONTEXT"
  | "TPMT_PUBLIC"
  | "TPMT_SIGNATURE"
  | "TPMT_SIG_SCHEME"
  | "TPMT_SYM_DEF"
  | "TPMT_TK_HASHCHECK";

/**
 * Room for any of the C structures above: the largest is TPMS_CONTEXT with about 5 KiB, then
 * TPM2B_MAX_NV_BUFFER with 2,050 bytes. The library bounds each array inside by itself, so the wire
 * bytes cannot reach past the structure.
 */
const SCRATCH_BYTES = 8192;

export interface Marshaller {
  /**
   * C memory that holds the structure, for one native call.
   * @throws `WIRE_TRAILING_BYTES`, `ATTEST_TSS_FAILED` when the bytes are not such a structure
   */
  unmarshal(type: MuType, bytes: Uint8Array): Uint8Array<ArrayBuffer>;
  /** The wire bytes of the C structure at `source`. @throws `ATTEST_TSS_FAILED` */
  marshal(type: MuType, source: bigint | Uint8Array): Uint8Array<ArrayBuffer>;
}

export function createMarshaller(tss: TssLibraries): Marshaller {
  return {
    unmarshal(type, bytes) {
      // Zeroed, because a TPM2B of a structure is only filled where its size field is zero.
      const memory = new Uint8Array(SCRATCH_BYTES);
      const offset: (number | bigint | null)[] = [0];
      const code = tss.mu(type, "Unmarshal")(bytes, bytes.length, offset, memory);
      if (code !== 0) throw tssError(tss, `Tss2_MU_${type}_Unmarshal`, code);
      const left = bytes.length - Number(offset[0]);
      if (left > 0) throw new StileError("WIRE_TRAILING_BYTES", `${type}: ${left} bytes left over`);
      return memory;
    },
    marshal(type, source) {
      const wire = new Uint8Array(SCRATCH_BYTES);
      const offset: (number | bigint | null)[] = [0];
      const code = tss.mu(type, "Marshal")(source, wire, wire.length, offset);
      if (code !== 0) throw tssError(tss, `Tss2_MU_${type}_Marshal`, code);
      return wire.slice(0, Number(offset[0]));
    },
  };
}

/** `ATTEST_TSS_FAILED` whose message names function, code and layer; its cause is the ResponseCode. */
export function tssError(tss: TssLibraries, where: string, code: number): StileError {
  const response = parseResponseCode(code);
  // libtss2-rc starts its text with the layer and the handle, session or parameter to blame.
  const message = `${where}: ${response.name}, ${tss.decodeRc(code)}`;
  return new StileError("ATTEST_TSS_FAILED", message, { cause: response });
}
