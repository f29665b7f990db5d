/** Typed access to the Privacy Pass vectors beside the repository. */
import { decodeHex } from "../../wire/index.ts";
import { readSharedJson } from "../support/shared.ts";

export type Vector = Readonly<Record<string, string>>;

export interface BatchVector {
  readonly issuance: readonly Vector[];
  readonly token_request: string;
  readonly token_response: string;
}

export function readVectors(path: string): readonly Vector[] {
  return nonEmpty(path);
}

export function readBatchVectors(path: string): readonly BatchVector[] {
  return nonEmpty(path);
}

/** The bytes of a hexadecimal field that must be there. */
export function bytesOf(vector: Vector, field: string): Uint8Array<ArrayBuffer> {
  const text = vector[field];
  if (text === undefined) throw new Error(`the vector has no ${field}`);
  return decodeHex(text);
}

/** The same bytes as a view into the middle of a larger buffer, as Node's pool hands them out. */
export function atOffset(bytes: Uint8Array, before = 7): Uint8Array {
  const pool = new Uint8Array(bytes.length + before + 5).fill(0xa5);
  pool.set(bytes, before);
  return pool.subarray(before, before + bytes.length);
}

// oxlint-disable-next-line typescript/no-explicit-any -- the two callers state the shape of their file
function nonEmpty(path: string): readonly any[] {
  const value = readSharedJson(`vectors/${path}`);
  if (!Array.isArray(value) || value.length === 0) throw new Error(`${path} holds no vectors`);
  return value;
}
