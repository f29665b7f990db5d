/** The binding to tpm2-tss. Needs its shared libraries; nothing else in attest/ does. */
export type { Hierarchy } from "./constants.ts";
export { responseCodeOf } from "./esys.ts";
export type { TpmKey, TpmSavedKey } from "./key.ts";
export { loadTss, type TssLibraries } from "./libraries.ts";
export { createMarshaller, type Marshaller, type MuType } from "./marshal.ts";
export { type NvPublic, TPMA_NV, type TpmNv } from "./nv.ts";
export type { TpmObjects } from "./objects.ts";
export type { TpmPcrs } from "./pcr.ts";
export { type CallQueue, createCallQueue } from "./queue.ts";
export { parseResponseCode, type ResponseCode, type ResponseLayer } from "./response-codes.ts";
export { MAX_SEALED_BYTES, type TpmSealed, type TpmSealing } from "./sealing.ts";
export type { Attestation } from "./signing.ts";
export { openTpm, type Tpm, type TpmOptions } from "./tpm.ts";
