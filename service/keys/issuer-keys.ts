/**
 * Carries the key plan out: generates, seals, publishes, retires and destroys keys, of issuers and of clearances, by
 * the schedule of `tokens/keys`. Order matters for crashes: a key is sealed on disk before any client can see it, and
 * its spent-token epoch is dropped only after the ring has forgotten it: at once where it is revoked, else once no edge
 * that shares the store needs it. Each tick is idempotent, so a
 * crash half way is finished by the next one.
 */
import { type KeyObject, randomBytes } from "node:crypto";
import {
  hasPublicMetadata,
  type IssuerKeyRecord,
  type KeyRing,
  type KeySchedule,
  keyStateAt,
  planEarlyRotation,
  type PlannedKey,
  planRotation,
  type SpentStore,
} from "../../tokens/index.ts";
import { generateBlindRsaKey } from "../../tokens/node/index.ts";
import {
  generatePartiallyBlindRsaKey,
  partiallyBlindRsaEngine,
} from "../../tokens/partially-blind-rsa/index.ts";
import {
  createVoprfEngine,
  generateVoprfKey,
  isVoprfTokenType,
  type VoprfEnginePreference,
} from "../../tokens/voprf/index.ts";
import { encodeHex, StileError } from "../../wire/index.ts";
import type { Keystore } from "../keystore/index.ts";
import { errorFields, type Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { SigningPool } from "../signing/index.ts";
import type { DirectoryLog } from "./directory-log.ts";
import { voprfEngines } from "./voprf-engines.ts";

export interface IssuerKeysOptions {
  readonly ring: KeyRing;
  readonly keystore: Keystore;
  /** What signs. */
  readonly pool: Pick<SigningPool, "addKey" | "removeKey">;
  /** Where revocations are told to those who follow the issuer. */
  readonly directoryLog: Pick<DirectoryLog, "revoke" | "revoked">;
  /** Of the same process, if it is an edge: its epochs end after the keys. */
  readonly spentStore?: Pick<SpentStore, "dropEpoch" | "dropPastEpochs" | "keepEpoch">;
  readonly schedule: KeySchedule;
  /** Types that have keys made for them, all by the same schedule. Default: that of the schedule. */
  readonly tokenTypes?: readonly number[];
  /** For keys of the private types. Default `native`. */
  readonly voprfEngine?: VoprfEnginePreference;
  /** Default: makes keys of token types. */
  readonly generateKey?: (tokenType: number) => Promise<GeneratedKey>;
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Pick<Metrics, "issuerKeys" | "voprfEngine">;
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
  /**
   * A successor for each type, before its time: listed at once, active one directory lifetime later.
   * @param tokenType one type only
   * @throws `TOKEN_KEY_ROTATION_REFUSED`; `SERVICE_NOT_FOUND` for a type that is not served
   */
  readonly rotate: (tokenType?: number) => Promise<void>;
  /**
   * Ends a key now, for one that leaked: its unspent tokens are lost, and where nothing else signs, a successor
   * signs at once. It holds from the call on, whatever the disk says.
   * @param tokenKeyId in hexadecimal
   * @throws `SERVICE_NOT_FOUND`; errors of the file system where followers cannot be told yet
   */
  readonly revoke: (tokenKeyId: string) => Promise<void>;
  /** Adds the keys to the gauge of keys by state, which the caller has reset. */
  readonly observe: () => void;
}

/** A truncated id is one byte: with at most 8 live keys a collision is rare, and this many are none. */
const MAX_GENERATION_ATTEMPTS = 64;

export function createIssuerKeys(options: IssuerKeysOptions): IssuerKeys {
  const { ring, clock } = options;
  const served = options.tokenTypes ?? [options.schedule.tokenType];
  let running: Promise<void> = Promise.resolve();
  const inTurn = (work: () => Promise<void>): Promise<void> => {
    const mine = running.then(work);
    running = mine.catch(() => undefined);
    return mine;
  };
  const followers = createFollowers(options.directoryLog);
  const pass = async (): Promise<void> => {
    await carryOut(options, served);
    await followers.tellAgain();
    await keepEpochs(options);
  };
  const turns = { inTurn, pass, tell: followers.tell };

  return {
    start: async () => {
      nameEngines(options);
      const revoked = options.directoryLog.revoked();
      for (const { record, privateKey } of await options.keystore.load()) {
        // A crash came between the log and the key.
        if (revoked.includes(encodeHex(record.tokenKeyId))) await destroyRevoked(options, record);
        else {
          options.pool.addKey(record.tokenKeyId, privateKey, record.tokenType);
          ring.add(record);
        }
      }
      await pass();
    },
    tick: () =>
      inTurn(pass).catch((error: unknown) => {
        options.log.write("error", "keys.tick-failed", errorFields(error));
      }),
    rotate: (tokenType) => inTurn(() => rotateEarly(options, served, tokenType)),
    revoke: (tokenKeyId) => revoke(options, tokenKeyId, turns),
    list: () => ring.records().map((record) => viewOfKey(record, clock())),
    observe: () => {
      for (const record of ring.records()) {
        options.metrics.issuerKeys.inc({ state: keyStateAt(record, clock()) });
      }
    },
  };
}

async function carryOut(options: IssuerKeysOptions, served: readonly number[]): Promise<void> {
  const { clock, ring } = options;
  const stored = ring.records().map((record) => record.tokenType);
  for (const tokenType of new Set([...served, ...stored])) {
    const plan = planRotation(ring.records(), clock(), { ...options.schedule, tokenType });
    for (const record of plan.destroy) await destroy(options, record);
    // A type that is served no more lives out its keys and gets no successor.
    if (!served.includes(tokenType)) continue;
    for (const planned of plan.generate) await generate(options, planned);
  }
}

async function rotateEarly(
  options: IssuerKeysOptions,
  served: readonly number[],
  tokenType: number | undefined,
): Promise<void> {
  const { clock, keystore, ring, schedule } = options;
  const types = served.filter((type) => tokenType === undefined || type === tokenType);
  if (types.length === 0) throw new StileError("SERVICE_NOT_FOUND", "no such token type");
  // All or none: a refusal comes before the first change.
  const plans = types.map((type) =>
    planEarlyRotation(ring.records(), clock(), { ...schedule, tokenType: type }),
  );
  const stored = await keystore.load();
  for (const plan of plans) {
    // The successor first: after a crash in between, the key before it ends by the plan.
    await generate(options, plan.generate);
    for (const record of plan.shortened) {
      const id = encodeHex(record.tokenKeyId);
      const key = stored.find((other) => encodeHex(other.record.tokenKeyId) === id);
      if (key !== undefined) await keystore.save(record, key.privateKey);
      const others = ring.records().filter((other) => encodeHex(other.tokenKeyId) !== id);
      // Revoked since, perhaps while the successor was searched for: its file goes in the revocation's turn.
      if (others.length === ring.records().length) continue;
      ring.replace([...others, record]);
    }
  }
  options.log.write("warn", "keys.rotated-early");
}

interface Turns {
  /** One piece of work after the other. */
  readonly inTurn: (work: () => Promise<void>) => Promise<void>;
  readonly pass: () => Promise<void>;
  readonly tell: (tokenKeyId: Uint8Array) => Promise<void>;
}

/** Tells of revocations by the log, and again where it could not be written: until then edges redeem the key. */
function createFollowers(log: Pick<DirectoryLog, "revoke">): {
  readonly tell: Turns["tell"];
  readonly tellAgain: () => Promise<void>;
} {
  const untold = new Set<Uint8Array>();
  const tell = async (tokenKeyId: Uint8Array): Promise<void> => {
    untold.delete(tokenKeyId);
    try {
      await log.revoke(tokenKeyId);
    } catch (error) {
      untold.add(tokenKeyId);
      throw error;
    }
  };
  return {
    tell,
    tellAgain: async () => {
      for (const tokenKeyId of untold) await tell(tokenKeyId);
    },
  };
}

async function revoke(
  options: IssuerKeysOptions,
  tokenKeyId: string,
  { inTurn, pass, tell }: Turns,
): Promise<void> {
  const { pool, ring } = options;
  const record = ring.records().find((key) => encodeHex(key.tokenKeyId) === tokenKeyId);
  if (record === undefined) throw new StileError("SERVICE_NOT_FOUND", "no such key");
  ring.remove(record.tokenKeyId);
  pool.removeKey(record.tokenKeyId);
  options.log.write("warn", "keys.revoked", { tokenKeyId });
  try {
    await tell(record.tokenKeyId);
  } finally {
    // After a rotation that is under way, which may be about to save the key once more.
    await inTurn(async () => {
      await destroyRevoked(options, record);
      await pass();
    });
  }
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

export interface GeneratedKey {
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
  if (options.generateKey !== undefined) return options.generateKey(tokenType);
  if (hasPublicMetadata(tokenType)) return generatePartiallyBlindRsaKey();
  if (!isVoprfTokenType(tokenType)) return generateBlindRsaKey();
  // 1 ms, once in the life of a key: less than a thread would cost
  const voprf = createVoprfEngine(tokenType, options.voprfEngine ?? "native");
  const { privateKey, tokenKey, tokenKeyId } = generateVoprfKey(voprf, randomBytes);
  return { privateKey, publicKeySpki: tokenKey, tokenKeyId };
}

/** One line and one metric for each private type: which library computes it. @throws `TOKEN_ENGINE_MISSING` */
function nameEngines(options: IssuerKeysOptions): void {
  // This type has one library and no other way.
  if (options.tokenTypes?.some(hasPublicMetadata)) partiallyBlindRsaEngine();
  const { tokenTypes = [], voprfEngine = "native" } = options;
  for (const { engine, tokenType, warning } of voprfEngines({ tokenTypes, voprfEngine })) {
    options.metrics.voprfEngine.set({ type: String(tokenType), engine }, 1);
    const said = { tokenType, engine, ...(warning === undefined ? {} : { warning }) };
    options.log.write(warning === undefined ? "info" : "warn", "keys.voprf-engine", said);
  }
}

/** A store that is away must not keep keys from being made: it is told by the next tick. */
async function keepEpochs({ clock, log, ring, spentStore }: IssuerKeysOptions): Promise<void> {
  if (spentStore === undefined) return;
  try {
    const nowMs = clock();
    for (const { destroyAtMs, tokenKeyId } of ring.records()) {
      await spentStore.keepEpoch(tokenKeyId, Math.max(0, destroyAtMs - nowMs));
    }
    await spentStore.dropPastEpochs();
  } catch (error) {
    log.write("error", "keys.epochs-failed", errorFields(error));
  }
}

async function destroyRevoked(options: IssuerKeysOptions, record: IssuerKeyRecord): Promise<void> {
  options.pool.removeKey(record.tokenKeyId);
  options.ring.remove(record.tokenKeyId);
  await options.spentStore?.dropEpoch(record.tokenKeyId);
  await destroy(options, record);
}

async function destroy(options: IssuerKeysOptions, record: IssuerKeyRecord): Promise<void> {
  options.pool.removeKey(record.tokenKeyId);
  options.ring.remove(record.tokenKeyId);
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

/** As operators read it. @param ms Unix milliseconds */
export function instant(ms: number): string {
  return new Date(ms).toISOString();
}
