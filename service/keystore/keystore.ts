/**
 * Private keys that have a life of their own, of issuers and of clearances, at rest: `<dir>/<token key id>.json`, each sealed (sealer.ts) with its public
 * record as associated data, so that nobody without the passphrase prolongs a key's life or gives one
 * key another's instants.
 *
 * `load` is all or nothing. One file that does not open could be damage, a wrong passphrase or an
 * attack, and going on without it is not safe in any of the three: the directory would change for
 * all clients, honest tokens of the missing key would be refused, and who can spoil one file of many
 * would choose which key signs. The operator decides: restore the file, or remove it by name.
 */
import { createHash, type KeyObject } from "node:crypto";
import { join } from "node:path";
import type { IssuerKeyRecord } from "../../tokens/index.ts";
import type { VoprfEnginePreference } from "../../tokens/voprf/index.ts";
import {
  constantTimeEqual,
  decodeBase64Url,
  decodeHex,
  encodeBase64Url,
  encodeHex,
} from "../../wire/index.ts";
import {
  makeFolderDurably,
  removeFileDurably,
  replaceFileDurably,
} from "../stores/durable-file.ts";
import { createKeyMaterial, es256Material, type KeyMaterial } from "./key-material.ts";
import { invalidFile, type SealMetadata } from "./sealed-file.ts";
import { listSealedFiles, readSealedFile, SEALED_SUFFIX } from "./sealed-folder.ts";
import { asSealer, type Sealer } from "./sealer.ts";

export interface StoredKey {
  readonly record: IssuerKeyRecord;
  readonly privateKey: KeyObject;
}

export interface Keystore {
  /**
   * All keys, in the order of their ids.
   * @throws `TOKEN_KEY_STORE_INVALID` where any file cannot be read, opened or believed
   */
  load(): Promise<readonly StoredKey[]>;
  /**
   * Writes or replaces a key. It is on disk when this returns; a crash leaves the old file or the new.
   * @throws RangeError where the private key is not that of the record
   */
  save(record: IssuerKeyRecord, privateKey: KeyObject): Promise<void>;
  /**
   * Deletes a key's file. Absence is no error. A disk may keep old blocks: what is left there is
   * ciphertext, and as secret as the passphrase.
   */
  remove(tokenKeyId: Uint8Array): Promise<void>;
}

export interface KeystoreOptions {
  /** Created, for its owner alone, where it is missing. */
  readonly dir: string;
  /** Of 8 bytes or more; copied. */
  readonly passphrase: Uint8Array | Sealer;
  /** For keys of the private token types. Default `native`. */
  readonly voprfEngine?: VoprfEnginePreference;
  /** Default: keys of an issuer. */
  readonly kind?: KeyKind;
}

/** What the keys of a store are. */
export interface KeyKind {
  /** A file does not open as one of another kind. */
  readonly purpose: string;
  readonly material: KeyMaterial;
}

export const CLEARANCE_KEYS: KeyKind = { purpose: "stile clearance key", material: es256Material };

const TOKEN_KEY_ID_HEX = /^[0-9a-f]{64}$/;

/**
 * @throws `TOKEN_KEY_STORE_INVALID` where the passphrase does not open what is there; RangeError for a
 * short one; errors of the file system where `dir` cannot be made
 */
export async function openKeystore(options: KeystoreOptions): Promise<Keystore> {
  const { dir, passphrase, voprfEngine = "native" } = options;
  const kind = options.kind ?? {
    purpose: "stile issuer key",
    material: createKeyMaterial(voprfEngine),
  };
  const { material, purpose } = kind;
  const sealer = asSealer(passphrase);
  await makeFolderDurably(dir);
  const [first] = await listSealedFiles(dir, TOKEN_KEY_ID_HEX);
  // A mistyped passphrase must not seal keys that nobody can open later.
  if (first !== undefined) await loadKey(sealer, kind, dir, first);
  const pathOf = (tokenKeyId: Uint8Array): string =>
    join(dir, encodeHex(tokenKeyId) + SEALED_SUFFIX);
  return {
    async load() {
      const names = await listSealedFiles(dir, TOKEN_KEY_ID_HEX);
      const keys: StoredKey[] = [];
      for (const name of names) keys.push(await loadKey(sealer, kind, dir, name));
      return keys;
    },
    async save(record, privateKey) {
      if (!matches(record, privateKey, material)) {
        throw new RangeError("the private key is another key's");
      }
      const secret = material.encode(privateKey);
      try {
        const file = await sealer.seal(purpose, metadataOf(record), secret);
        await replaceFileDurably(pathOf(record.tokenKeyId), file);
      } finally {
        secret.fill(0);
      }
    },
    remove: (tokenKeyId) => removeFileDurably(pathOf(tokenKeyId)),
  };
}

async function loadKey(
  sealer: Sealer,
  { material, purpose }: KeyKind,
  dir: string,
  name: string,
): Promise<StoredKey> {
  const file = await readSealedFile(dir, name);
  const { metadata, content } = await sealer.open(purpose, file);
  try {
    const record = recordOf(metadata);
    const privateKey = material.decode(record.tokenType, content);
    if (encodeHex(record.tokenKeyId) !== name) throw invalidFile("the file of another key");
    if (!matches(record, privateKey, material))
      throw invalidFile("the private key is another key's");
    return { record, privateKey };
  } catch (cause) {
    throw invalidFile("a sealed key is not what its record says", cause);
  } finally {
    content.fill(0);
  }
}

/** Type, public key and key id are those of the private key. @throws RangeError for a key of no such type */
function matches(record: IssuerKeyRecord, privateKey: KeyObject, material: KeyMaterial): boolean {
  const publicKey = material.publicKeyOf(record.tokenType, privateKey);
  const tokenKeyId = createHash("sha256").update(publicKey).digest();
  return (
    constantTimeEqual(record.publicKeySpki, publicKey) &&
    constantTimeEqual(record.tokenKeyId, tokenKeyId)
  );
}

function metadataOf(record: IssuerKeyRecord): SealMetadata {
  const { tokenType, publishedAtMs, notBeforeMs, retireAtMs, destroyAtMs } = record;
  return {
    tokenType,
    tokenKeyId: encodeHex(record.tokenKeyId),
    publicKeySpki: encodeBase64Url(record.publicKeySpki),
    publishedAtMs,
    notBeforeMs,
    retireAtMs,
    destroyAtMs,
  };
}

/** The record in metadata that the seal has verified. */
function recordOf(metadata: SealMetadata): IssuerKeyRecord {
  const record: IssuerKeyRecord = {
    tokenType: Number(metadata["tokenType"]),
    tokenKeyId: decodeHex(String(metadata["tokenKeyId"]), "tokenKeyId"),
    publicKeySpki: decodeBase64Url(String(metadata["publicKeySpki"]), "publicKeySpki"),
    publishedAtMs: Number(metadata["publishedAtMs"]),
    notBeforeMs: Number(metadata["notBeforeMs"]),
    retireAtMs: Number(metadata["retireAtMs"]),
    destroyAtMs: Number(metadata["destroyAtMs"]),
  };
  if (JSON.stringify(metadataOf(record)) !== JSON.stringify(metadata)) {
    throw invalidFile("the record has other members");
  }
  return record;
}
