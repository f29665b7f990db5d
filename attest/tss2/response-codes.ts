/**
 * Names and layers of response codes: TPM 2.0 Library Part 2 §6.6 (TPM_RC) and the TSS 2.0 Overview
 * specification §"Response code layers". The text comes from libtss2-rc; this table adds the
 * specification's name, which is what operators and manuals search for.
 */

const TPM_RC_VER1 = {
  0x000: "TPM_RC_INITIALIZE",
  0x001: "TPM_RC_FAILURE",
  0x003: "TPM_RC_SEQUENCE",
  0x020: "TPM_RC_DISABLED",
  0x021: "TPM_RC_EXCLUSIVE",
  0x024: "TPM_RC_AUTH_TYPE",
  0x025: "TPM_RC_AUTH_MISSING",
  0x026: "TPM_RC_POLICY",
  0x027: "TPM_RC_PCR",
  0x028: "TPM_RC_PCR_CHANGED",
  0x02d: "TPM_RC_UPGRADE",
  0x02e: "TPM_RC_TOO_MANY_CONTEXTS",
  0x02f: "TPM_RC_AUTH_UNAVAILABLE",
  0x030: "TPM_RC_REBOOT",
  0x031: "TPM_RC_UNBALANCED",
  0x042: "TPM_RC_COMMAND_SIZE",
  0x043: "TPM_RC_COMMAND_CODE",
  0x044: "TPM_RC_AUTHSIZE",
  0x045: "TPM_RC_AUTH_CONTEXT",
  0x046: "TPM_RC_NV_RANGE",
  0x047: "TPM_RC_NV_SIZE",
  0x048: "TPM_RC_NV_LOCKED",
  0x049: "TPM_RC_NV_AUTHORIZATION",
  0x04a: "TPM_RC_NV_UNINITIALIZED",
  0x04b: "TPM_RC_NV_SPACE",
  0x04c: "TPM_RC_NV_DEFINED",
  0x050: "TPM_RC_BAD_CONTEXT",
  0x051: "TPM_RC_CPHASH",
  0x052: "TPM_RC_PARENT",
  0x053: "TPM_RC_NEEDS_TEST",
  0x054: "TPM_RC_NO_RESULT",
  0x055: "TPM_RC_SENSITIVE",
} as const;

const TPM_RC_FMT1 = {
  0x01: "TPM_RC_ASYMMETRIC",
  0x02: "TPM_RC_ATTRIBUTES",
  0x03: "TPM_RC_HASH",
  0x04: "TPM_RC_VALUE",
  0x05: "TPM_RC_HIERARCHY",
  0x07: "TPM_RC_KEY_SIZE",
  0x08: "TPM_RC_MGF",
  0x09: "TPM_RC_MODE",
  0x0a: "TPM_RC_TYPE",
  0x0b: "TPM_RC_HANDLE",
  0x0c: "TPM_RC_KDF",
  0x0d: "TPM_RC_RANGE",
  0x0e: "TPM_RC_AUTH_FAIL",
  0x0f: "TPM_RC_NONCE",
  0x10: "TPM_RC_PP",
  0x12: "TPM_RC_SCHEME",
  0x15: "TPM_RC_SIZE",
  0x16: "TPM_RC_SYMMETRIC",
  0x17: "TPM_RC_TAG",
  0x18: "TPM_RC_SELECTOR",
  0x1a: "TPM_RC_INSUFFICIENT",
  0x1b: "TPM_RC_SIGNATURE",
  0x1c: "TPM_RC_KEY",
  0x1d: "TPM_RC_POLICY_FAIL",
  0x1f: "TPM_RC_INTEGRITY",
  0x20: "TPM_RC_TICKET",
  0x21: "TPM_RC_RESERVED_BITS",
  0x22: "TPM_RC_BAD_AUTH",
  0x23: "TPM_RC_EXPIRED",
  0x24: "TPM_RC_POLICY_CC",
  0x25: "TPM_RC_BINDING",
  0x26: "TPM_RC_CURVE",
  0x27: "TPM_RC_ECC_POINT",
} as const;

const TPM_RC_WARN = {
  0x01: "TPM_RC_CONTEXT_GAP",
  0x02: "TPM_RC_OBJECT_MEMORY",
  0x03: "TPM_RC_SESSION_MEMORY",
  0x04: "TPM_RC_MEMORY",
  0x05: "TPM_RC_SESSION_HANDLES",
  0x06: "TPM_RC_OBJECT_HANDLES",
  0x07: "TPM_RC_LOCALITY",
  0x08: "TPM_RC_YIELDED",
  0x09: "TPM_RC_CANCELED",
  0x0a: "TPM_RC_TESTING",
  0x10: "TPM_RC_REFERENCE_H0",
  0x11: "TPM_RC_REFERENCE_H1",
  0x12: "TPM_RC_REFERENCE_H2",
  0x13: "TPM_RC_REFERENCE_H3",
  0x14: "TPM_RC_REFERENCE_H4",
  0x15: "TPM_RC_REFERENCE_H5",
  0x16: "TPM_RC_REFERENCE_H6",
  0x18: "TPM_RC_REFERENCE_S0",
  0x19: "TPM_RC_REFERENCE_S1",
  0x1a: "TPM_RC_REFERENCE_S2",
  0x1b: "TPM_RC_REFERENCE_S3",
  0x1c: "TPM_RC_REFERENCE_S4",
  0x1d: "TPM_RC_REFERENCE_S5",
  0x1e: "TPM_RC_REFERENCE_S6",
  0x20: "TPM_RC_NV_RATE",
  0x21: "TPM_RC_LOCKOUT",
  0x22: "TPM_RC_RETRY",
  0x23: "TPM_RC_NV_UNAVAILABLE",
} as const;

/** TSS2_BASE_RC, from 1 on. A software layer's code is its layer number and one of these. */
const TSS2_BASE_RC = [
  "GENERAL_FAILURE",
  "NOT_IMPLEMENTED",
  "BAD_CONTEXT",
  "ABI_MISMATCH",
  "BAD_REFERENCE",
  "INSUFFICIENT_BUFFER",
  "BAD_SEQUENCE",
  "NO_CONNECTION",
  "TRY_AGAIN",
  "IO_ERROR",
  "BAD_VALUE",
  "NOT_PERMITTED",
  "INVALID_SESSIONS",
  "NO_DECRYPT_PARAM",
  "NO_ENCRYPT_PARAM",
  "BAD_SIZE",
  "MALFORMED_RESPONSE",
  "INSUFFICIENT_CONTEXT",
  "INSUFFICIENT_RESPONSE",
  "INCOMPATIBLE_TCTI",
  "NOT_SUPPORTED",
  "BAD_TCTI_STRUCTURE",
  "MEMORY",
  "BAD_TR",
  "MULTIPLE_DECRYPT_SESSIONS",
  "MULTIPLE_ENCRYPT_SESSIONS",
  "RSP_AUTH_FAILED",
] as const;

/** The part of the stack that raised a code: bits 16 to 23. */
const LAYERS = {
  0: "tpm",
  6: "feature",
  7: "esys",
  8: "sys",
  9: "mu",
  10: "tcti",
  11: "resmgr",
  12: "resmgr-tpm",
} as const;

type Values<T> = T[keyof T];
export type ResponseLayer = Values<typeof LAYERS> | "unknown";
/** `TPM_RC_…` or `TSS2_<LAYER>_RC_…`; a code that no table lists is given as hexadecimal digits. */
export type ResponseName =
  | Values<typeof TPM_RC_VER1>
  | Values<typeof TPM_RC_FMT1>
  | Values<typeof TPM_RC_WARN>
  | `TSS2_${string}_RC_${(typeof TSS2_BASE_RC)[number]}`
  | `0x${string}`;

/** A response code taken apart. Every field is public. */
export interface ResponseCode {
  readonly code: number;
  readonly layer: ResponseLayer;
  readonly name: ResponseName;
  /** What a format-one code blames: `handle 1`, `session 2`, `parameter 3`. */
  readonly blames: string | undefined;
}

/** True where the TPM answered itself: the connection and the context are still sound. */
export function isTpmAnswer(response: ResponseCode): boolean {
  return response.layer === "tpm" || response.layer === "resmgr-tpm";
}

/** @param code a TSS2_RC, 32 bits. Not for 0 (success). */
export function parseResponseCode(code: number): ResponseCode {
  const layer: ResponseLayer = lookUp(LAYERS, (code >>> 16) & 0xff) ?? "unknown";
  const low = code & 0xffff;
  if (layer === "tpm" || layer === "resmgr-tpm") {
    return { code, layer, name: tpmName(low) ?? hexName(code), blames: tpmBlames(low) };
  }
  const base = TSS2_BASE_RC[low - 1];
  const name =
    base === undefined ? hexName(code) : (`TSS2_${layer.toUpperCase()}_RC_${base}` as const);
  return { code, layer, name, blames: undefined };
}

function tpmName(low: number): ResponseName | undefined {
  if ((low & 0x80) !== 0) return lookUp(TPM_RC_FMT1, low & 0x3f);
  // Bit 8 clear: TPM 1.2. Bit 10: the vendor's own code, which no table lists.
  if ((low & 0x500) !== 0x100) return undefined;
  return (low & 0x800) !== 0 ? lookUp(TPM_RC_WARN, low & 0x7f) : lookUp(TPM_RC_VER1, low & 0x7f);
}

function tpmBlames(low: number): string | undefined {
  if ((low & 0x80) === 0) return undefined;
  const isParameter = (low & 0x40) !== 0;
  const number = (low >> 8) & (isParameter ? 0xf : 0x7);
  if (number === 0) return undefined;
  if (isParameter) return `parameter ${number}`;
  return (low & 0x800) !== 0 ? `session ${number}` : `handle ${number}`;
}

function lookUp<T extends Record<number, string>>(table: T, key: number): Values<T> | undefined {
  return Object.hasOwn(table, key) ? (table[key] as Values<T>) : undefined;
}

function hexName(code: number): `0x${string}` {
  return `0x${code.toString(16).padStart(8, "0")}`;
}
