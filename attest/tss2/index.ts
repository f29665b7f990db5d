/** The binding to tpm2-tss. Needs its shared libraries; nothing else in attest/ does. */
export { HIERARCHIES, type Hierarchy, PERSISTENT_FIRST, TRANSIENT_FIRST } from "./constants.ts";
export { isKeyLost, responseCodeOf } from "./esys.ts";
export { loadTss, type TssLibraries } from "./libraries.ts";
export { createMarshaller, type Marshaller, MU_TYPES, type MuType } from "./marshal.ts";
export { type NvPublic, TPMA_NV, type TpmNv } from "./nv.ts";
export type { Attestation, TpmKey, TpmObjects } from "./objects.ts";
export type { TpmPcrs } from "./pcr.ts";
export { parseResponseCode, type ResponseCode, type ResponseLayer } from "./response-codes.ts";
export { openTpm, type Tpm, type TpmOptions } from "./tpm.ts";
