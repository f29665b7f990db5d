/** An issuer key, a signer, a clock and a spent store for the token tests. */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import {
  type BlindSigner,
  type IssuerKeyRecord,
  type SpendOutcome,
  type SpendRequest,
  type SpentStore,
  TOKEN_TYPE_BLIND_RSA,
  type TokenCrypto,
  truncatedTokenKeyId,
} from "../../tokens/index.ts";
import {
  createNodeTokenCrypto,
  encodeRsaPublicKey,
  rawRsaSignAll,
} from "../../tokens/node/index.ts";
import { encodeHex, StileError } from "../../wire/index.ts";

export const crypto: TokenCrypto = createNodeTokenCrypto();
export const START_MS = 1_800_000_000_000;
export const DAY_MS = 86_400_000;

export interface TestClock {
  (): number;
  advance(ms: number): void;
}

export function testClock(nowMs: number = START_MS): TestClock {
  let now = nowMs;
  return Object.assign(() => now, {
    advance(ms: number) {
      now += ms;
    },
  });
}

export interface TestKey {
  readonly privateKey: KeyObject;
  readonly record: IssuerKeyRecord;
}

/** Truncated ids that are taken: below 16 by {@link fakeRecord}, above by the keys of this process. */
const usedTruncatedIds = new Set(Array.from({ length: 16 }, (_, i) => i));

/** A fresh key whose truncated id no other has: of two at random, one pair in 256 could not be in one ring. */
export function ofOwnTruncatedId<T extends { readonly tokenKeyId: Uint8Array }>(
  generate: () => T,
): T {
  for (;;) {
    const made = generate();
    const truncated = truncatedTokenKeyId(made.tokenKeyId);
    if (usedTruncatedIds.has(truncated)) continue;
    usedTruncatedIds.add(truncated);
    return made;
  }
}

/** An active key of one day, redeemable for another. */
export function testKey(instants: Partial<IssuerKeyRecord> = {}): TestKey {
  const { privateKey, ...ids } = ofOwnTruncatedId(() => {
    const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const publicKeySpki = encodeRsaPublicKey(pair.privateKey);
    const tokenKeyId = crypto.sha256(publicKeySpki);
    return { privateKey: pair.privateKey, publicKeySpki, tokenKeyId };
  });
  return { privateKey, record: recordOf({ ...ids, ...instants }) };
}

/** A record whose key id ends in `truncated`; nothing can be signed with it. */
export function fakeRecord(
  truncated: number,
  instants: Partial<IssuerKeyRecord> = {},
): IssuerKeyRecord {
  const tokenKeyId = new Uint8Array(32).fill(truncated);
  return recordOf({ publicKeySpki: Uint8Array.of(truncated), tokenKeyId, ...instants });
}

function recordOf(
  record: Pick<IssuerKeyRecord, "publicKeySpki" | "tokenKeyId"> & Partial<IssuerKeyRecord>,
): IssuerKeyRecord {
  return {
    tokenType: TOKEN_TYPE_BLIND_RSA,
    publishedAtMs: START_MS,
    notBeforeMs: START_MS,
    retireAtMs: START_MS + DAY_MS,
    destroyAtMs: START_MS + 2 * DAY_MS,
    ...record,
  };
}

export interface TestSigner extends BlindSigner {
  calls: number;
  /** Most calls that ran at the same time. */
  peak: number;
}

export function testSigner(keys: readonly TestKey[]): TestSigner {
  let running = 0;
  return {
    calls: 0,
    peak: 0,
    async blindSign(tokenKeyId, blindedMessage) {
      this.calls += 1;
      running += 1;
      this.peak = Math.max(this.peak, running);
      try {
        await Promise.resolve();
        const id = encodeHex(tokenKeyId);
        const key = keys.find(({ record }) => encodeHex(record.tokenKeyId) === id);
        if (key === undefined) throw new StileError("TOKEN_KEY_UNKNOWN", "no such key");
        return rawRsaSignAll(key.privateKey, blindedMessage);
      } finally {
        running -= 1;
      }
    },
  };
}

/** The contract of `SpentStore` without the disk; remembers what it was asked. */
export interface MemorySpentStore extends SpentStore {
  readonly requests: SpendRequest[];
}

export function memorySpentStore(): MemorySpentStore {
  const entries = new Map<string, SpendRequest>();
  const requests: SpendRequest[] = [];
  return {
    requests,
    spend: async (request): Promise<SpendOutcome> => {
      requests.push(request);
      const key = encodeHex(request.tokenKeyId) + encodeHex(request.nonce);
      const first = entries.get(key);
      if (first === undefined) {
        entries.set(key, structuredClone(request));
        return { outcome: "fresh" };
      }
      if (first.binding === undefined || request.binding === undefined) return { outcome: "spent" };
      const isSame = encodeHex(first.binding) === encodeHex(request.binding);
      return isSame ? { outcome: "repeat", firstAtMs: first.atMs } : { outcome: "spent" };
    },
    keepEpoch: async () => true,
    dropPastEpochs: async () => 0,
    dropEpoch: async () => entries.clear(),
    close: async () => undefined,
  };
}
