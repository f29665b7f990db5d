/** Durable state of the edge and the attester on this machine's disk. */
export {
  type AllowanceCharge,
  type AllowanceStore,
  type AllowanceStoreOptions,
  openAllowanceStore,
} from "./allowances.ts";
export {
  type DeviceRegistryStore,
  openDeviceRegistry,
  type RevocationTarget,
} from "./device-registry.ts";
export { lockFolder } from "./folder-lock.ts";
export { openSpentStore } from "./open-spent.ts";
export { openSpentLevelStore, type SpentLevelStoreOptions } from "./spent-level.ts";
export { openWebAuthnCredentials, type WebAuthnCredentialStore } from "./webauthn-credentials.ts";
