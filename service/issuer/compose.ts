/** Puts the issuers together: their keys and rotation, directories and logs, and who may ask for signatures. */
import type { JWK } from "jose";
import type { Issuer, KeyRing, SpentStore } from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import type { IssuerConfig } from "../config/index.ts";
import { createIssuerKeys } from "../keys/issuer-keys.ts";
import { logPublicJwk } from "../keys/log-signature.ts";
import { type VoprfEngineView, voprfEngines } from "../keys/voprf-engines.ts";
import type { Composition } from "../sidecar.ts";
import type { SigningPool } from "../signing/index.ts";
import type { IssuerState, TenantState } from "../state.ts";
import { registerAttesterIssuance } from "./attester-routes.ts";
import { registerIssuerRoutes } from "./routes.ts";
import {
  createTenant,
  type KeyAdministration,
  keyAdministration,
  type Tenant,
  tenantsByHost,
} from "./tenants.ts";
import { openTrustedAttesters, type TrustedAttesters } from "./trusted-attesters.ts";

export interface ComposedIssuer {
  readonly keys: KeyAdministration & { readonly ring: KeyRing };
  readonly pool: SigningPool;
  /** The primary one: of the role joint, the only one. */
  readonly issuer: Issuer;
  readonly publicJwk: JWK;
  /** Of the private types that it issues. */
  readonly voprfEngines: readonly VoprfEngineView[];
  /** Of the role issuer. */
  readonly attesters?: TrustedAttesters;
}

/** A generic batch holds 259 bytes for each request of type 0x0002, and less of every other type. */
const BYTES_PER_REQUEST = 259;
/** Length prefix of a batch. */
const BATCH_OVERHEAD_BYTES = 8;
/** How often the key plan is looked at. */
export const KEY_TICK_MS = 60_000;

/** What one batch may hold, at the attester as at the issuer. */
export function batchLimits(maxBatch: number): {
  readonly maxItems: number;
  readonly maxBytes: number;
} {
  return { maxItems: maxBatch, maxBytes: maxBatch * BYTES_PER_REQUEST + BATCH_OVERHEAD_BYTES };
}

/**
 * @param spentStore whose epochs end with their keys, where this process is an edge as well
 * @throws `SERVICE_CONFIG_INVALID`
 */
export async function composeIssuer(
  composition: Composition,
  state: IssuerState,
  spentStore: SpentStore | undefined,
): Promise<ComposedIssuer> {
  const { app, clock, config, metrics, secrets } = composition;
  checkTenants(config.issuer, state.primary.name);
  const open = (tenant: TenantState): Promise<Tenant> =>
    openTenant(composition, state, tenant, spentStore);
  const primary = await open(state.primary);
  const tenants: [Tenant, ...Tenant[]] = [primary];
  for (const tenant of state.tenants) tenants.push(await open(tenant));
  const tenantOf = tenantsByHost(tenants);
  registerIssuerRoutes(app, tenantOf);
  const composed = {
    keys: { ...keyAdministration(tenants), ring: state.primary.ring },
    pool: state.pool,
    issuer: primary.issuer,
    voprfEngines: voprfEngines(state),
    publicJwk: logPublicJwk(secrets.directoryLogKey),
  };
  if (config.role !== "issuer") return composed;
  const attesters = await openTrustedAttesters({
    trusted: config.issuer.attesters,
    stateDir: config.stateDir,
    clock,
  });
  registerAttesterIssuance(app, { tenantOf, attesters, metrics });
  return { ...composed, attesters };
}

async function openTenant(
  { clock, config, log, metrics, onClose, tokenCrypto }: Composition,
  shared: IssuerState,
  state: TenantState,
  spentStore: SpentStore | undefined,
): Promise<Tenant> {
  const keys = createIssuerKeys({
    ...shared,
    ...state,
    clock,
    log,
    metrics,
    ...(spentStore === undefined ? {} : { spentStore }),
  });
  await keys.start();
  const ticks = setInterval(() => void keys.tick(), KEY_TICK_MS);
  onClose(() => clearInterval(ticks));
  return createTenant({
    state,
    keys,
    pool: shared.pool,
    config: config.issuer,
    limits: batchLimits(config.issuer.maxBatch),
    crypto: tokenCrypto,
    clock,
  });
}

function checkTenants({ attesters, tenants }: IssuerConfig, primary: string): void {
  const names = [primary, ...tenants.map(({ name }) => name)];
  const known = new Set(attesters.map(({ name }) => name));
  const strangers = tenants.flatMap((tenant) => tenant.attesters ?? []);
  if (new Set(names).size !== names.length) throw misconfigured("two issuers share a name");
  if (!strangers.every((name) => known.has(name))) {
    throw misconfigured("attesters: one is not among issuer.attesters");
  }
}

function misconfigured(reason: string): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `configuration: issuer.tenants: ${reason}`);
}
