/** A key of type 0xDA7A that is there before the sidecar: on a busy machine two safe primes take half a minute. */
import { join } from "node:path";
import { openKeystore } from "../../service/keystore/index.ts";
import { metadataKey } from "../tokens/metadata-fixtures.ts";

const WEEK_MS = 7 * 86_400_000;

/** Active from now on for a week. */
export async function storeMetadataKey(stateDir: string, passphrase: Uint8Array): Promise<void> {
  const keystore = await openKeystore({ dir: join(stateDir, "issuer-keys"), passphrase });
  const { privateKey, record } = metadataKey();
  const at = Date.now();
  const life = { publishedAtMs: at, notBeforeMs: at, retireAtMs: at + WEEK_MS };
  await keystore.save({ ...record, ...life, destroyAtMs: at + 2 * WEEK_MS }, privateKey);
}
