/**
 * Seals small secrets under a passphrase: scrypt (RFC 7914) makes a key-encryption key, AES-256-GCM
 * (NIST SP 800-38D) with a random 96-bit IV encrypts, and the header is associated data.
 * One salt serves all files of a store, so that a start derives once and not for each key; a key that
 * seals some dozens of files is far from the 2^32 random IVs that GCM allows.
 * It cannot see that a whole file was replaced by an older one of its own: that needs a counter
 * outside of the disk.
 */
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  type KeyObject,
  randomBytes,
  scrypt,
} from "node:crypto";
import { promisify } from "node:util";
import {
  encodeSealedFile,
  encodeSealHeader,
  invalidFile,
  newSealKdf,
  parseSealedFile,
  type SealHeader,
  type SealKdf,
  type SealMetadata,
} from "./sealed-file.ts";

const KEY_BYTES = 32;
const IV_BYTES = 12;
const SALT_BYTES = 16;
const TAG_BYTES = 16;
const MIN_PASSPHRASE_BYTES = 8;
/** Files from other stores may have been copied in, each with a salt that costs 0.4 s to use. */
const MAX_SALTS = 4;

export interface OpenedSeal {
  /** Verified, as is the content. */
  readonly metadata: SealMetadata;
  /** Secret: the caller overwrites it after use. */
  readonly content: Uint8Array;
}

const deriveKey: (
  passphrase: Uint8Array,
  salt: Uint8Array,
  length: number,
  options: { N: number; r: number; p: number; maxmem: number },
) => Promise<Buffer> = promisify(scrypt);

export class Sealer {
  readonly #passphrase: Uint8Array;
  readonly #keys = new Map<string, Promise<KeyObject>>();
  /** Of the first file that was opened, else of the first that is sealed. */
  #kdf: SealKdf | undefined;

  /** @throws RangeError for a passphrase of fewer than 8 bytes */
  constructor(passphrase: Uint8Array) {
    if (passphrase.length < MIN_PASSPHRASE_BYTES) {
      throw new RangeError(`the passphrase is shorter than ${MIN_PASSPHRASE_BYTES} bytes`);
    }
    this.#passphrase = Uint8Array.from(passphrase);
  }

  /** A file for `content`, with `metadata` readable beside it. */
  async seal(purpose: string, metadata: SealMetadata, content: Uint8Array): Promise<Uint8Array> {
    this.#kdf ??= newSealKdf(randomBytes(SALT_BYTES).toString("hex"));
    const header: SealHeader = {
      version: 1,
      purpose,
      kdf: this.#kdf,
      metadata,
      cipher: "aes-256-gcm",
    };
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv("aes-256-gcm", await this.#keyFor(header.kdf), iv);
    cipher.setAAD(encodeSealHeader(header));
    const ciphertext = Buffer.concat([cipher.update(content), cipher.final()]);
    return encodeSealedFile({
      header,
      iv: iv.toString("hex"),
      ciphertext: ciphertext.toString("hex"),
      tag: cipher.getAuthTag().toString("hex"),
    });
  }

  /** @throws `TOKEN_KEY_STORE_INVALID` for a wrong passphrase, and for any file not sealed here */
  async open(purpose: string, bytes: Uint8Array): Promise<OpenedSeal> {
    const { header, iv, ciphertext, tag } = parseSealedFile(bytes);
    if (header.purpose !== purpose) throw invalidFile("sealed for another purpose");
    const key = await this.#keyFor(header.kdf);
    const decipher = createDecipheriv("aes-256-gcm", key, Buffer.from(iv, "hex"), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(encodeSealHeader(header));
    decipher.setAuthTag(Buffer.from(tag, "hex"));
    const content = decipher.update(Buffer.from(ciphertext, "hex"));
    try {
      decipher.final();
    } catch (cause) {
      content.fill(0);
      throw invalidFile("wrong passphrase, or the file was changed", cause);
    }
    this.#kdf ??= header.kdf;
    return { metadata: header.metadata, content };
  }

  #keyFor({ n, r, p, salt }: SealKdf): Promise<KeyObject> {
    const name = `${n} ${salt}`;
    const known = this.#keys.get(name);
    if (known !== undefined) return known;
    if (this.#keys.size >= MAX_SALTS) {
      return Promise.reject(invalidFile("the files come from too many stores"));
    }
    // scrypt needs 128 * N * r bytes; Node's default bound is a quarter of that.
    const options = { N: n, r, p, maxmem: 2 * 128 * n * r };
    const derive = async (): Promise<KeyObject> => {
      const bytes = await deriveKey(this.#passphrase, Buffer.from(salt, "hex"), KEY_BYTES, options);
      const key = createSecretKey(bytes);
      bytes.fill(0);
      return key;
    };
    const key = derive();
    this.#keys.set(name, key);
    return key;
  }
}

/** Stores that are given one sealer pay for one key derivation, some 0.4 s, between them. */
export function asSealer(passphrase: Uint8Array | Sealer): Sealer {
  return passphrase instanceof Sealer ? passphrase : new Sealer(passphrase);
}
