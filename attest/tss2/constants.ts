/**
 * ESYS_TR values of tss2_esys.h and the TPM 2.0 Part 2 constants that the operations here need.
 */

export const ESYS_TR_NONE = 0xfff;
export const ESYS_TR_PASSWORD = 0x0ff;

/** Hierarchies (Part 2 §7.4) by the names of the specification, with their ESYS_TR. */
export const HIERARCHIES = {
  owner: 0x101,
  null: 0x107,
  lockout: 0x10a,
  endorsement: 0x10b,
  platform: 0x10c,
} as const;
export type Hierarchy = keyof typeof HIERARCHIES;

export const TPM_ALG_SHA256 = 0x000b;
export const TPM_ALG_NULL = 0x0010;
export const TPM_SE_HMAC = 0x00;
export const TPM_SE_POLICY = 0x01;
export const TPM_SE_TRIAL = 0x03;
/** TPMA_SESSION (Part 2 §8.4). */
export const TPMA_SESSION_CONTINUESESSION = 0x01;
export const TPMA_SESSION_DECRYPT = 0x20;
export const TPMA_SESSION_ENCRYPT = 0x40;
export const TPM_SU_CLEAR = 0x0000;
export const TPM_CAP_HANDLES = 1;
export const TPM_ST_HASHCHECK = 0x8024;
export const TPM_RH_NULL = 0x4000_0007;

/** First handle of the range (Part 2 §7.2). */
export const TRANSIENT_FIRST = 0x8000_0000;
