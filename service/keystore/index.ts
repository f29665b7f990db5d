/** Private keys and other secrets at rest, under a passphrase. */
export { type Keystore, type KeystoreOptions, openKeystore, type StoredKey } from "./keystore.ts";
export { openSecrets, type Secrets, type SecretsOptions } from "./secrets.ts";
