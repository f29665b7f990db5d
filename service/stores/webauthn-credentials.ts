/**
 * The embedded store of WebAuthn credentials: one LevelDB under group commit, behind the contract of
 * `attest/webauthn-enrolment/credential-store.ts`. `0x77 || handle[0..16]` holds the credential's key and
 * counter, its model and pseudonym, and the day it last attested: no credential id, no person, no address.
 */
import { type CredentialStore, isCounterAccepted } from "../../attest/webauthn-enrolment/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import { isLevelLocked, type Level, type LevelWrite, type OpenLevel } from "./level.ts";
import { createSerialisedLevel } from "./serialised-level.ts";
import { type CredentialRecord, decodeCredential, encodeCredential } from "./webauthn-record.ts";

export interface WebAuthnCredentialStore extends CredentialStore {
  /** Forgets credentials that did not attest for the retention time. @returns how many */
  readonly sweep: () => Promise<number>;
  readonly close: () => Promise<void>;
}

export interface WebAuthnCredentialOptions {
  /** Created where it is missing. */
  readonly folder: string;
  /** Days after which a credential that did not attest is forgotten, 1 or more. */
  readonly retentionDays: number;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly openLevel?: OpenLevel;
}

const PREFIX = 0x77;
const HANDLE_BYTES = 16;
const DAY_MS = 86_400_000;
const SWEEP_KEYS = 1_000;

/** @throws `ATTEST_WEBAUTHN_STORE_UNAVAILABLE` where another process holds it or it cannot be opened */
export async function openWebAuthnCredentials(
  options: WebAuthnCredentialOptions,
): Promise<WebAuthnCredentialStore> {
  if (!Number.isSafeInteger(options.retentionDays) || options.retentionDays < 1) {
    throw new RangeError("retentionDays is not a positive integer");
  }
  const { run, close } = createSerialisedLevel({ ...options, unavailable, isRefusal });
  await run(async () => {});
  const today = (): number => Math.floor(options.clock() / DAY_MS);
  const oldest = (): number => today() - options.retentionDays;
  return {
    lookUp: (handle) => run((level) => readKnown(level, handle, oldest())),
    add: (handle, credential) =>
      run(async (level) => {
        const known = await read(level, handle);
        if (known !== undefined && known.day >= oldest()) {
          const message = "a credential with this id is registered already";
          throw new StileError("ATTEST_WEBAUTHN_CREDENTIAL_EXISTS", message);
        }
        await write(level, handle, { ...credential, day: today() });
      }),
    recordUse: (handle, signCount) =>
      run(async (level) => {
        const known = await readKnown(level, handle, oldest());
        if (!isCounterAccepted(known.signCount, signCount)) {
          const message = "authenticatorData.signCount: expected it to go up";
          throw new StileError("ATTEST_WEBAUTHN_COUNTER_INVALID", message);
        }
        // A clock that was set back does not shorten a credential's life.
        await write(level, handle, { ...known, signCount, day: Math.max(known.day, today()) });
      }),
    sweep: () => run((level) => sweep(level, oldest())),
    close,
  };
}

async function read(level: Level, handle: Uint8Array): Promise<CredentialRecord | undefined> {
  const [value] = await level.getMany([keyOf(handle)]);
  if (value === undefined) return undefined;
  const record = tryDecode(value);
  if (record === undefined) throw unavailable("the record of this credential is damaged");
  return record;
}

/** What is past the retention time is forgotten, whether or not a sweep came by. */
async function readKnown(
  level: Level,
  handle: Uint8Array,
  oldestDay: number,
): Promise<CredentialRecord> {
  const record = await read(level, handle);
  if (record === undefined || record.day < oldestDay) {
    throw new StileError("ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN", "it is not registered here");
  }
  return record;
}

async function write(level: Level, handle: Uint8Array, record: CredentialRecord): Promise<void> {
  await level.writeDurably([{ key: keyOf(handle), value: encodeCredential(record) }]);
}

async function sweep(level: Level, oldestDay: number): Promise<number> {
  let from: Uint8Array = Uint8Array.of(PREFIX);
  let swept = 0;
  for (;;) {
    const keys = await level.keys(from, Uint8Array.of(PREFIX + 1), SWEEP_KEYS);
    const values = await level.getMany(keys);
    const old: LevelWrite[] = keys
      .filter((_, i) => {
        const value = values[i];
        const record = value === undefined ? undefined : tryDecode(value);
        return record !== undefined && record.day < oldestDay;
      })
      .map((key) => ({ key }));
    if (old.length > 0) await level.writeDurably(old);
    swept += old.length;
    const last = keys.at(-1);
    if (last === undefined || keys.length < SWEEP_KEYS) return swept;
    from = Buffer.concat([last, Uint8Array.of(0)]);
  }
}

function tryDecode(value: Uint8Array): CredentialRecord | undefined {
  try {
    return decodeCredential(value);
  } catch (error) {
    if (isStileError(error)) return undefined;
    throw error;
  }
}

function keyOf(handle: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(PREFIX), handle.subarray(0, HANDLE_BYTES)]);
}

/** A refusal of one credential, or a record that is damaged: the store itself is well. */
function isRefusal(error: unknown): boolean {
  return isStileError(error) && error.code.startsWith("ATTEST_");
}

function unavailable(message: string, cause?: unknown): StileError {
  const text = isLevelLocked(cause) ? "another process holds the credential store" : message;
  return new StileError("ATTEST_WEBAUTHN_STORE_UNAVAILABLE", text, { cause });
}
