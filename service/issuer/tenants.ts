/**
 * The issuers of one process, told apart by the Host of a request (RFC 9578 §4: an issuer is the host that its
 * directory is fetched from). Each has keys, a directory and a log of its own; they share the threads that sign.
 * Where there is but one, it answers under whatever name it is reached.
 */
import {
  createIssuer,
  encodeDirectory,
  type EncodedDirectory,
  type Issuer,
  type TokenCrypto,
} from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import type { IssuerConfig } from "../config/index.ts";
import { normalHost } from "../edge/host.ts";
import type { DirectoryLog } from "../keys/directory-log.ts";
import type { IssuerKeys, IssuerKeyView } from "../keys/issuer-keys.ts";
import type { IssuerState, TenantState } from "../state.ts";
import { metadataPolicyOf } from "./metadata-policy.ts";

export interface Tenant {
  readonly name: string;
  readonly issuer: Issuer;
  readonly keys: IssuerKeys;
  /** Returns when the directory is in the log. @throws errors of the file system */
  readonly directory: () => Promise<EncodedDirectory>;
  readonly log: Pick<DirectoryLog, "linesFrom">;
  /** False for an attester that may not ask this issuer. */
  readonly isFor: (attester: string) => boolean;
}

/** What an operator may do with the keys of all issuers of the process. */
export interface KeyAdministration {
  readonly list: () => readonly (IssuerKeyView & { readonly issuer: string })[];
  readonly observe: () => void;
  /** @throws `SERVICE_NOT_FOUND` for an issuer or type that there is not; `TOKEN_KEY_ROTATION_REFUSED` */
  readonly rotate: (which: { issuer?: string; tokenType?: number }) => Promise<void>;
  /** @throws `SERVICE_NOT_FOUND` */
  readonly revoke: (tokenKeyId: string) => Promise<void>;
}

export interface TenantOptions {
  readonly state: TenantState;
  readonly keys: IssuerKeys;
  readonly pool: IssuerState["pool"];
  readonly config: IssuerConfig;
  readonly limits: { readonly maxItems: number; readonly maxBytes: number };
  readonly crypto: TokenCrypto;
  readonly clock: () => number;
}

/** Signatures of one batch that are asked for at a time: two batches fill no queue. */
const BATCH_CONCURRENCY = 32;
/** Where token requests go, relative to the directory. */
export const TOKEN_REQUEST_PATH = "/token-request";

export function createTenant(options: TenantOptions): Tenant {
  const { clock, config, crypto, keys, limits, pool, state } = options;
  const trusted = config.tenants.find(({ name }) => name === state.name)?.attesters;
  return {
    name: state.name,
    keys,
    issuer: createIssuer({
      keyRing: state.ring,
      signer: pool,
      limits,
      batchConcurrency: BATCH_CONCURRENCY,
      ...metadataPolicyOf(config, clock),
    }),
    directory: async () => {
      const directory = encodeDirectory(state.ring, {
        issuerRequestUri: TOKEN_REQUEST_PATH,
        directoryLifetimeMs: config.directoryMaxAgeSeconds * 1_000,
        clock,
        crypto,
      });
      await state.directoryLog.publish(directory.body);
      return directory;
    },
    log: state.directoryLog,
    isFor: (attester) => trusted?.includes(attester) ?? true,
  };
}

/** @returns the issuer of a Host. @throws `SERVICE_HOST_UNKNOWN` */
export function tenantsByHost(
  tenants: readonly [Tenant, ...Tenant[]],
): (host: string | undefined) => Tenant {
  const [primary] = tenants;
  if (tenants.length === 1) return () => primary;
  const byName = new Map(tenants.map((tenant) => [tenant.name, tenant]));
  return (host) => {
    const tenant = byName.get(normalHost(host ?? ""));
    if (tenant !== undefined) return tenant;
    throw new StileError("SERVICE_HOST_UNKNOWN", "no issuer has that name here");
  };
}

export function keyAdministration(tenants: readonly Tenant[]): KeyAdministration {
  return {
    list: () =>
      tenants.flatMap(({ keys, name }) => keys.list().map((key) => ({ issuer: name, ...key }))),
    observe: () => tenants.forEach(({ keys }) => keys.observe()),
    rotate: async ({ issuer, tokenType }) => {
      const chosen = tenants.filter(({ name }) => issuer === undefined || name === issuer);
      if (chosen.length === 0) throw new StileError("SERVICE_NOT_FOUND", "no such issuer");
      for (const { keys } of chosen) await keys.rotate(tokenType);
    },
    revoke: async (tokenKeyId) => {
      const owner = tenants.find(({ keys }) =>
        keys.list().some((key) => key.tokenKeyId === tokenKeyId),
      );
      if (owner === undefined) throw new StileError("SERVICE_NOT_FOUND", "no such key");
      await owner.keys.revoke(tokenKeyId);
    },
  };
}
