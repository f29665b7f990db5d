/** Private keys and other secrets at rest, under a passphrase. */
export { type Keystore, openKeystore } from "./keystore.ts";
export { openSecrets } from "./secrets.ts";
export { Sealer } from "./sealer.ts";
