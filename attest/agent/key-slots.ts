/**
 * The keys of a device, each loaded for one use. A TPM without a resource manager holds three loaded
 * objects for all its users, so between two uses a key lies outside as a saved context (TPM 2.0 Part 1
 * §30), which only this TPM can load and only until its next reset; then the key is derived again.
 */
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import { createCallQueue, type Tpm, type TpmKey, type TpmSavedKey } from "../tss2/index.ts";

/** How each key is derived or found. */
export type KeySources<Role extends string> = Readonly<Record<Role, () => Promise<TpmKey>>>;

export interface KeySlots<Role extends string> {
  /**
   * Loads the keys, does the work, unloads them. One use at a time.
   * @throws `ATTEST_TSS_BUSY`, `ATTEST_TSS_FAILED`, `ATTEST_NAME_MISMATCH` where the TPM derives
   * another key than before: it was cleared, or is another TPM
   */
  use<T, Used extends Role>(
    roles: readonly Used[],
    work: (keys: Readonly<Record<Used, TpmKey>>) => Promise<T>,
  ): Promise<T>;
}

interface Slot {
  name: Uint8Array | undefined;
  saved: TpmSavedKey | undefined;
}

/** @param maxPendingUses uses that may run or wait at once. */
export function createKeySlots<Role extends string>(
  tpm: Tpm,
  sources: KeySources<Role>,
  maxPendingUses: number,
): KeySlots<Role> {
  const queue = createCallQueue(maxPendingUses);
  const slots = new Map<Role, Slot>();

  async function load(role: Role): Promise<TpmKey> {
    const slot = slots.get(role) ?? { name: undefined, saved: undefined };
    slots.set(role, slot);
    const loaded = slot.saved === undefined ? undefined : await tpm.loadContext(slot.saved);
    if (loaded !== undefined) return loaded;
    const key = await sources[role]();
    try {
      if (slot.name !== undefined && !constantTimeEqual(slot.name, key.name)) {
        throw new StileError("ATTEST_NAME_MISMATCH", "the TPM derives another key than before");
      }
      slot.name = key.name;
      slot.saved = key.isPersistent ? undefined : await tpm.saveContext(key);
      return key;
    } catch (error) {
      await flush(tpm, key);
      throw error;
    }
  }

  return {
    use: (roles, work) =>
      queue.run(async () => {
        const keys: TpmKey[] = [];
        try {
          for (const role of roles) keys.push(await load(role));
          const entries = roles.map((role, i) => [role, keys[i]] as const);
          // One key was loaded for each role of the list.
          return await work(Object.fromEntries(entries) as Parameters<typeof work>[0]);
        } finally {
          for (const key of keys) await flush(tpm, key);
        }
      }),
  };
}

/** Clean-up must not hide the failure that it follows. */
async function flush(tpm: Tpm, key: TpmKey): Promise<void> {
  await tpm.flush(key).catch(() => undefined);
}
