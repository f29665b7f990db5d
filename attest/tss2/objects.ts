/**
 * Keys of a TPM: primaries, persistent handles and what they do (TPM 2.0 Part 3: CreatePrimary,
 * ReadPublic, EvictControl, FlushContext, ActivateCredential, Quote, Certify, Sign).
 * Authorisations are empty passwords; hierarchies may have one of their own.
 */
import { Reader, Writer } from "../../wire/index.ts";
import {
  ESYS_TR_NONE,
  ESYS_TR_PASSWORD,
  HIERARCHIES,
  type Hierarchy,
  TPM_ALG_NULL,
  TPM_ALG_SHA256,
  TPM_RH_NULL,
  TPM_SE_POLICY,
  TPM_ST_HASHCHECK,
  TRANSIENT_FIRST,
} from "./constants.ts";
import {
  earlierContextError,
  type EsysConnection,
  type EsysTurn,
  input,
  numberOutput,
  output,
  responseCodeOf,
} from "./esys.ts";

const NONE = [ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE] as const;
const PASSWORD = [ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE] as const;

/** A key that is loaded in the TPM or persistent there. It dies with the connection's context. */
export interface TpmKey {
  /** ESYS_TR, a number of this process only. */
  readonly esysTr: number;
  /** The context that `esysTr` belongs to. */
  readonly generation: number;
  /** TPM2B_PUBLIC. */
  readonly publicArea: Uint8Array;
  /** nameAlg || digest, as the TPM computed it. */
  readonly name: Uint8Array;
}

/** What TPM2_Quote and TPM2_Certify answer. */
export interface Attestation {
  /** TPMS_ATTEST, without a size field. */
  readonly attest: Uint8Array;
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array;
}

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
    activateCredential: (ek, ak, credentialBlob, encryptedSecret) =>
      turn((esys) => activateCredential(esys, ek, ak, credentialBlob, encryptedSecret)),
    quote: (ak, qualifyingData, pcrSelection) =>
      turn((esys) => quote(esys, ak, qualifyingData, pcrSelection)),
    certify: (key, ak, qualifyingData) => turn((esys) => certify(esys, key, ak, qualifyingData)),
    sign: (key, digest) => turn((esys) => sign(esys, key, digest)),
  };
}

/** @throws `ATTEST_TSS_FAILED` for a key of an earlier context */
function handleOf(esys: EsysTurn, key: TpmKey): number {
  if (key.generation === esys.generation) return key.esysTr;
  throw earlierContextError();
}

async function createPrimary(
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
  };
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
  return { esysTr: tr.value, generation: esys.generation, publicArea, name };
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
  return { ...key, esysTr };
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

async function flushTr(esys: EsysTurn, tr: number): Promise<void> {
  if (isTransient(await tpmHandle(esys, tr))) await esys.call("Esys_FlushContext", tr);
  else await esys.call("Esys_TR_Close", numberOutput(tr));
}

/** TPM 2.0 Part 3 TPM2_ActivateCredential: the AK by its (empty) auth, the EK by its policy. */
async function activateCredential(
  esys: EsysTurn,
  ek: TpmKey,
  ak: TpmKey,
  credentialBlob: Uint8Array,
  encryptedSecret: Uint8Array,
): Promise<Uint8Array> {
  const akTr = handleOf(esys, ak);
  const ekTr = handleOf(esys, ek);
  const session = await startPolicySession(esys);
  const secret = output("TPM2B_DIGEST");
  try {
    await policySecret(esys, "endorsement", session);
    await esys.call(
      "Esys_ActivateCredential",
      akTr,
      ekTr,
      ESYS_TR_PASSWORD,
      session,
      ESYS_TR_NONE,
      input("TPM2B_ID_OBJECT", credentialBlob),
      input("TPM2B_ENCRYPTED_SECRET", encryptedSecret),
      secret,
    );
  } catch (error) {
    // The TPM ends the session itself only after success; its few slots must not be used up.
    await esys.call("Esys_FlushContext", session).catch(() => undefined);
    throw error;
  }
  return fromTpm2b("TPM2B_DIGEST", secret.wire);
}

async function startPolicySession(esys: EsysTurn): Promise<number> {
  const session = numberOutput();
  await esys.call(
    "Esys_StartAuthSession",
    ESYS_TR_NONE,
    ESYS_TR_NONE,
    ...NONE,
    null,
    TPM_SE_POLICY,
    input("TPMT_SYM_DEF", new Writer().u16(TPM_ALG_NULL).finish()),
    TPM_ALG_SHA256,
    session,
  );
  return session.value;
}

async function policySecret(esys: EsysTurn, hierarchy: Hierarchy, session: number): Promise<void> {
  const tr = HIERARCHIES[hierarchy];
  const discarded = [output("discarded"), output("discarded")] as const;
  await esys.call("Esys_PolicySecret", tr, session, ...PASSWORD, null, null, null, 0, ...discarded);
}

async function quote(
  esys: EsysTurn,
  ak: TpmKey,
  qualifyingData: Uint8Array,
  pcrSelection: Uint8Array,
): Promise<Attestation> {
  const attest = output("TPM2B_ATTEST");
  const signature = output("TPMT_SIGNATURE");
  await esys.call(
    "Esys_Quote",
    handleOf(esys, ak),
    ...PASSWORD,
    input("TPM2B_DATA", tpm2b(qualifyingData)),
    input("TPMT_SIG_SCHEME", OWN_SCHEME),
    input("TPML_PCR_SELECTION", pcrSelection),
    attest,
    signature,
  );
  return { attest: fromTpm2b("TPM2B_ATTEST", attest.wire), signature: signature.wire };
}

async function certify(
  esys: EsysTurn,
  key: TpmKey,
  ak: TpmKey,
  qualifyingData: Uint8Array,
): Promise<Attestation> {
  const attest = output("TPM2B_ATTEST");
  const signature = output("TPMT_SIGNATURE");
  await esys.call(
    "Esys_Certify",
    handleOf(esys, key),
    handleOf(esys, ak),
    ESYS_TR_PASSWORD,
    ESYS_TR_PASSWORD,
    ESYS_TR_NONE,
    input("TPM2B_DATA", tpm2b(qualifyingData)),
    input("TPMT_SIG_SCHEME", OWN_SCHEME),
    attest,
    signature,
  );
  return { attest: fromTpm2b("TPM2B_ATTEST", attest.wire), signature: signature.wire };
}

async function sign(esys: EsysTurn, key: TpmKey, digest: Uint8Array): Promise<Uint8Array> {
  const signature = output("TPMT_SIGNATURE");
  const noTicket = new Writer().u16(TPM_ST_HASHCHECK).u32(TPM_RH_NULL).u16(0).finish();
  await esys.call(
    "Esys_Sign",
    handleOf(esys, key),
    ...PASSWORD,
    input("TPM2B_DIGEST", tpm2b(digest)),
    input("TPMT_SIG_SCHEME", OWN_SCHEME),
    input("TPMT_TK_HASHCHECK", noTicket),
    signature,
  );
  return signature.wire;
}

/** TPMT_SIG_SCHEME TPM_ALG_NULL: the scheme that the key's public area states. */
const OWN_SCHEME: Uint8Array = new Writer().u16(TPM_ALG_NULL).finish();

function tpm2b(bytes: Uint8Array): Uint8Array {
  return new Writer().vec16(bytes).finish();
}

function fromTpm2b(structure: string, wire: Uint8Array): Uint8Array {
  const reader = new Reader(wire, structure);
  const bytes = reader.vec16("buffer", 0, 0xffff);
  reader.end();
  return bytes;
}
