/**
 * The passphrase of a state folder, sealed to the TPM of the machine: a stolen disk does not open without this
 * TPM, nor with it under another boot chain than that of the sealing. `<stateDir>/tpm-sealed.json` is public.
 * Whoever is root on the running machine can ask the TPM, too.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { MAX_SEALED_BYTES, openTpm, responseCodeOf, type Tpm } from "../../attest/tss2/index.ts";
import { decodeBase64Url, encodeBase64Url, encodeUtf8, StileError } from "../../wire/index.ts";
import type { TpmSealingConfig } from "../config/index.ts";
import { makeFolderDurably, replaceFileDurably } from "../stores/durable-file.ts";

const FILE = "tpm-sealed.json";
const MAX_PENDING_CALLS = 4;

/** What a refusal of the TPM means here. */
const REASONS: Readonly<Record<string, string>> = {
  TPM_RC_POLICY_FAIL: "a PCR has another value than at the sealing",
  TPM_RC_INTEGRITY: "another TPM has sealed it, or the owner's seed is a new one",
};

/**
 * Seals it, in the place of what was sealed before.
 * @throws `SERVICE_CONFIG_INVALID` for a passphrase that a TPM does not take; `ATTEST_TSS_*`
 */
export async function sealPassphrase(
  stateDir: string,
  { pcrs, tcti }: TpmSealingConfig,
  passphrase: Uint8Array,
): Promise<void> {
  if (passphrase.length > MAX_SEALED_BYTES) {
    const message = `a TPM seals at most ${MAX_SEALED_BYTES} bytes: choose a shorter passphrase`;
    throw new StileError("SERVICE_CONFIG_INVALID", message);
  }
  const sorted = ascending(pcrs);
  const sealed = await withTpm(tcti, (tpm) => tpm.seal(passphrase, sorted));
  const file = {
    version: 1,
    pcrs: sorted,
    publicArea: encodeBase64Url(sealed.publicArea),
    privateArea: encodeBase64Url(sealed.privateArea),
  };
  await makeFolderDurably(stateDir);
  await replaceFileDurably(join(stateDir, FILE), encodeUtf8(`${JSON.stringify(file)}\n`));
}

/** @throws `TOKEN_KEY_STORE_INVALID` where the TPM does not give it back; `ATTEST_TSS_*` without a TPM */
export async function unsealPassphrase(
  stateDir: string,
  { pcrs, tcti }: TpmSealingConfig,
): Promise<Uint8Array> {
  const file = await readSealed(stateDir);
  // The policy within counts; this is for whoever has changed the setting and wonders.
  if (String(file.pcrs) !== String(ascending(pcrs))) {
    throw refused("it was sealed to other PCRs than tpmSealing.pcrs: run stile seal again");
  }
  const sealed = {
    publicArea: decodeBase64Url(file.publicArea, "publicArea"),
    privateArea: decodeBase64Url(file.privateArea, "privateArea"),
  };
  try {
    return await withTpm(tcti, (tpm) => tpm.unseal(sealed, file.pcrs));
  } catch (cause) {
    const reason = REASONS[responseCodeOf(cause)?.name ?? ""];
    if (reason === undefined) throw cause;
    throw refused(reason, cause);
  }
}

interface SealedFile {
  readonly pcrs: readonly number[];
  readonly publicArea: string;
  readonly privateArea: string;
}

async function readSealed(stateDir: string): Promise<SealedFile> {
  try {
    const file: unknown = JSON.parse(await readFile(join(stateDir, FILE), "utf8"));
    if (isSealedFile(file)) return file;
  } catch (cause) {
    throw refused(`${FILE} in the stateDir cannot be read: run stile seal`, cause);
  }
  throw refused(`${FILE} in the stateDir is damaged: run stile seal`);
}

function isSealedFile(value: unknown): value is SealedFile {
  if (typeof value !== "object" || value === null) return false;
  const { pcrs, privateArea, publicArea, version } = value as Readonly<Record<string, unknown>>;
  const isText = typeof publicArea === "string" && typeof privateArea === "string";
  return version === 1 && isText && Array.isArray(pcrs) && pcrs.every(Number.isInteger);
}

async function withTpm<T>(tcti: string, work: (tpm: Tpm) => Promise<T>): Promise<T> {
  const tpm = await openTpm({ tcti, maxPendingCalls: MAX_PENDING_CALLS });
  try {
    return await work(tpm);
  } finally {
    await tpm.close();
  }
}

const ascending = (pcrs: readonly number[]): number[] => pcrs.toSorted((a, b) => a - b);

function refused(reason: string, cause?: unknown): StileError {
  return new StileError("TOKEN_KEY_STORE_INVALID", `the sealed passphrase: ${reason}`, { cause });
}
