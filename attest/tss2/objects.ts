/**
 * Keys of a TPM: primaries, persistent handles and what they do (TPM 2.0 Part 3: CreatePrimary,
 * ReadPublic, EvictControl, FlushContext, ActivateCredential, Quote, Certify, Sign).
 * Authorisations are empty passwords; hierarchies may have one of their own.
 */
import { Writer } from "../../wire/index.ts";
import { activateCredential } from "./activation.ts";
import {
  ESYS_TR_NONE,
  ESYS_TR_PASSWORD,
  HIERARCHIES,
  type Hierarchy,
  TRANSIENT_FIRST,
} from "./constants.ts";
import {
  type EsysConnection,
  type EsysTurn,
  input,
  numberOutput,
  output,
  responseCodeOf,
} from "./esys.ts";
import { fromTpm2b, handleOf, tpm2b, type TpmKey, type TpmSavedKey } from "./key.ts";
import { type Attestation, certify, quote, sign } from "./signing.ts";

const NONE = [ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE] as const;
const PASSWORD = [ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE] as const;

/** What a Tpm does with keys. Every method may throw `ATTEST_TSS_FAILED` and `ATTEST_TSS_BUSY`. */
export interface TpmObjects {
  /** @param template TPM2B_PUBLIC. */
  createPrimary(hierarchy: Hierarchy, template: Uint8Array): Promise<TpmKey>;
  /** The object at a persistent or transient TPM handle, or undefined where there is none. */
  loadHandle(handle: number): Promise<TpmKey | undefined>;
  /** @returns the public area as the TPM has it now: TPM2B_PUBLIC. */
  readPublic(key: TpmKey): Promise<Uint8Array>;
  /** Makes a loaded key persistent. @param handle 0x81xxxxxx. */
  makePersistent(key: TpmKey, handle: number, hierarchy?: "owner" | "platform"): Promise<TpmKey>;
  /** Removes a persistent object. */
  evict(key: TpmKey, hierarchy?: "owner" | "platform"): Promise<void>;
  /** Unloads a transient key; a persistent one only leaves the table of this process. */
  flush(key: TpmKey): Promise<void>;
  /** Writes a transient key out; it stays loaded. */
  saveContext(key: TpmKey): Promise<TpmSavedKey>;
  /** Loads a saved key, or undefined where the TPM does not take it back: it was reset since. */
  loadContext(saved: TpmSavedKey): Promise<TpmKey | undefined>;
  /** Unloads every transient object of the TPM: only for a TPM that nothing else uses. */
  flushTransientObjects(handles: readonly number[]): Promise<void>;
  /**
   * Decrypts a credential with an EK whose policy is PolicySecret(endorsement), as in the TCG's L
   * templates (TCG EK Credential Profile §B).
   * @param credentialBlob TPM2B_ID_OBJECT; hostile, it comes from the attester
   * @param encryptedSecret TPM2B_ENCRYPTED_SECRET; hostile
   */
  activateCredential(
    ek: TpmKey,
    ak: TpmKey,
    credentialBlob: Uint8Array,
    encryptedSecret: Uint8Array,
  ): Promise<Uint8Array>;
  /** @param pcrSelection TPML_PCR_SELECTION; the scheme is the key's own. */
  quote(ak: TpmKey, qualifyingData: Uint8Array, pcrSelection: Uint8Array): Promise<Attestation>;
  certify(key: TpmKey, ak: TpmKey, qualifyingData: Uint8Array): Promise<Attestation>;
  /** Signs a digest with an unrestricted key and its own scheme. @returns TPMT_SIGNATURE */
  sign(key: TpmKey, digest: Uint8Array): Promise<Uint8Array>;
}

export function createTpmObjects(connection: EsysConnection): TpmObjects {
  const turn: EsysConnection["turn"] = (work) => connection.turn(work);
  return {
    createPrimary: (hierarchy, template) =>
      turn((esys) => createPrimary(esys, hierarchy, template)),
    loadHandle: (handle) => turn((esys) => loadHandle(esys, handle)),
    readPublic: (key) =>
      turn(async (esys) => (await readPublic(esys, handleOf(esys, key))).publicArea),
    makePersistent: (key, handle, hierarchy = "owner") =>
      turn((esys) => makePersistent(esys, key, handle, hierarchy)),
    evict: (key, hierarchy = "owner") =>
      turn(async (esys) => {
        const persistent = await persistentHandle(esys, key);
        await evictControl(esys, handleOf(esys, key), persistent, hierarchy);
      }),
    flush: (key) =>
      turn(async (esys) => {
        // A key of an earlier context is gone with it: there is nothing left to unload.
        if (key.generation === esys.generation) await flushTr(esys, key.esysTr);
      }),
    flushTransientObjects: (handles) =>
      turn(async (esys) => {
        for (const handle of handles) {
          const key = await loadHandle(esys, handle);
          if (key !== undefined) await flushTr(esys, key.esysTr);
        }
      }),
    saveContext: (key) => turn((esys) => saveContext(esys, key)),
    loadContext: (saved) => turn((esys) => loadContext(esys, saved)),
    activateCredential: (ek, ak, credentialBlob, encryptedSecret) =>
      turn((esys) => activateCredential(esys, ek, ak, credentialBlob, encryptedSecret)),
    quote: (ak, qualifyingData, pcrSelection) =>
      turn((esys) => quote(esys, ak, qualifyingData, pcrSelection)),
    certify: (key, ak, qualifyingData) => turn((esys) => certify(esys, key, ak, qualifyingData)),
    sign: (key, digest) => turn((esys) => sign(esys, key, digest)),
  };
}

export async function createPrimary(
  esys: EsysTurn,
  hierarchy: Hierarchy,
  template: Uint8Array,
): Promise<TpmKey> {
  const handle = numberOutput();
  const publicArea = output("TPM2B_PUBLIC");
  const noSensitive = new Writer().vec16(new Writer().u16(0).u16(0).finish()).finish();
  await esys.call(
    "Esys_CreatePrimary",
    HIERARCHIES[hierarchy],
    ...PASSWORD,
    input("TPM2B_SENSITIVE_CREATE", noSensitive),
    input("TPM2B_PUBLIC", template),
    input("TPM2B_DATA", tpm2b(new Uint8Array())),
    input("TPML_PCR_SELECTION", new Writer().u32(0).finish()),
    handle,
    publicArea,
    output("discarded"),
    output("discarded"),
    output("discarded"),
  );
  const name = output("TPM2B_NAME");
  await esys.call("Esys_TR_GetName", handle.value, name);
  return {
    esysTr: handle.value,
    generation: esys.generation,
    publicArea: publicArea.wire,
    name: fromTpm2b("TPM2B_NAME", name.wire),
    isPersistent: false,
  };
}

async function saveContext(esys: EsysTurn, key: TpmKey): Promise<TpmSavedKey> {
  const context = output("TPMS_CONTEXT");
  await esys.call("Esys_ContextSave", handleOf(esys, key), context);
  return { publicArea: key.publicArea, name: key.name, context: context.wire };
}

async function loadContext(esys: EsysTurn, saved: TpmSavedKey): Promise<TpmKey | undefined> {
  const tr = numberOutput();
  try {
    await esys.call("Esys_ContextLoad", input("TPMS_CONTEXT", saved.context), tr);
  } catch (error) {
    // TPM2_ContextLoad (Part 3 §28.3) answers a context of before a reset with one of these.
    const name = responseCodeOf(error)?.name;
    if (name === "TPM_RC_INTEGRITY" || name === "TPM_RC_HANDLE") return undefined;
    throw error;
  }
  const { publicArea, name } = saved;
  const { generation } = esys;
  return { esysTr: tr.value, generation, publicArea, name, isPersistent: false };
}

async function loadHandle(esys: EsysTurn, handle: number): Promise<TpmKey | undefined> {
  const tr = numberOutput();
  try {
    await esys.call("Esys_TR_FromTPMPublic", handle, ...NONE, tr);
  } catch (error) {
    const name = responseCodeOf(error)?.name;
    if (name === "TPM_RC_HANDLE" || name === "TPM_RC_REFERENCE_H0") return undefined;
    throw error;
  }
  const { publicArea, name } = await readPublic(esys, tr.value);
  const isPersistent = !isTransient(handle);
  return { esysTr: tr.value, generation: esys.generation, publicArea, name, isPersistent };
}

async function readPublic(
  esys: EsysTurn,
  tr: number,
): Promise<Pick<TpmKey, "publicArea" | "name">> {
  const publicArea = output("TPM2B_PUBLIC");
  const name = output("TPM2B_NAME");
  await esys.call("Esys_ReadPublic", tr, ...NONE, publicArea, name, output("discarded"));
  return { publicArea: publicArea.wire, name: fromTpm2b("TPM2B_NAME", name.wire) };
}

async function makePersistent(
  esys: EsysTurn,
  key: TpmKey,
  handle: number,
  hierarchy: "owner" | "platform",
): Promise<TpmKey> {
  const esysTr = await evictControl(esys, handleOf(esys, key), handle, hierarchy);
  return { ...key, esysTr, isPersistent: true };
}

async function evictControl(
  esys: EsysTurn,
  tr: number,
  handle: number,
  hierarchy: "owner" | "platform",
): Promise<number> {
  const created = numberOutput();
  await esys.call("Esys_EvictControl", HIERARCHIES[hierarchy], tr, ...PASSWORD, handle, created);
  return created.value;
}

/** ESYS knows which TPM handle an ESYS_TR stands for; a transient one has no business here. */
async function persistentHandle(esys: EsysTurn, key: TpmKey): Promise<number> {
  const handle = await tpmHandle(esys, handleOf(esys, key));
  if (isTransient(handle)) throw new TypeError("the key is not persistent");
  return handle;
}

async function tpmHandle(esys: EsysTurn, tr: number): Promise<number> {
  const handle = numberOutput();
  await esys.call("Esys_TR_GetTpmHandle", tr, handle);
  return handle.value;
}

function isTransient(handle: number): boolean {
  return Math.floor(handle / 0x100_0000) === TRANSIENT_FIRST / 0x100_0000;
}

export async function flushTr(esys: EsysTurn, tr: number): Promise<void> {
  if (isTransient(await tpmHandle(esys, tr))) await esys.call("Esys_FlushContext", tr);
  else await esys.call("Esys_TR_Close", numberOutput(tr));
}
