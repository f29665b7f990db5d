/**
 * Small secrets that are made once and live as long as the installation: `<dir>/<name>.json`, sealed
 * (sealer.ts) with the name as associated data. A secret that cannot be opened is an error and is
 * never made anew: a new one in its place would silently end sessions, pseudonyms and allowances.
 */
import { join } from "node:path";
import { createFileDurably, makeFolderDurably, removeFileDurably } from "../stores/durable-file.ts";
import { invalidFile } from "./sealed-file.ts";
import { listSealedFiles, readSealedFile, SEALED_SUFFIX } from "./sealed-folder.ts";
import { asSealer, type Sealer } from "./sealer.ts";

export interface Secrets {
  /**
   * The secret of this name. Where there is none, `create` makes it, and it is on disk before it is
   * given out. Of processes that start at once, one creates it and all get that one.
   * @param name of lower-case letters, digits and hyphens
   * @returns the secret in memory of the caller's own
   * @throws `TOKEN_KEY_STORE_INVALID` where the file cannot be opened; RangeError for the name, and
   * for a new secret that has not 1 to 8,192 bytes
   */
  getOrCreate(
    name: string,
    create: () => Uint8Array | Promise<Uint8Array>,
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** The secret of this name, where there is one. @throws `TOKEN_KEY_STORE_INVALID` */
  find(name: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Absence is no error. */
  remove(name: string): Promise<void>;
}

export interface SecretsOptions {
  /** Created, for its owner alone, where it is missing. */
  readonly dir: string;
  /** Of 8 bytes or more, copied; or what was made of one, shared with other stores. */
  readonly passphrase: Uint8Array | Sealer;
}

const PURPOSE = "stile secret";
const SECRET_NAME = /^[a-z0-9][a-z0-9-]{0,63}$/;
const MAX_SECRET_BYTES = 8_192;

/**
 * @throws `TOKEN_KEY_STORE_INVALID` where the passphrase does not open what is there; RangeError for a
 * short one; errors of the file system where `dir` cannot be made
 */
export async function openSecrets({ dir, passphrase }: SecretsOptions): Promise<Secrets> {
  const sealer = asSealer(passphrase);
  await makeFolderDurably(dir);
  const [first] = await listSealedFiles(dir, SECRET_NAME);
  // A mistyped passphrase must not seal secrets that nobody can open later.
  if (first !== undefined) (await readSecret(sealer, dir, first)).fill(0);
  /** One call at a time: two calls for one name must not create it twice. */
  let last: Promise<unknown> = Promise.resolve();
  return {
    async getOrCreate(name, create) {
      if (!SECRET_NAME.test(name)) throw new RangeError("not a name of a secret");
      const mine = last.then(() => getOrCreate(sealer, dir, name, create));
      last = mine.catch(() => undefined);
      return mine;
    },
    async find(name) {
      const names = await listSealedFiles(dir, SECRET_NAME);
      return names.includes(name) ? readSecret(sealer, dir, name) : undefined;
    },
    remove: (name) => removeFileDurably(join(dir, name + SEALED_SUFFIX)),
  };
}

async function getOrCreate(
  sealer: Sealer,
  dir: string,
  name: string,
  create: () => Uint8Array | Promise<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer>> {
  const names = await listSealedFiles(dir, SECRET_NAME);
  if (names.includes(name)) return readSecret(sealer, dir, name);
  const secret = Uint8Array.from(await create());
  if (secret.length < 1 || secret.length > MAX_SECRET_BYTES) {
    throw new RangeError(`a secret has 1 to ${MAX_SECRET_BYTES} bytes`);
  }
  const file = await sealer.seal(PURPOSE, { name }, secret);
  const won = await createFileDurably(join(dir, name + SEALED_SUFFIX), file);
  return won ? secret : readSecret(sealer, dir, name);
}

async function readSecret(
  sealer: Sealer,
  dir: string,
  name: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const { metadata, content } = await sealer.open(PURPOSE, await readSealedFile(dir, name));
  const secret = Uint8Array.from(content);
  content.fill(0);
  if (JSON.stringify(metadata) !== JSON.stringify({ name })) {
    throw invalidFile("the file of another secret");
  }
  return secret;
}
