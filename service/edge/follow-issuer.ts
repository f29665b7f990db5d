/**
 * The keys of an issuer elsewhere, as an edge of its own follows them: the directory (RFC 9578 §4) is fetched
 * again and again, and what it listed is kept on disk. A key that is listed no more redeems for as long as its
 * tokens may live; an issuer that cannot be reached changes nothing until the keys that were seen last have
 * lived out. Public keys verify types 0x0002 and 0xDA7A, so other types are passed over.
 * Where the issuer keeps a log of its directories, a directory that is not in it is not believed, and a key
 * that the log revokes redeems nothing from then on.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  createKeyRing,
  isPrivateTokenType,
  type IssuerDirectory,
  type IssuerKeyRecord,
  type KeyRing,
  parseIssuerDirectory,
  type SpentStore,
  TOKEN_TYPE_BLIND_RSA,
  tokenKeyIdOf,
} from "../../tokens/index.ts";
import {
  decodeBase64Url,
  encodeBase64Url,
  encodeHex,
  encodeUtf8,
  isStileError,
  StileError,
} from "../../wire/index.ts";
import type { FollowedIssuerConfig, IssuerConfig } from "../config/index.ts";
import { readFileSync } from "node:fs";
import {
  encodeKnownLog,
  fetchLoggedDirectory,
  type FollowedIssuer,
  type FollowedLog,
  type KnownLog,
  parseKnownLog,
} from "../keys/follow-log.ts";
import { type IssuerKeyView, viewOfKey } from "../keys/issuer-keys.ts";
import { errorFields } from "../log.ts";
import type { Composition } from "../sidecar.ts";
import { hasCode, replaceFileDurably } from "../stores/durable-file.ts";

/** As it is kept: what was seen of a key, never what was concluded from it. */
interface SeenKey {
  /** Base64url, as the directory spells the key. */
  readonly tokenKey: string;
  /** Without it, 0x0002. */
  readonly tokenType?: number;
  /** Unix milliseconds. */
  readonly notBeforeMs: number;
  readonly firstSeenMs: number;
  readonly lastSeenMs: number;
}

type EpochStore = Pick<SpentStore, "dropEpoch" | "dropPastEpochs" | "keepEpoch">;

export interface FollowedKeys {
  readonly ring: KeyRing;
  readonly list: () => readonly IssuerKeyView[];
  readonly observe: () => void;
}

const FILE = "followed-keys.json";
const LOG_FILE = "followed-log.json";

/** Of the types in the configuration, those that public keys verify, in its order; at least blind RSA. */
export function followedTypes({ tokenTypes }: Pick<IssuerConfig, "tokenTypes">): readonly number[] {
  const types = tokenTypes.filter((tokenType) => !isPrivateTokenType(tokenType));
  return types.length > 0 ? types : [TOKEN_TYPE_BLIND_RSA];
}

/** @throws `TOKEN_ISSUER_UNAVAILABLE` where there are no keys, neither fetched nor kept */
export async function followIssuer(
  composition: Composition,
  issuer: FollowedIssuerConfig,
  spentStore: EpochStore,
): Promise<FollowedKeys> {
  const { clock, config, log, metrics, onClose } = composition;
  const follower = new Follower(composition, issuer, spentStore);
  await follower.load(config.stateDir);
  const first = await follower.refresh();
  if (first !== undefined && follower.ring.redeemableKeys().length === 0) throw first;
  let isAsking = false;
  const refresh = async (): Promise<void> => {
    // One at a time: an answer that was long on its way must not undo what a later one has revoked.
    if (isAsking) return;
    isAsking = true;
    const error = await follower.refresh();
    isAsking = false;
    if (error !== undefined) log.write("error", "keys.follow-failed", errorFields(error));
  };
  const timer = setInterval(() => void refresh(), issuer.refreshSeconds * 1_000);
  onClose(() => clearInterval(timer));
  const views = (): IssuerKeyView[] =>
    follower.ring.records().map((record) => viewOfKey(record, clock()));
  return {
    ring: follower.ring,
    list: views,
    observe: () => {
      for (const { state } of views()) metrics.issuerKeys.inc({ state });
    },
  };
}

class Follower {
  readonly ring: KeyRing;
  readonly #composition: Composition;
  readonly #issuer: FollowedIssuerConfig;
  readonly #ca: string | undefined;
  readonly #spentStore: EpochStore;
  #folder = "";
  #log: KnownLog | undefined;
  #seen = new Map<string, SeenKey>();

  constructor(composition: Composition, issuer: FollowedIssuerConfig, spentStore: EpochStore) {
    this.#composition = composition;
    this.#issuer = issuer;
    this.#ca = issuer.caFile === undefined ? undefined : readCa(issuer.caFile);
    this.#spentStore = spentStore;
    this.ring = createKeyRing({ records: [], clock: composition.clock });
  }

  /** @throws `TOKEN_KEY_STORE_INVALID` where what was kept is damaged */
  async load(folder: string): Promise<void> {
    this.#folder = folder;
    await readKept(join(folder, LOG_FILE), (text) => {
      this.#log = parseKnownLog(text);
    });
    await readKept(join(folder, FILE), (text) => {
      const kept = JSON.parse(text) as readonly SeenKey[];
      this.#believe(new Map(kept.map((key) => [key.tokenKey, key])));
    });
  }

  /** @returns what failed, or undefined */
  async refresh(): Promise<Error | undefined> {
    const unseen = await failureOf(async () => {
      this.#believe(await this.#see());
      await this.#keep();
    });
    // Also by an edge that is cut off from the issuer: what it redeems must not be dropped by others.
    const untold = await failureOf(() => this.#keepEpochs());
    return unseen ?? untold;
  }

  /** All or nothing: keys that no ring may have would spoil every later one. @throws `TOKEN_KEY_RING_INVALID` */
  #believe(seen: Map<string, SeenKey>): void {
    this.ring.replace(this.#records(seen));
    this.#seen = seen;
  }

  /** What was seen before, and what the issuer shows now. */
  async #see(): Promise<Map<string, SeenKey>> {
    const { directory, isLogged, log } = await fetchLoggedDirectory(this.#origin(), this.#log);
    const revoked = await this.#revoked(log);
    if (log !== undefined && !isLogged) {
      const message = "the directory that the issuer serves here is not the newest of its log";
      throw new StileError("TOKEN_DIRECTORY_LOG_INVALID", message);
    }
    const { tokenKeys } = parsedDirectory(directory);
    const nowMs = this.#composition.clock();
    const types = followedTypes(this.#composition.config.issuer);
    const usable = tokenKeys.filter(({ tokenType }) => types.includes(tokenType));
    if (usable.length === 0) {
      const message = "the issuer's directory has no key of a type that is redeemed here";
      throw new StileError("TOKEN_ISSUER_UNAVAILABLE", message);
    }
    const seen = new Map(this.#seen);
    for (const { notBefore, tokenKey, tokenType } of usable) {
      const text = encodeBase64Url(tokenKey);
      const firstSeenMs = seen.get(text)?.firstSeenMs ?? nowMs;
      const notBeforeMs = notBefore === undefined ? firstSeenMs : notBefore * 1_000;
      const lastSeenMs = nowMs;
      seen.set(text, { tokenKey: text, tokenType, notBeforeMs, firstSeenMs, lastSeenMs });
    }
    for (const [text, { tokenKey }] of seen) {
      if (revoked.has(this.#idOf(tokenKey))) seen.delete(text);
    }
    return seen;
  }

  #origin(): FollowedIssuer {
    const { edge } = this.#composition.config;
    return {
      url: this.#issuer.url,
      ca: this.#ca,
      name: edge?.issuerName ?? "",
      keyId: this.#issuer.logKeyId,
      crypto: this.#composition.tokenCrypto,
    };
  }

  /** Hexadecimal ids of the keys that the issuer's log revokes, now and earlier. */
  async #revoked(log: FollowedLog | undefined): Promise<ReadonlySet<string>> {
    if (log === undefined) return new Set();
    // Looked at again where a crash or a full disk comes in between.
    for (const { event } of log.entries) {
      if (event.kind === "revocation") await this.#revoke(event.tokenKeyId);
    }
    this.#log = log;
    await replaceFileDurably(join(this.#folder, LOG_FILE), encodeUtf8(encodeKnownLog(log)));
    return new Set(log.head.revoked);
  }

  async #revoke(tokenKeyId: Uint8Array): Promise<void> {
    const id = encodeHex(tokenKeyId);
    for (const [text, { tokenKey }] of this.#seen) {
      if (this.#idOf(tokenKey) === id) this.#seen.delete(text);
    }
    this.ring.remove(tokenKeyId);
    await this.#keep();
    await this.#spentStore.dropEpoch(tokenKeyId);
    this.#composition.log.write("warn", "keys.revoked", { tokenKeyId: id });
  }

  #idOf(tokenKey: string): string {
    const spki = decodeBase64Url(tokenKey, "token-key");
    return encodeHex(tokenKeyIdOf(this.#composition.tokenCrypto, spki));
  }

  /** A key counts as signing until a cache life after it was last listed, and redeems for a token's life more. */
  #records(seen: ReadonlyMap<string, SeenKey>): IssuerKeyRecord[] {
    const { config, tokenCrypto } = this.#composition;
    const { directoryMaxAgeSeconds, redeemableSeconds } = config.issuer;
    return [...seen.values()].map((key) => {
      const publicKeySpki = decodeBase64Url(key.tokenKey, "token-key");
      const publishedAtMs = Math.min(key.firstSeenMs, key.notBeforeMs);
      const retireAtMs = Math.max(key.notBeforeMs, key.lastSeenMs + directoryMaxAgeSeconds * 1_000);
      return {
        tokenType: key.tokenType ?? TOKEN_TYPE_BLIND_RSA,
        tokenKeyId: tokenKeyIdOf(tokenCrypto, publicKeySpki),
        publicKeySpki,
        publishedAtMs,
        notBeforeMs: key.notBeforeMs,
        retireAtMs,
        destroyAtMs: retireAtMs + redeemableSeconds * 1_000,
      };
    });
  }

  /**
   * Tells the store for how long each key redeems here. A key is forgotten once its epoch is gone, and not when this
   * edge's clock says that it is over: that clock may be set back.
   */
  async #keepEpochs(): Promise<void> {
    const nowMs = this.#composition.clock();
    let hasForgotten = false;
    for (const { destroyAtMs, publicKeySpki, tokenKeyId } of this.#records(this.#seen)) {
      const isKept = await this.#spentStore.keepEpoch(tokenKeyId, Math.max(0, destroyAtMs - nowMs));
      // Of a key that this edge redeems, the tokens are refused from now on: somebody else has ended it.
      if (isKept || nowMs < destroyAtMs) continue;
      this.ring.remove(tokenKeyId);
      this.#seen.delete(encodeBase64Url(publicKeySpki));
      hasForgotten = true;
    }
    if (hasForgotten) await this.#keep();
    await this.#spentStore.dropPastEpochs();
  }

  async #keep(): Promise<void> {
    const text = JSON.stringify([...this.#seen.values()]);
    await replaceFileDurably(join(this.#folder, FILE), encodeUtf8(text));
  }
}

async function failureOf(work: () => Promise<void>): Promise<Error | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** @throws `TOKEN_KEY_STORE_INVALID` where what was kept is damaged */
async function readKept(path: string, read: (text: string) => void): Promise<void> {
  try {
    read(await readFile(path, "utf8"));
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return;
    const message = "the kept keys of the issuer cannot be read";
    throw new StileError("TOKEN_KEY_STORE_INVALID", message, { cause });
  }
}

/** @throws `TOKEN_ISSUER_UNAVAILABLE` */
function parsedDirectory(bytes: Uint8Array): IssuerDirectory {
  try {
    return parseIssuerDirectory(bytes);
  } catch (cause) {
    if (!isStileError(cause)) throw cause;
    const message = `the directory of the issuer: ${cause.message}`;
    throw new StileError("TOKEN_ISSUER_UNAVAILABLE", message, { cause });
  }
}

function readCa(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const message = `configuration: edge.issuer.caFile: cannot read ${file}`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}
