/**
 * The issuer keys that a process knows: which one signs a request, which ones redeem. Two keys that
 * are alive never share a truncated id, so a request names one key; at most 8 of a type are alive,
 * because each key is a set that its clients hide in, and smaller sets hide worse (RFC 9576 §6.2).
 * It holds no private key and destroys nothing by itself.
 */
import { encodeHex, StileError } from "../../wire/index.ts";
import { type IssuerKeyRecord, keyStateAt, truncatedTokenKeyId } from "./issuer-key-record.ts";

/** DESIGN: more keys of one type than this partition the clients. */
export const MAX_LIVE_KEYS = 8;

export interface KeyRing {
  /** Every record, also destroyed ones, until they are removed. Newest `not-before` first. */
  records(): readonly IssuerKeyRecord[];
  /** The active key with this truncated id, hence the only one that may sign the request. */
  issuanceKey(tokenType: number, truncatedId: number): IssuerKeyRecord | undefined;
  /** The newest active key of this type: the one that new tokens should be made with. */
  signingKey(tokenType: number): IssuerKeyRecord | undefined;
  /** The active or retired key with this id. */
  redemptionKey(tokenKeyId: Uint8Array): IssuerKeyRecord | undefined;
  /** All active and retired keys, newest first. */
  redeemableKeys(): readonly IssuerKeyRecord[];
  /** True when some key that is not destroyed is of this type. */
  servesType(tokenType: number): boolean;
  /** True when a live key has the truncated id of this one: generate another. */
  collides(tokenKeyId: Uint8Array): boolean;
  /** @throws `TOKEN_KEY_RING_INVALID` when the ring would break its rules; it is then unchanged */
  add(record: IssuerKeyRecord): void;
  /** An unknown id is no error. */
  remove(tokenKeyId: Uint8Array): void;
  /** All at once, or nothing. @throws `TOKEN_KEY_RING_INVALID` */
  replace(records: readonly IssuerKeyRecord[]): void;
  /** Calls back after each change to the records. */
  onChange(listener: () => void): void;
}

export interface KeyRingOptions {
  readonly records: readonly IssuerKeyRecord[];
  /** Unix milliseconds. */
  readonly clock: () => number;
}

/** @throws `TOKEN_KEY_RING_INVALID` */
export function createKeyRing(options: KeyRingOptions): KeyRing {
  const { clock } = options;
  let byId = indexOf(options.records, clock());
  const listeners: (() => void)[] = [];
  const take = (changed: ReadonlyMap<string, IssuerKeyRecord>): void => {
    byId = changed;
    for (const listener of listeners) listener();
  };

  const all = (): IssuerKeyRecord[] => [...byId.values()];
  const isRedeemable = (record: IssuerKeyRecord): boolean => {
    const state = keyStateAt(record, clock());
    return state === "active" || state === "retired";
  };
  const liveRecords = (): IssuerKeyRecord[] => {
    const nowMs = clock();
    return all().filter((record) => keyStateAt(record, nowMs) !== "destroyed");
  };

  return {
    records: all,
    issuanceKey(tokenType, truncatedId) {
      const nowMs = clock();
      return all().find(
        (record) =>
          record.tokenType === tokenType &&
          truncatedTokenKeyId(record.tokenKeyId) === truncatedId &&
          keyStateAt(record, nowMs) === "active",
      );
    },
    signingKey(tokenType) {
      const nowMs = clock();
      return all().find(
        (record) => record.tokenType === tokenType && keyStateAt(record, nowMs) === "active",
      );
    },
    redemptionKey(tokenKeyId) {
      const record = byId.get(encodeHex(tokenKeyId));
      return record !== undefined && isRedeemable(record) ? record : undefined;
    },
    redeemableKeys: () => all().filter(isRedeemable),
    servesType: (tokenType) => liveRecords().some((record) => record.tokenType === tokenType),
    collides(tokenKeyId) {
      const truncated = truncatedTokenKeyId(tokenKeyId);
      return liveRecords().some((record) => truncatedTokenKeyId(record.tokenKeyId) === truncated);
    },
    add(record) {
      take(indexOf([...all(), record], clock()));
    },
    remove(tokenKeyId) {
      const id = encodeHex(tokenKeyId);
      take(new Map([...byId].filter(([key]) => key !== id)));
    },
    replace(records) {
      take(indexOf(records, clock()));
    },
    onChange: (listener) => void listeners.push(listener),
  };
}

/** Checks the rules of a ring and sorts it: newest first, then by id, so that the order is one. */
function indexOf(
  records: readonly IssuerKeyRecord[],
  nowMs: number,
): ReadonlyMap<string, IssuerKeyRecord> {
  records.forEach(checkRecord);
  const live = records.filter((record) => keyStateAt(record, nowMs) !== "destroyed");
  if (Math.max(0, ...countByType(live)) > MAX_LIVE_KEYS) {
    throw invalid(`expected at most ${MAX_LIVE_KEYS} live keys of a type`);
  }
  const truncatedIds = new Set(live.map((record) => truncatedTokenKeyId(record.tokenKeyId)));
  if (truncatedIds.size !== live.length) throw invalid("two live keys share a truncated id");
  const entries = records.map((record) => [encodeHex(record.tokenKeyId), record] as const);
  if (new Set(entries.map(([id]) => id)).size !== records.length) {
    throw invalid("a key is listed twice");
  }
  return new Map(
    entries.sort(([a, x], [b, y]) => y.notBeforeMs - x.notBeforeMs || (a < b ? -1 : 1)),
  );
}

function countByType(records: readonly IssuerKeyRecord[]): readonly number[] {
  const counts = new Map<number, number>();
  for (const { tokenType } of records) counts.set(tokenType, (counts.get(tokenType) ?? 0) + 1);
  return [...counts.values()];
}

function checkRecord(record: IssuerKeyRecord): void {
  truncatedTokenKeyId(record.tokenKeyId);
  const instants = [
    record.publishedAtMs,
    record.notBeforeMs,
    record.retireAtMs,
    record.destroyAtMs,
  ];
  const isOrdered = instants.every((instant, i) => instant >= (instants[i - 1] ?? instant));
  if (!instants.every(Number.isSafeInteger) || !isOrdered) {
    throw invalid("the instants of a key are not in order");
  }
}

function invalid(message: string): StileError {
  return new StileError("TOKEN_KEY_RING_INVALID", message);
}
