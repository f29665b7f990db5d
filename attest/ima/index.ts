/** Linux IMA measurement lists: parsing and replay against a quote. */
export { type ImaEntry, MAX_IMA_LOG_BYTES, parseImaLog } from "./parse-ima-log.ts";
export { type ImaLogCheck, type VerifiedImaLog, verifyImaLog } from "./verify-ima-log.ts";
