/** A black-box suite for any Privacy Pass issuer or origin: RFC 9577, RFC 9578 and the batches' draft. */
export { createConformanceHttp } from "./http.ts";
export type { Check } from "./model.ts";
export { jsonReport, junitReport, summaryOf, textReport } from "./report.ts";
export { CONFORMANCE_CHECKS, runConformance } from "./run.ts";
