/**
 * What the page keeps in this browser, in IndexedDB: unspent tokens and the device key. A token is read and
 * deleted in one transaction, which IndexedDB runs one after another for all tabs, so none is handed out twice.
 */

export interface StoredToken {
  /** SHA-256 of the challenge, hexadecimal. */
  readonly challengeDigest: string;
  readonly token: Uint8Array;
  /** What is presented with it. */
  readonly extensions?: Uint8Array | undefined;
  /** Unix milliseconds. */
  readonly expiresAtMs: number;
}

export interface StoredDevice {
  /** ES256; the private key cannot be exported. */
  readonly keyPair: CryptoKeyPair;
  /** Base64url; undefined until the device has registered. */
  readonly credentialId?: string | undefined;
  /** The last attestation result, while it lives. */
  readonly result?: { readonly jwt: string; readonly expiresAtMs: number } | undefined;
}

export interface PageStore {
  readonly putTokens: (tokens: readonly StoredToken[]) => Promise<void>;
  /** Takes one out for good; undefined where there is none that is good at this instant. */
  readonly takeToken: (challengeDigest: string, nowMs: number) => Promise<StoredToken | undefined>;
  readonly countTokens: (challengeDigest: string) => Promise<number>;
  readonly device: () => Promise<StoredDevice | undefined>;
  readonly putDevice: (device: StoredDevice) => Promise<void>;
  /** Forgets everything that this site keeps here. */
  readonly clear: () => Promise<void>;
}

const DATABASE = "stile";
const VERSION = 1;
const TOKENS = "tokens";
const DEVICE = "device";
const BY_DIGEST = "challengeDigest";
const ONLY = "only";

export async function openPageStore(): Promise<PageStore> {
  const database = await openDatabase();
  const within = <T>(
    store: string,
    mode: IDBTransactionMode,
    work: (store: IDBObjectStore, done: (value: T) => void) => void,
  ): Promise<T> => transact(database, store, mode, work);
  return {
    putTokens: (tokens) =>
      within<void>(TOKENS, "readwrite", (store) => {
        for (const token of tokens) store.add(token);
      }),
    takeToken: (challengeDigest, nowMs) =>
      within<StoredToken | undefined>(TOKENS, "readwrite", (store, done) => {
        const cursor = store.index(BY_DIGEST).openCursor(IDBKeyRange.only(challengeDigest));
        cursor.onsuccess = () => {
          const found = cursor.result;
          if (found === null) return;
          const token = found.value as StoredToken;
          found.delete();
          if (token.expiresAtMs > nowMs) done(token);
          else found.continue();
        };
      }),
    countTokens: (challengeDigest) =>
      within<number>(TOKENS, "readonly", (store, done) => {
        const count = store.index(BY_DIGEST).count(IDBKeyRange.only(challengeDigest));
        count.onsuccess = () => done(count.result);
      }),
    device: () =>
      within<StoredDevice | undefined>(DEVICE, "readonly", (store, done) => {
        const found = store.get(ONLY);
        found.onsuccess = () => done(found.result as StoredDevice | undefined);
      }),
    putDevice: (device) =>
      within<void>(DEVICE, "readwrite", (store) => {
        store.put(device, ONLY);
      }),
    clear: async () => {
      for (const name of [TOKENS, DEVICE]) {
        await within<void>(name, "readwrite", (store) => {
          store.clear();
        });
      }
    },
  };
}

function openDatabase(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, VERSION);
    opening.onupgradeneeded = () => {
      opening.result
        .createObjectStore(TOKENS, { autoIncrement: true })
        .createIndex(BY_DIGEST, BY_DIGEST);
      opening.result.createObjectStore(DEVICE);
    };
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error ?? new Error("IndexedDB cannot be opened"));
  });
}

/** Resolves when the transaction is complete: what was deleted then stays deleted. */
function transact<T>(
  database: IDBDatabase,
  name: string,
  mode: IDBTransactionMode,
  work: (store: IDBObjectStore, done: (value: T) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(name, mode, { durability: "strict" });
    let value: T | undefined;
    work(transaction.objectStore(name), (given) => {
      value = given;
    });
    transaction.oncomplete = () => resolve(value as T);
    transaction.onabort = () => reject(transaction.error ?? new Error("IndexedDB gave up"));
  });
}
