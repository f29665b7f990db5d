/**
 * Everything of the sidecar that lives longer than a request: stores, sealed keys and secrets, the signing
 * pool. Opened from the state folder, which belongs to one process at a time.
 */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import {
  checkKeySchedule,
  createKeyRing,
  type KeyRing,
  type KeySchedule,
  type SpentStore,
  TOKEN_TYPE_BLIND_RSA,
  type TokenCrypto,
} from "../tokens/index.ts";
import { createNodeTokenCrypto } from "../tokens/node/index.ts";
import type { VoprfEnginePreference } from "../tokens/voprf/index.ts";
import { StileError } from "../wire/index.ts";
import type { Config } from "./config/index.ts";
import { type Keystore, openKeystore } from "./keystore/index.ts";
import type { Metrics } from "./metrics.ts";
import { loadSidecarSecrets, readPassphrase, type SidecarSecrets } from "./secrets.ts";
import { SigningPool } from "./signing/index.ts";
import {
  type AllowanceStore,
  type DeviceRegistryStore,
  openAllowanceStore,
  openDeviceRegistry,
  openSpentStore,
} from "./stores/index.ts";

export interface SidecarState {
  readonly ring: KeyRing;
  readonly keystore: Keystore;
  readonly pool: SigningPool;
  readonly spentStore: SpentStore;
  readonly allowances: AllowanceStore;
  readonly registry: DeviceRegistryStore;
  readonly schedule: KeySchedule;
  readonly tokenTypes: readonly number[];
  readonly voprfEngine: VoprfEnginePreference;
  readonly secrets: SidecarSecrets;
  readonly tokenCrypto: TokenCrypto;
}

export type OnClose = (close: () => Promise<void> | void) => void;

/**
 * Opens the state; each part is registered to be closed as soon as it is open.
 * @throws `SERVICE_CONFIG_INVALID`, `TOKEN_KEY_STORE_INVALID`, `TOKEN_STORE_UNAVAILABLE`,
 * `ATTEST_ALLOWANCE_UNAVAILABLE`, `ATTEST_REGISTRY_UNAVAILABLE`
 */
export async function openState(
  config: Config,
  clock: () => number,
  metrics: Metrics,
  onClose: OnClose,
): Promise<SidecarState> {
  const schedule = keySchedule(config);
  const passphrase = readPassphrase(config.passphraseFile);
  const at = (name: string): string => join(config.stateDir, name);
  const stores = await openStores(config, schedule, { clock, metrics, onClose });
  const secrets = await loadSidecarSecrets(at("secrets"), passphrase);
  const { tokenTypes, voprfEngine } = config.issuer;
  const keystore = await openKeystore({ dir: at("issuer-keys"), passphrase, voprfEngine });
  passphrase.fill(0);
  const pool = new SigningPool({
    threads: config.issuer.workers === 0 ? availableParallelism() : config.issuer.workers,
    maxQueued: config.issuer.maxQueue,
    voprfEngine,
  });
  onClose(() => pool.close());
  return {
    ring: createKeyRing({ records: [], clock }),
    keystore,
    pool,
    ...stores,
    schedule,
    tokenTypes,
    voprfEngine,
    secrets,
    tokenCrypto: createNodeTokenCrypto(),
  };
}

const DAY_MS = 86_400_000;

type Stores = Pick<SidecarState, "allowances" | "registry" | "spentStore">;

async function openStores(
  config: Config,
  schedule: KeySchedule,
  deps: {
    readonly clock: () => number;
    readonly metrics: Metrics;
    readonly onClose: OnClose;
  },
): Promise<Stores> {
  const { clock, metrics, onClose } = deps;
  const at = (name: string): string => join(config.stateDir, name);
  // First what is locked: a second process on this folder must not come near the keys.
  const { allowance } = config.attester;
  const allowances = await openAllowanceStore({
    folder: at("allowances"),
    limit: allowance.tokens,
    windowMs: allowance.windowSeconds * 1_000,
  });
  onClose(() => allowances.close());
  const spentStore = await openSpentStore({
    config: config.edge.spentStore,
    stateDir: config.stateDir,
    // No token is redeemed later after its issuance than its key lives; a day for clocks.
    retentionMs: schedule.activeMs + schedule.retiredMs + schedule.directoryLifetimeMs + DAY_MS,
    observe: {
      batch: (size, durationMs) => {
        metrics.spendBatchSize.observe(size);
        metrics.spendSeconds.observe(durationMs / 1_000);
      },
      shed: () => metrics.spends.inc({ outcome: "shed" }),
    },
  });
  onClose(() => spentStore.close());
  const registry = await openDeviceRegistry({
    folder: at("devices"),
    retentionDays: config.attester.retentionDays,
    clock,
  });
  onClose(() => registry.close());
  return { allowances, registry, spentStore: countedStore(spentStore, metrics) };
}

/** A successor shares this part of a key's signing time, so that clients move over at their own pace. */
const OVERLAP_SHARE = 1 / 4;

function keySchedule(config: Config): KeySchedule {
  const { activeSeconds, directoryMaxAgeSeconds, redeemableSeconds } = config.issuer;
  const schedule: KeySchedule = {
    tokenType: TOKEN_TYPE_BLIND_RSA,
    directoryLifetimeMs: directoryMaxAgeSeconds * 1_000,
    activeMs: activeSeconds * 1_000,
    overlapMs: Math.floor(activeSeconds * OVERLAP_SHARE) * 1_000,
    retiredMs: redeemableSeconds * 1_000,
  };
  try {
    checkKeySchedule(schedule);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new StileError("SERVICE_CONFIG_INVALID", `configuration: issuer: ${reason}`, { cause });
  }
  return schedule;
}

function countedStore(store: SpentStore, metrics: Metrics): SpentStore {
  return {
    spend: async (request) => {
      try {
        const outcome = await store.spend(request);
        metrics.spends.inc({ outcome: outcome.outcome });
        return outcome;
      } catch (error) {
        metrics.spends.inc({ outcome: "unavailable" });
        throw error;
      }
    },
    dropEpoch: (tokenKeyId) => store.dropEpoch(tokenKeyId),
    close: () => store.close(),
  };
}
