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
import { isStileError, StileError } from "../wire/index.ts";
import type { AttesterConfig, Config, EdgeConfig } from "./config/index.ts";
import { clearanceKeySchedule } from "./edge/clearance-keys.ts";
import { normalHost } from "./edge/host.ts";
import { type DirectoryLog, openDirectoryLog } from "./keys/directory-log.ts";
import { CLEARANCE_KEYS, type Keystore, openKeystore, Sealer } from "./keystore/index.ts";
import type { Metrics } from "./metrics.ts";
import { loadSidecarSecrets, openPassphrase, type SidecarSecrets } from "./secrets.ts";
import { SigningPool } from "./signing/index.ts";
import {
  type AllowanceStore,
  type DeviceRegistryStore,
  lockFolder,
  openAllowanceStore,
  openDeviceRegistry,
  openSpentStore,
} from "./stores/index.ts";

/** Of one issuer: its keys, and what it has shown of them. */
export interface TenantState {
  /** Issuer name (RFC 9577 §2.1.1). */
  readonly name: string;
  readonly ring: KeyRing;
  readonly keystore: Keystore;
  readonly directoryLog: DirectoryLog;
}

/** Of the process as an issuer: what signs, and for whom. */
export interface IssuerState {
  readonly pool: SigningPool;
  readonly schedule: KeySchedule;
  readonly tokenTypes: readonly number[];
  readonly voprfEngine: VoprfEnginePreference;
  readonly primary: TenantState;
  /** Further issuers, each with keys of its own. */
  readonly tenants: readonly TenantState[];
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
  /** Of the same. */
  readonly clearanceKeys?: { readonly keystore: Keystore; readonly schedule: KeySchedule };
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
 * `ATTEST_ALLOWANCE_UNAVAILABLE`, `ATTEST_REGISTRY_UNAVAILABLE`, `TOKEN_DIRECTORY_LOG_INVALID`
 */
export async function openState(config: Config, deps: StateDeps): Promise<SidecarState> {
  const passphrase = await openPassphrase(config);
  const sealer = new Sealer(passphrase);
  passphrase.fill(0);
  // First what is locked: a second process on this folder must not come near the keys.
  deps.onClose(await lockFolder(config.stateDir));
  const attester = config.attester && (await openAttesterState(config, config.attester, deps));
  const spentStore = config.edge && (await openEdgeStore(config, config.edge, deps));
  const secrets = await loadSidecarSecrets(join(config.stateDir, "secrets"), sealer);
  const hasIssuer = config.role === "joint" || config.role === "issuer";
  const clearanceKeys = config.edge && (await openClearanceState(config, config.edge, sealer));
  const tokenCrypto = createNodeTokenCrypto();
  const shared = { ...deps, secrets, sealer, tokenCrypto };
  const issuer = hasIssuer ? await openIssuerState(config, shared) : undefined;
  return {
    secrets,
    tokenCrypto,
    ...(issuer === undefined ? {} : { issuer }),
    ...(attester === undefined ? {} : { attester }),
    ...(spentStore === undefined ? {} : { spentStore }),
    ...(clearanceKeys === undefined ? {} : { clearanceKeys }),
  };
}

async function openClearanceState(
  { stateDir }: Config,
  edge: EdgeConfig,
  sealer: Sealer,
): Promise<NonNullable<SidecarState["clearanceKeys"]>> {
  const schedule = checked("edge.clearanceKeys", clearanceKeySchedule(edge));
  const dir = join(stateDir, "clearance-keys");
  return {
    schedule,
    keystore: await openKeystore({ dir, passphrase: sealer, kind: CLEARANCE_KEYS }),
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
  { clock, metrics, onClose }: StateDeps,
): Promise<SpentStore> {
  const schedule = keySchedule(config);
  const spentStore = await openSpentStore({
    config: edge.spentStore,
    clock,
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

interface IssuerDeps extends StateDeps, Pick<SidecarState, "secrets" | "tokenCrypto"> {
  readonly sealer: Sealer;
}

async function openIssuerState(config: Config, deps: IssuerDeps): Promise<IssuerState> {
  const { maxQueue, tenants, tokenTypes, voprfEngine, workers } = config.issuer;
  const schedule = keySchedule(config);
  const { stateDir } = config;
  const open = (name: string, dir: string, keyDir: string): Promise<TenantState> =>
    openTenant({ ...deps, name, voprfEngine, logPath: join(dir, "directory-log"), keyDir });
  const primary = await open(issuerName(config), stateDir, join(stateDir, "issuer-keys"));
  const further: TenantState[] = [];
  for (const { name } of tenants) {
    const dir = join(stateDir, "tenants", name);
    further.push(await open(name, dir, join(dir, "issuer-keys")));
  }
  const pool = new SigningPool({
    threads: workers === 0 ? availableParallelism() : workers,
    maxQueued: maxQueue,
    voprfEngine,
  });
  deps.onClose(() => pool.close());
  return { pool, schedule, tokenTypes, voprfEngine, primary, tenants: further };
}

interface TenantOptions extends IssuerDeps {
  readonly name: string;
  readonly logPath: string;
  readonly keyDir: string;
  readonly voprfEngine: VoprfEnginePreference;
}

async function openTenant(options: TenantOptions): Promise<TenantState> {
  const { clock, keyDir, logPath, name, onClose, sealer, secrets, tokenCrypto } = options;
  const { voprfEngine } = options;
  const keystore = await openKeystore({ dir: keyDir, passphrase: sealer, voprfEngine });
  const directoryLog = await openDirectoryLog({
    path: logPath,
    issuer: name,
    key: secrets.directoryLogKey,
    crypto: tokenCrypto,
    clock,
  });
  onClose(() => directoryLog.close());
  return { name, ring: createKeyRing({ records: [], clock }), keystore, directoryLog };
}

/** As challenges name it: of a process that has no edge, the host that it is reached at. */
function issuerName(config: Config): string {
  return config.edge?.issuerName ?? normalHost(new URL(config.publicUrl).host);
}

const DAY_MS = 86_400_000;

/** A successor shares this part of a key's signing time, so that clients move over at their own pace. */
const OVERLAP_SHARE = 1 / 4;

function keySchedule(config: Config): KeySchedule {
  const { activeSeconds, directoryMaxAgeSeconds, redeemableSeconds } = config.issuer;
  return checked("issuer", {
    tokenType: TOKEN_TYPE_BLIND_RSA,
    directoryLifetimeMs: directoryMaxAgeSeconds * 1_000,
    activeMs: activeSeconds * 1_000,
    overlapMs: Math.floor(activeSeconds * OVERLAP_SHARE) * 1_000,
    retiredMs: redeemableSeconds * 1_000,
  });
}

/** @throws `SERVICE_CONFIG_INVALID` */
function checked(section: string, schedule: KeySchedule): KeySchedule {
  try {
    checkKeySchedule(schedule);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `configuration: ${section}: ${reason}`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
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
        const hasEnded = isStileError(error, "TOKEN_KEY_UNKNOWN");
        metrics.spends.inc({ outcome: hasEnded ? "ended" : "unavailable" });
        throw error;
      }
    },
    keepEpoch: (tokenKeyId, forMs) => store.keepEpoch(tokenKeyId, forMs),
    dropPastEpochs: () => store.dropPastEpochs(),
    dropEpoch: (tokenKeyId) => store.dropEpoch(tokenKeyId),
    close: () => store.close(),
  };
}
