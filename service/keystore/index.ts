/** Private keys and other secrets at rest, under a passphrase. */
export { CLEARANCE_KEYS, type Keystore, openKeystore, type StoredKey } from "./keystore.ts";
export { openSecrets } from "./secrets.ts";
export { Sealer } from "./sealer.ts";
