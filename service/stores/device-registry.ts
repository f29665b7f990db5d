/**
 * The embedded device registry: one LevelDB under group commit, behind the contract of
 * `attest/enrolment/device-registry.ts`. Per device it keeps what its last accepted quote said of clock and
 * firmware, its manufacturer and class, and the day it was last seen: `0x64 || SHA-256(pseudonym)[0..16]`.
 * Revocations are keys of their own, which no retention removes: `0x72 || kind || name`.
 */
import { createHash } from "node:crypto";
import type { DeviceRecord, DeviceRegistry } from "../../attest/index.ts";
import { encodeHex, isStileError, StileError } from "../../wire/index.ts";
import { decodeDevice, encodeDevice, type StoredDevice } from "./device-record.ts";
import { isLevelLocked, type Level, type LevelWrite, type OpenLevel } from "./level.ts";
import { createSerialisedLevel } from "./serialised-level.ts";

export type RevocationTarget =
  | { readonly kind: "device"; readonly pseudonym: string }
  /** `id:XXXXXXXX`. */
  | { readonly kind: "manufacturer"; readonly name: string }
  | { readonly kind: "class"; readonly name: string };

/** As it is listed: a device by the first 16 bytes of its pseudonym's hash, in hexadecimal. */
export interface ListedRevocation {
  readonly kind: RevocationTarget["kind"];
  readonly name: string;
}

export interface DeviceRegistryStore extends DeviceRegistry {
  /**
   * Whether a device that was accepted a while ago may still have tokens.
   * @returns its class, where the registry knows it
   * @throws `ATTEST_DEVICE_REVOKED`, `ATTEST_REGISTRY_UNAVAILABLE`
   */
  readonly checkAdmissible: (pseudonym: string) => Promise<string | undefined>;
  /** On disk when it returns; holds from then on. Idempotent. @throws `ATTEST_REGISTRY_UNAVAILABLE` */
  readonly revoke: (target: RevocationTarget) => Promise<void>;
  readonly reinstate: (target: RevocationTarget) => Promise<void>;
  readonly revocations: () => Promise<readonly ListedRevocation[]>;
  /** Forgets devices that were not seen for the retention time. @returns how many */
  readonly sweep: () => Promise<number>;
  readonly close: () => Promise<void>;
}

export interface DeviceRegistryOptions {
  /** Created where it is missing. */
  readonly folder: string;
  /** Days after which a device that was not seen is forgotten, 1 or more. */
  readonly retentionDays: number;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly openLevel?: OpenLevel;
}

const DEVICE_PREFIX = 0x64;
const REVOCATION_PREFIX = 0x72;
const DEVICE_BYTES = 16;
const DAY_MS = 86_400_000;
const SWEEP_KEYS = 1_000;
const MAX_REVOCATIONS = 100_000;
const KINDS = ["device", "manufacturer", "class"] as const;

/** @throws `ATTEST_REGISTRY_UNAVAILABLE` where another process holds it or it cannot be opened */
export async function openDeviceRegistry(
  options: DeviceRegistryOptions,
): Promise<DeviceRegistryStore> {
  if (!Number.isSafeInteger(options.retentionDays) || options.retentionDays < 1) {
    throw new RangeError("retentionDays is not a positive integer");
  }
  const { run, close } = createSerialisedLevel({
    ...options,
    unavailable,
    isRefusal: isOfOneDevice,
  });
  await run(async () => {});
  const today = (): number => Math.floor(options.clock() / DAY_MS);
  return {
    lookUp: ({ pseudonym, manufacturer }) =>
      run(async (level): Promise<DeviceRecord | undefined> => {
        const device = await readDevice(level, pseudonym);
        await refuseRevoked(level, { pseudonym, manufacturer, deviceClass: device?.deviceClass });
        return device?.record;
      }),
    record: (entry) =>
      run(async (level) => {
        await refuseRevoked(level, entry);
        const value = encodeDevice({ ...entry, day: today() });
        await level.writeDurably([{ key: deviceKey(entry.pseudonym), value }]);
      }),
    checkAdmissible: (pseudonym) =>
      run(async (level) => {
        const device = await readDevice(level, pseudonym);
        await refuseRevoked(level, { pseudonym, ...device });
        return device?.deviceClass;
      }),
    revoke: (target) =>
      run((level) =>
        level.writeDurably([{ key: revocationKey(target), value: new Uint8Array(1) }]),
      ),
    reinstate: (target) => run((level) => level.writeDurably([{ key: revocationKey(target) }])),
    revocations: () => run(listRevocations),
    sweep: () => run((level) => sweep(level, today() - options.retentionDays)),
    close,
  };
}

/** A revocation, or a record that is damaged: the store itself is well. */
function isOfOneDevice(error: unknown): boolean {
  return isStileError(error) && error.code.startsWith("ATTEST_");
}

async function readDevice(level: Level, pseudonym: string): Promise<StoredDevice | undefined> {
  const [value] = await level.getMany([deviceKey(pseudonym)]);
  if (value === undefined) return undefined;
  const device = tryDecode(value);
  if (device === undefined) throw unavailable("the record of this device is damaged");
  return device;
}

function tryDecode(value: Uint8Array): StoredDevice | undefined {
  try {
    return decodeDevice(value);
  } catch (error) {
    if (isStileError(error)) return undefined;
    throw error;
  }
}

async function refuseRevoked(
  level: Level,
  device: {
    readonly pseudonym: string;
    readonly manufacturer?: string;
    readonly deviceClass?: string | undefined;
  },
): Promise<void> {
  const { deviceClass, manufacturer, pseudonym } = device;
  const keys = [revocationKey({ kind: "device", pseudonym })];
  if (manufacturer !== undefined)
    keys.push(revocationKey({ kind: "manufacturer", name: manufacturer }));
  if (deviceClass !== undefined) keys.push(revocationKey({ kind: "class", name: deviceClass }));
  const found = await level.getMany(keys);
  if (found.some((value) => value !== undefined)) {
    throw new StileError("ATTEST_DEVICE_REVOKED", "this device may not have tokens here");
  }
}

async function listRevocations(level: Level): Promise<readonly ListedRevocation[]> {
  const from = Uint8Array.of(REVOCATION_PREFIX);
  const keys = await level.keys(from, Uint8Array.of(REVOCATION_PREFIX + 1), MAX_REVOCATIONS);
  return keys.map((key) => {
    const kind = KINDS[key[1] ?? 0] ?? "device";
    const name = key.subarray(2);
    return { kind, name: kind === "device" ? encodeHex(name) : Buffer.from(name).toString("utf8") };
  });
}

async function sweep(level: Level, lastDay: number): Promise<number> {
  let from: Uint8Array = Uint8Array.of(DEVICE_PREFIX);
  let swept = 0;
  for (;;) {
    const keys = await level.keys(from, Uint8Array.of(DEVICE_PREFIX + 1), SWEEP_KEYS);
    const values = await level.getMany(keys);
    const old: LevelWrite[] = keys
      .filter((_, i) => {
        const value = values[i];
        // A damaged record is kept: to forget it would be to trust its device anew.
        const device = value === undefined ? undefined : tryDecode(value);
        return device !== undefined && device.day < lastDay;
      })
      .map((key) => ({ key }));
    if (old.length > 0) await level.writeDurably(old);
    swept += old.length;
    const last = keys.at(-1);
    if (last === undefined || keys.length < SWEEP_KEYS) return swept;
    from = Buffer.concat([last, Uint8Array.of(0)]);
  }
}

function deviceKey(pseudonym: string): Uint8Array {
  return Buffer.concat([Uint8Array.of(DEVICE_PREFIX), deviceName(pseudonym)]);
}

function revocationKey(target: RevocationTarget): Uint8Array {
  const name = target.kind === "device" ? deviceName(target.pseudonym) : Buffer.from(target.name);
  return Buffer.concat([Uint8Array.of(REVOCATION_PREFIX, KINDS.indexOf(target.kind)), name]);
}

function deviceName(pseudonym: string): Uint8Array {
  return createHash("sha256").update(pseudonym).digest().subarray(0, DEVICE_BYTES);
}

function unavailable(message: string, cause?: unknown): StileError {
  const text = isLevelLocked(cause) ? "another process holds the device registry" : message;
  return new StileError("ATTEST_REGISTRY_UNAVAILABLE", text, { cause });
}
