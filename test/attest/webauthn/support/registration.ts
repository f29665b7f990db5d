/** Attestation objects taken apart and put together again, for tests. */
import { decode, encode } from "cborg";

export type AttestationMap = Map<string, unknown>;

export function attestationObjectOf(bytes: Uint8Array): {
  attestationObject: AttestationMap;
  format: string;
  statement: AttestationMap;
} {
  const attestationObject = decode(bytes, { useMaps: true }) as AttestationMap;
  return {
    attestationObject,
    format: attestationObject.get("fmt") as string,
    statement: attestationObject.get("attStmt") as AttestationMap,
  };
}

export function x5cOf(attestationObject: Uint8Array): Uint8Array[] {
  return attestationObjectOf(attestationObject).statement.get("x5c") as Uint8Array[];
}

/** Keeps the order of members. */
export function encodeCbor(value: unknown): Uint8Array {
  return encode(value, { mapSorter: () => 0 });
}

export function pemOf(der: Uint8Array): string {
  const base64 = Buffer.from(der)
    .toString("base64")
    .replaceAll(/(.{64})(?=.)/g, "$1\n");
  return `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`;
}
