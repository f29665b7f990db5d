/** Puts the issuer together: its keys and their rotation, the directory, and who may ask it for signatures. */
import { createIssuer, type Issuer, type KeyRing, type SpentStore } from "../../tokens/index.ts";
import { createIssuerKeys, type IssuerKeys } from "../keys/issuer-keys.ts";
import type { Composition } from "../sidecar.ts";
import type { SigningPool } from "../signing/index.ts";
import type { IssuerState } from "../state.ts";
import { registerAttesterIssuance } from "./attester-routes.ts";
import { registerIssuerRoutes } from "./routes.ts";
import { openTrustedAttesters, type TrustedAttesters } from "./trusted-attesters.ts";

export interface ComposedIssuer {
  readonly keys: IssuerKeys & { readonly ring: KeyRing };
  readonly pool: SigningPool;
  readonly issuer: Issuer;
  /** Of the role issuer. */
  readonly attesters?: TrustedAttesters;
}

/** A generic batch holds 259 bytes for each request of type 0x0002, and less of every other type. */
const BYTES_PER_REQUEST = 259;
/** Length prefix of a batch. */
const BATCH_OVERHEAD_BYTES = 8;
/** Signatures of one batch that are asked for at a time: two batches fill no queue. */
const BATCH_CONCURRENCY = 32;
/** How often the key plan is looked at. */
const KEY_TICK_MS = 60_000;

/** What one batch may hold, at the attester as at the issuer. */
export function batchLimits(maxBatch: number): {
  readonly maxItems: number;
  readonly maxBytes: number;
} {
  return { maxItems: maxBatch, maxBytes: maxBatch * BYTES_PER_REQUEST + BATCH_OVERHEAD_BYTES };
}

/** @param spentStore whose epochs end with their keys, where this process is an edge as well */
export async function composeIssuer(
  composition: Composition,
  state: IssuerState,
  spentStore: SpentStore | undefined,
): Promise<ComposedIssuer> {
  const { app, clock, config, log, metrics, onClose, tokenCrypto } = composition;
  const keys = createIssuerKeys({
    ...state,
    clock,
    log,
    metrics,
    ...(spentStore === undefined ? {} : { spentStore }),
  });
  await keys.start();
  const ticks = setInterval(() => void keys.tick(), KEY_TICK_MS);
  onClose(() => clearInterval(ticks));
  registerIssuerRoutes(app, {
    keyRing: state.ring,
    crypto: tokenCrypto,
    clock,
    directoryLifetimeMs: config.issuer.directoryMaxAgeSeconds * 1_000,
  });
  const issuer = createIssuer({
    keyRing: state.ring,
    signer: state.pool,
    limits: batchLimits(config.issuer.maxBatch),
    batchConcurrency: BATCH_CONCURRENCY,
  });
  const composed = { keys: { ...keys, ring: state.ring }, pool: state.pool, issuer };
  if (config.role !== "issuer") return composed;
  const attesters = await openTrustedAttesters({
    trusted: config.issuer.attesters,
    stateDir: config.stateDir,
    clock,
  });
  registerAttesterIssuance(app, { issuer, attesters, metrics });
  return { ...composed, attesters };
}
