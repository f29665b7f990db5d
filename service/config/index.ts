/** Configuration: one schema, one parse, one frozen object. */
export { loadConfig } from "./load.ts";
export { checkConfig, type Config, configSchema, type SpentStoreConfig } from "./schema.ts";
