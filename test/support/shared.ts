/**
 * The reference data (vectors and captured evidence) that lies beside the repository.
 * On a user's machine it is absent and the tests that read it are skipped; in CI that is a failure.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const sharedDir: string = join(import.meta.dirname, "..", "..", "..", "shared");

/** For `describe.skipIf(sharedMissing)`. Never true in CI: the global set-up fails there first. */
export const sharedMissing: boolean = !existsSync(sharedDir);

export function readShared(path: string): Uint8Array {
  return new Uint8Array(readFileSync(join(sharedDir, path)));
}

export function readSharedJson(path: string): unknown {
  return JSON.parse(readFileSync(join(sharedDir, path), "utf8"));
}
