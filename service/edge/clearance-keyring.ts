/**
 * The keys of clearances as an edge uses them: which one signs, which one a `kid` names. They live as issuer keys do
 * (tokens/keys), under a type that no token has. It destroys nothing by itself.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import type { JWK } from "jose";
import {
  createKeyRing,
  type IssuerKeyRecord,
  type KeyRing,
  keyStateAt,
} from "../../tokens/index.ts";
import { encodeBase64Url } from "../../wire/index.ts";
import type { StoredKey } from "../keystore/index.ts";

/** Reserved among token types (RFC 9577 §6.2.1): the record of a token's key is never one of these. */
export const CLEARANCE_KEY_TYPE = 0x0000;
/** Of the SHA-256 of the SPKI, which is the record's identifier. */
const KID_BYTES = 16;

export interface ClearanceKey extends StoredKey {
  readonly kid: string;
  readonly publicKey: KeyObject;
  readonly jwk: JWK;
}

export interface ClearanceKeyring {
  readonly ring: KeyRing;
  /** The newest active one. */
  readonly signing: () => ClearanceKey | undefined;
  /**
   * Any that is not destroyed: also one that is only published, since another edge's clock may be ahead.
   * @param kid hostile
   */
  readonly find: (kid: string) => ClearanceKey | undefined;
  /** Those that {@link find} finds, newest first. */
  readonly all: () => readonly ClearanceKey[];
  /** Before its record comes into the ring. */
  readonly addKey: (tokenKeyId: Uint8Array, privateKey: KeyObject) => void;
  readonly removeKey: (tokenKeyId: Uint8Array) => void;
  /** All at once. @throws `TOKEN_KEY_RING_INVALID` */
  readonly replace: (keys: readonly StoredKey[]) => void;
  /** Calls back after each change. */
  readonly onChange: (listener: () => void) => void;
}

export function createClearanceKeyring(clock: () => number): ClearanceKeyring {
  const ring = createKeyRing({ records: [], clock });
  const material = new Map<string, Omit<ClearanceKey, "record">>();
  let byKid: ReadonlyMap<string, ClearanceKey> = new Map();
  ring.onChange(() => {
    byKid = new Map(ring.records().flatMap((record) => entryOf(record)));
  });

  const entryOf = (record: IssuerKeyRecord): [string, ClearanceKey][] => {
    const kid = kidOf(record.tokenKeyId);
    const key = material.get(kid);
    return key === undefined ? [] : [[kid, { ...key, record }]];
  };
  const isLive = ({ record }: ClearanceKey): boolean => keyStateAt(record, clock()) !== "destroyed";
  const addKey: ClearanceKeyring["addKey"] = (tokenKeyId, privateKey) => {
    const kid = kidOf(tokenKeyId);
    const publicKey = createPublicKey(privateKey);
    const jwk: JWK = { ...publicKey.export({ format: "jwk" }), kid, alg: "ES256", use: "sig" };
    material.set(kid, { kid, privateKey, publicKey, jwk });
  };

  return {
    ring,
    signing: () => {
      const record = ring.signingKey(CLEARANCE_KEY_TYPE);
      return record === undefined ? undefined : byKid.get(kidOf(record.tokenKeyId));
    },
    find: (kid) => {
      const key = byKid.get(kid);
      return key !== undefined && isLive(key) ? key : undefined;
    },
    all: () => [...byKid.values()].filter(isLive),
    addKey,
    removeKey: (tokenKeyId) => void material.delete(kidOf(tokenKeyId)),
    replace: (keys) => {
      for (const { privateKey, record } of keys) addKey(record.tokenKeyId, privateKey);
      ring.replace(keys.map(({ record }) => record));
      for (const kid of material.keys()) if (!byKid.has(kid)) material.delete(kid);
    },
    onChange: (listener) => ring.onChange(listener),
  };
}

/** @param tokenKeyId SHA-256 of the SPKI */
export function kidOf(tokenKeyId: Uint8Array): string {
  return encodeBase64Url(tokenKeyId.subarray(0, KID_BYTES));
}
