/** A key of a TPM as the operations of this folder pass it around, and the sized fields they share. */
import { Reader, StileError, Writer } from "../../wire/index.ts";
import type { EsysTurn } from "./esys.ts";

/** A key that is loaded in the TPM or persistent there. It dies with the connection's context. */
export interface TpmKey {
  /** ESYS_TR, a number of this process only. */
  readonly esysTr: number;
  /** The context that `esysTr` belongs to. */
  readonly generation: number;
  /** TPM2B_PUBLIC. */
  readonly publicArea: Uint8Array;
  /** nameAlg || digest, as the TPM computed it. */
  readonly name: Uint8Array;
  readonly isPersistent: boolean;
}

/** A transient key that was written out of the TPM, encrypted by it (Part 1 §30). */
export interface TpmSavedKey extends Pick<TpmKey, "publicArea" | "name"> {
  /** TPMS_CONTEXT in the form of tpm2-tss; public. */
  readonly context: Uint8Array;
}

/** @throws `ATTEST_TSS_FAILED` for a key of an earlier context */
export function handleOf(esys: EsysTurn, key: TpmKey): number {
  if (key.generation === esys.generation) return key.esysTr;
  // Its number may stand for another object by now.
  throw new StileError("ATTEST_TSS_FAILED", "the key was loaded before the connection was rebuilt");
}

/** A TPM2B of raw bytes. */
export function tpm2b(bytes: Uint8Array): Uint8Array {
  return new Writer().vec16(bytes).finish();
}

/** The bytes of a TPM2B that the marshaller wrote. */
export function fromTpm2b(structure: string, wire: Uint8Array): Uint8Array {
  const reader = new Reader(wire, structure);
  const bytes = reader.vec16("buffer", 0, 0xffff);
  reader.end();
  return bytes;
}
