/**
 * Carries the key plan out: generates, seals, publishes, retires and destroys issuer keys by the schedule
 * of `tokens/keys`. Order matters for crashes: a key is sealed on disk before any client can see it, and
 * its spent-token epoch is dropped only after the ring has forgotten it. Each tick is idempotent, so a
 * crash half way is finished by the next one.
 */
import { type KeyObject, randomBytes } from "node:crypto";
import {
  type IssuerKeyRecord,
  type KeyRing,
  type KeySchedule,
  keyStateAt,
  type PlannedKey,
  planRotation,
  type SpentStore,
} from "../../tokens/index.ts";
import { generateBlindRsaKey } from "../../tokens/node/index.ts";
import {
  createVoprfEngine,
  generateVoprfKey,
  isVoprfTokenType,
  type VoprfEnginePreference,
} from "../../tokens/voprf/index.ts";
import { encodeHex } from "../../wire/index.ts";
import type { Keystore } from "../keystore/index.ts";
import { errorFields, type Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { SigningPool } from "../signing/index.ts";

export interface IssuerKeysOptions {
  readonly ring: KeyRing;
  readonly keystore: Keystore;
  readonly pool: SigningPool;
  /** Of the same process, if it is an edge: its epochs end with the keys. */
  readonly spentStore?: Pick<SpentStore, "dropEpoch">;
  readonly schedule: KeySchedule;
  /** Types that have keys made for them, all by the same schedule. Default: that of the schedule. */
  readonly tokenTypes?: readonly number[];
  /** For keys of the private types. Default `native`. */
  readonly voprfEngine?: VoprfEnginePreference;
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** What an operator sees of a key: nothing secret. */
export interface IssuerKeyView {
  readonly tokenKeyId: string;
  readonly tokenType: number;
  readonly state: string;
  readonly notBefore: string;
  readonly retireAt: string;
  readonly destroyAt: string;
}

export interface IssuerKeys {
  /** Loads the sealed keys and runs the first tick: afterwards there is an active key. */
  readonly start: () => Promise<void>;
  /** One pass of the plan. Ticks never overlap; a failed one is logged and tried again by the next. */
  readonly tick: () => Promise<void>;
  readonly list: () => readonly IssuerKeyView[];
  /** Brings the gauge of keys by state up to date. */
  readonly observe: () => void;
}

/** A truncated id is one byte: with at most 8 live keys a collision is rare, and this many are none. */
const MAX_GENERATION_ATTEMPTS = 64;

export function createIssuerKeys(options: IssuerKeysOptions): IssuerKeys {
  const { ring, clock } = options;
  let running: Promise<void> = Promise.resolve();

  async function pass(): Promise<void> {
    const served = options.tokenTypes ?? [options.schedule.tokenType];
    const stored = ring.records().map((record) => record.tokenType);
    for (const tokenType of new Set([...served, ...stored])) {
      const plan = planRotation(ring.records(), clock(), { ...options.schedule, tokenType });
      for (const record of plan.destroy) await destroy(options, record);
      // A type that is served no more lives out its keys and gets no successor.
      if (!served.includes(tokenType)) continue;
      for (const planned of plan.generate) await generate(options, planned);
    }
  }

  return {
    start: async () => {
      nameEngines(options);
      for (const { record, privateKey } of await options.keystore.load()) {
        ring.add(record);
        options.pool.addKey(record.tokenKeyId, privateKey, record.tokenType);
      }
      await pass();
    },
    tick: () => {
      running = running.then(pass).catch((error: unknown) => {
        options.log.write("error", "keys.tick-failed", errorFields(error));
      });
      return running;
    },
    list: () => ring.records().map((record) => viewOfKey(record, clock())),
    observe: () => {
      options.metrics.issuerKeys.reset();
      for (const record of ring.records()) {
        options.metrics.issuerKeys.inc({ state: keyStateAt(record, clock()) });
      }
    },
  };
}

async function generate(options: IssuerKeysOptions, planned: PlannedKey): Promise<void> {
  const { privateKey, publicKeySpki, tokenKeyId } = await generateUnique(
    options,
    planned.tokenType,
  );
  const record: IssuerKeyRecord = { ...planned, publicKeySpki, tokenKeyId };
  await options.keystore.save(record, privateKey);
  options.pool.addKey(tokenKeyId, privateKey, planned.tokenType);
  options.ring.add(record);
  options.log.write("info", "keys.generated", { notBefore: instant(record.notBeforeMs) });
}

interface GeneratedKey {
  readonly privateKey: KeyObject;
  readonly publicKeySpki: Uint8Array;
  readonly tokenKeyId: Uint8Array;
}

async function generateUnique(
  options: IssuerKeysOptions,
  tokenType: number,
): Promise<GeneratedKey> {
  for (let attempt = 0; attempt < MAX_GENERATION_ATTEMPTS; attempt += 1) {
    const pair = await generateKey(options, tokenType);
    if (!options.ring.collides(pair.tokenKeyId)) return pair;
  }
  throw new Error("no key without a truncated id collision was found");
}

async function generateKey(options: IssuerKeysOptions, tokenType: number): Promise<GeneratedKey> {
  if (!isVoprfTokenType(tokenType)) return generateBlindRsaKey();
  // 1 ms, once in the life of a key: less than a thread would cost
  const voprf = createVoprfEngine(tokenType, options.voprfEngine ?? "native");
  const { privateKey, tokenKey, tokenKeyId } = generateVoprfKey(voprf, randomBytes);
  return { privateKey, publicKeySpki: tokenKey, tokenKeyId };
}

/** One line and one metric for each private type: which library computes it. @throws `TOKEN_ENGINE_MISSING` */
function nameEngines(options: IssuerKeysOptions): void {
  for (const tokenType of (options.tokenTypes ?? []).filter(isVoprfTokenType)) {
    const { engine } = createVoprfEngine(tokenType, options.voprfEngine ?? "native");
    options.metrics.voprfEngine.set({ type: String(tokenType), engine }, 1);
    const level = engine === "noble" ? "warn" : "info";
    options.log.write(level, "keys.voprf-engine", { tokenType, engine });
  }
}

async function destroy(options: IssuerKeysOptions, record: IssuerKeyRecord): Promise<void> {
  options.pool.removeKey(record.tokenKeyId);
  options.ring.remove(record.tokenKeyId);
  await options.spentStore?.dropEpoch(record.tokenKeyId);
  await options.keystore.remove(record.tokenKeyId);
  options.log.write("info", "keys.destroyed");
}

export function viewOfKey(record: IssuerKeyRecord, nowMs: number): IssuerKeyView {
  return {
    tokenKeyId: encodeHex(record.tokenKeyId),
    tokenType: record.tokenType,
    state: keyStateAt(record, nowMs),
    notBefore: instant(record.notBeforeMs),
    retireAt: instant(record.retireAtMs),
    destroyAt: instant(record.destroyAtMs),
  };
}

function instant(ms: number): string {
  return new Date(ms).toISOString();
}
