/** Configuration: one schema, one parse, one frozen object. */
export { type Environment, loadConfig } from "./load.ts";
export { checkConfig, type Config, configSchema, type RedemptionContextSetting } from "./schema.ts";
