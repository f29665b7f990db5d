/**
 * The files of a folder of sealed files. Whatever ends in `.json` must be one of them; other names
 * (half-written files of a crash, an operator's notes) are left alone.
 */
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { invalidFile, MAX_SEALED_FILE_BYTES } from "./sealed-file.ts";

export const SEALED_SUFFIX = ".json";

/**
 * Names without the suffix, sorted.
 * @throws `TOKEN_KEY_STORE_INVALID` for a name that has another form
 */
export async function listSealedFiles(dir: string, form: RegExp): Promise<readonly string[]> {
  let entries: readonly string[];
  try {
    entries = await readdir(dir);
  } catch (cause) {
    throw invalidFile("the folder cannot be read", cause);
  }
  const files = entries.filter((entry) => entry.endsWith(SEALED_SUFFIX));
  const names = files.map((file) => file.slice(0, -SEALED_SUFFIX.length));
  if (!names.every((name) => form.test(name))) throw invalidFile("a file has no name of a key");
  return names.sort();
}

/** @throws `TOKEN_KEY_STORE_INVALID` where the file is missing, too large or cannot be read */
export async function readSealedFile(dir: string, name: string): Promise<Uint8Array> {
  try {
    const handle = await open(join(dir, name + SEALED_SUFFIX), "r");
    try {
      const { size } = await handle.stat();
      if (size > MAX_SEALED_FILE_BYTES) throw invalidFile("the file is too large");
      return await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (cause) {
    throw invalidFile("a file cannot be read", cause);
  }
}
