/**
 * The life of clearance keys: made, published, put to use and destroyed as issuer keys are (service/keys), by their
 * own schedule. Of several edges that share them one makes them, and the others look at what is copied to them.
 */
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import {
  type IssuerKeyState,
  type KeySchedule,
  keyStateAt,
  planRotation,
} from "../../tokens/index.ts";
import { encodeHex, StileError } from "../../wire/index.ts";
import type { EdgeConfig } from "../config/index.ts";
import { createIssuerKeys, type GeneratedKey, instant } from "../keys/issuer-keys.ts";
import type { Keystore } from "../keystore/index.ts";
import { errorFields, type Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { SidecarSecrets } from "../secrets.ts";
import {
  CLEARANCE_KEY_TYPE,
  type ClearanceKey,
  type ClearanceKeyring,
  createClearanceKeyring,
} from "./clearance-keyring.ts";

export interface ClearanceKeysOptions {
  readonly keystore: Keystore;
  readonly schedule: KeySchedule;
  /** Another edge makes the keys. */
  readonly isCopied: boolean;
  readonly lasting: SidecarSecrets["lastingClearanceKey"];
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Pick<Metrics, "clearanceKeys" | "voprfEngine">;
}

/** What an operator sees of a key: nothing secret. */
export interface ClearanceKeyView {
  readonly kid: string;
  readonly state: IssuerKeyState;
  /** Of those that are active the newest. */
  readonly signs: boolean;
  readonly notBefore: string;
  readonly retireAt: string;
  readonly destroyAt: string;
  /** SubjectPublicKeyInfo (RFC 7468 §13), for verifiers that read no JWKS. */
  readonly publicKeyPem: string;
}

export interface ClearanceKeys {
  readonly keyring: ClearanceKeyring;
  /** As of `IssuerKeys`; where the keys are copied, takes what is there now. */
  readonly tick: () => Promise<void>;
  /** Newest first. */
  readonly list: () => readonly ClearanceKeyView[];
  readonly observe: () => void;
  /** Where the keys are this edge's own. */
  readonly changes?: ClearanceKeyChanges;
}

export interface ClearanceKeyChanges {
  /** @throws `TOKEN_KEY_ROTATION_REFUSED` */
  readonly rotate: () => Promise<void>;
  /**
   * From the call on no clearance of the key is valid; where no other signs, one is made that does.
   * @throws `SERVICE_NOT_FOUND`; errors of the file system, after which erasing the key is tried again each tick
   */
  readonly revoke: (kid: string) => Promise<void>;
}

/** How long two keys are active at once, and one is known after its last clearance: clocks differ. */
const CLOCK_MARGIN_MS = 300_000;

/** @throws RangeError */
export function clearanceKeySchedule({
  clearanceKeys: { activeSeconds, publishedSeconds },
  clearanceSeconds,
}: Pick<EdgeConfig, "clearanceKeys" | "clearanceSeconds">): KeySchedule {
  return {
    tokenType: CLEARANCE_KEY_TYPE,
    directoryLifetimeMs: publishedSeconds * 1_000,
    activeMs: activeSeconds * 1_000,
    overlapMs: CLOCK_MARGIN_MS,
    retiredMs: clearanceSeconds * 1_000 + CLOCK_MARGIN_MS,
  };
}

/**
 * Afterwards one signs.
 * @throws `TOKEN_KEY_STORE_INVALID`; `SERVICE_CONFIG_INVALID` where none was copied
 */
export async function openClearanceKeys(options: ClearanceKeysOptions): Promise<ClearanceKeys> {
  const { clock, lasting, metrics } = options;
  const keyring = createClearanceKeyring(clock);
  const life = await (options.isCopied ? takeCopied : startOwn)(options, keyring);
  // Its key is in the store now, which alone says how long it lives.
  await lasting.remove();
  return {
    ...life,
    keyring,
    list: () => keyring.all().map((key) => viewOf(key, keyring, clock())),
    observe: () => {
      for (const { record } of keyring.all()) {
        metrics.clearanceKeys.inc({ state: keyStateAt(record, clock()) });
      }
    },
  };
}

type Life = Pick<ClearanceKeys, "tick" | "changes">;

async function startOwn(options: ClearanceKeysOptions, keyring: ClearanceKeyring): Promise<Life> {
  const { clock, keystore, log, metrics, schedule } = options;
  const keys = createIssuerKeys({
    ring: keyring.ring,
    keystore,
    pool: keyring,
    generateKey,
    // Nobody is told: verifiers look at the JWKS. What could not be erased is tried again all the same.
    directoryLog: { revoke: (id) => keystore.remove(id), revoked: () => [] },
    schedule,
    clock,
    log: {
      ...log,
      write: (level, event, fields) => log.write(level, `clearance-${event}`, fields),
    },
    metrics: { ...metrics, issuerKeys: metrics.clearanceKeys },
  });
  await adoptLasting(options);
  await lengthen(options);
  await keys.start();
  return {
    tick: keys.tick,
    changes: {
      rotate: () => keys.rotate(),
      revoke: async (kid) => {
        const key = keyring.find(kid);
        if (key === undefined) throw new StileError("SERVICE_NOT_FOUND", "no such key");
        await keys.revoke(encodeHex(key.record.tokenKeyId));
      },
    },
  };
}

/** A key without a life of its own gets that of a first key: what it has signed stays good. */
async function adoptLasting(options: ClearanceKeysOptions): Promise<void> {
  const { clock, keystore, lasting, schedule } = options;
  if ((await keystore.load()).length > 0) return;
  const privateKey = await lasting.find();
  const [life] = planRotation([], clock(), schedule).generate;
  if (privateKey === undefined || life === undefined) return;
  await keystore.save({ ...life, ...publicPartsOf(privateKey) }, privateKey);
}

/** Clearances may have been set to last longer: they are to end before the key that signs them. */
async function lengthen({ clock, keystore, schedule }: ClearanceKeysOptions): Promise<void> {
  for (const { privateKey, record } of await keystore.load()) {
    const destroyAtMs = record.retireAtMs + schedule.retiredMs;
    const signs = ["published", "active"].includes(keyStateAt(record, clock()));
    if (signs && destroyAtMs > record.destroyAtMs) {
      await keystore.save({ ...record, destroyAtMs }, privateKey);
    }
  }
}

async function takeCopied(
  { clock, keystore, log }: ClearanceKeysOptions,
  keyring: ClearanceKeyring,
): Promise<Life> {
  let before = "";
  const take = async (): Promise<void> => {
    const stored = await keystore.load();
    const now = JSON.stringify(stored.map(({ record }) => record));
    // Taking them again would forget which clearances were verified.
    if (now !== before) keyring.replace(stored);
    before = now;
    // One that only is to sign will do: the other edge's clock may be ahead.
    if (keyring.all().every(({ record }) => keyStateAt(record, clock()) === "retired")) {
      const message = "edge.clearanceKeys.copied: no key in stateDir/clearance-keys signs";
      throw new StileError("SERVICE_CONFIG_INVALID", message);
    }
  };
  await take();
  return {
    tick: () =>
      take().catch((error: unknown) => {
        log.write("error", "clearance-keys.tick-failed", errorFields(error));
      }),
  };
}

function generateKey(): Promise<GeneratedKey> {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return Promise.resolve({ privateKey, ...publicPartsOf(privateKey) });
}

function publicPartsOf(privateKey: KeyObject): Omit<GeneratedKey, "privateKey"> {
  const publicKeySpki = createPublicKey(privateKey).export({ format: "der", type: "spki" });
  const tokenKeyId = createHash("sha256").update(publicKeySpki).digest();
  return { publicKeySpki: Uint8Array.from(publicKeySpki), tokenKeyId: Uint8Array.from(tokenKeyId) };
}

function viewOf(
  { kid, publicKey, record }: ClearanceKey,
  keyring: ClearanceKeyring,
  nowMs: number,
): ClearanceKeyView {
  return {
    kid,
    state: keyStateAt(record, nowMs),
    signs: keyring.signing()?.kid === kid,
    notBefore: instant(record.notBeforeMs),
    retireAt: instant(record.retireAtMs),
    destroyAt: instant(record.destroyAtMs),
    publicKeyPem: publicKey.export({ format: "pem", type: "spki" }),
  };
}
