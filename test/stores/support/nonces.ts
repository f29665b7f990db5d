/** Seeded identifiers: SHA-256 of a label and a number, so that a child and its parent agree. */
import { createHash } from "node:crypto";

export function identifier(label: string, index = 0): Uint8Array {
  return new Uint8Array(createHash("sha256").update(`${label} ${index}`).digest());
}
