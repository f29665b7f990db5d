/**
 * VOPRF of token types 0x0001 and 0x0005, on Node: needs native code where it is to be fast and leak
 * nothing. The rest of `tokens/` runs without it.
 */
export { createVoprfEngine, type VoprfEnginePreference } from "./engine.ts";
export { isVoprfTokenType, type VoprfTokenType } from "./group.ts";
export { generateVoprfKey, importVoprfKey } from "./keys.ts";
export type { Voprf } from "./protocol.ts";
export { createVoprfEvaluator, type VoprfEvaluator } from "./evaluator.ts";
