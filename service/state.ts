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
import type { AttesterConfig, Config, EdgeConfig } from "./config/index.ts";
import { type Keystore, openKeystore, Sealer } from "./keystore/index.ts";
import type { Metrics } from "./metrics.ts";
import { loadSidecarSecrets, readPassphrase, type SidecarSecrets } from "./secrets.ts";
import { SigningPool } from "./signing/index.ts";
import {
  type AllowanceStore,
  type DeviceRegistryStore,
  lockFolder,
  openAllowanceStore,
  openDeviceRegistry,
  openSpentStore,
} from "./stores/index.ts";

/** Of an issuer: the keys, and what signs with them. */
export interface IssuerState {
  readonly ring: KeyRing;
  readonly keystore: Keystore;
  readonly pool: SigningPool;
  readonly schedule: KeySchedule;
  readonly tokenTypes: readonly number[];
  readonly voprfEngine: VoprfEnginePreference;
}

/** Of an attester: what it remembers of devices. */
export interface AttesterState {
  readonly allowances: AllowanceStore;
  readonly registry: DeviceRegistryStore;
}

export interface SidecarState {
  readonly secrets: SidecarSecrets;
  readonly tokenCrypto: TokenCrypto;
  /** Of the roles issuer and joint. */
  readonly issuer?: IssuerState;
  /** Of the roles attester and joint. */
  readonly attester?: AttesterState;
  /** Of the roles edge and joint. */
  readonly spentStore?: SpentStore;
}

export type OnClose = (close: () => Promise<void> | void) => void;

interface StateDeps {
  readonly clock: () => number;
  readonly metrics: Metrics;
  readonly onClose: OnClose;
}

/**
 * Opens what the role needs; each part is registered to be closed as soon as it is open.
 * @throws `SERVICE_CONFIG_INVALID`, `TOKEN_KEY_STORE_INVALID`, `TOKEN_STORE_UNAVAILABLE`,
 * `ATTEST_ALLOWANCE_UNAVAILABLE`, `ATTEST_REGISTRY_UNAVAILABLE`
 */
export async function openState(config: Config, deps: StateDeps): Promise<SidecarState> {
  const passphrase = readPassphrase(config.passphraseFile);
  const sealer = new Sealer(passphrase);
  passphrase.fill(0);
  // First what is locked: a second process on this folder must not come near the keys.
  deps.onClose(await lockFolder(config.stateDir));
  const attester = config.attester && (await openAttesterState(config, config.attester, deps));
  const spentStore = config.edge && (await openEdgeStore(config, config.edge, deps));
  const secrets = await loadSidecarSecrets(join(config.stateDir, "secrets"), sealer);
  const hasIssuer = config.role === "joint" || config.role === "issuer";
  const issuer = hasIssuer ? await openIssuerState(config, sealer, deps) : undefined;
  return {
    secrets,
    tokenCrypto: createNodeTokenCrypto(),
    ...(issuer === undefined ? {} : { issuer }),
    ...(attester === undefined ? {} : { attester }),
    ...(spentStore === undefined ? {} : { spentStore }),
  };
}

async function openAttesterState(
  config: Config,
  { allowance, retentionDays }: AttesterConfig,
  { clock, onClose }: StateDeps,
): Promise<AttesterState> {
  const allowances = await openAllowanceStore({
    folder: join(config.stateDir, "allowances"),
    limit: allowance.tokens,
    windowMs: allowance.windowSeconds * 1_000,
  });
  onClose(() => allowances.close());
  const folder = join(config.stateDir, "devices");
  const registry = await openDeviceRegistry({ folder, retentionDays, clock });
  onClose(() => registry.close());
  return { allowances, registry };
}

async function openEdgeStore(
  config: Config,
  edge: EdgeConfig,
  { metrics, onClose }: StateDeps,
): Promise<SpentStore> {
  const schedule = keySchedule(config);
  const spentStore = await openSpentStore({
    config: edge.spentStore,
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
  return countedStore(spentStore, metrics);
}

async function openIssuerState(
  config: Config,
  passphrase: Sealer,
  { clock, onClose }: StateDeps,
): Promise<IssuerState> {
  const { maxQueue, tokenTypes, voprfEngine, workers } = config.issuer;
  const schedule = keySchedule(config);
  const dir = join(config.stateDir, "issuer-keys");
  const keystore = await openKeystore({ dir, passphrase, voprfEngine });
  const pool = new SigningPool({
    threads: workers === 0 ? availableParallelism() : workers,
    maxQueued: maxQueue,
    voprfEngine,
  });
  onClose(() => pool.close());
  const ring = createKeyRing({ records: [], clock });
  return { ring, keystore, pool, schedule, tokenTypes, voprfEngine };
}

const DAY_MS = 86_400_000;

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
