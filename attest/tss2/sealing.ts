/**
 * Sealing (TPM 2.0 Part 1 §25.3, Part 3 §12.7): a small secret that only this TPM gives back, and only while
 * its PCRs are what they were. The parent is the storage root key of the TCG's ECC template, made anew from the
 * owner's seed each time. What crosses the bus is encrypted for that key (a salted session), which keeps out
 * who only listens; an interposer that plays the TPM would need its storage key.
 */
import { Writer } from "../../wire/index.ts";
import {
  curveRow,
  hashRow,
  TPM_ALG_AES,
  TPM_ALG_CFB,
  TPM_ALG_ECC,
  TPM_ALG_SHA256,
  TPM_ECC_NIST_P256,
  TPMA_OBJECT_ADMINWITHPOLICY,
  TPMA_OBJECT_DECRYPT,
  TPMA_OBJECT_FIXEDPARENT,
  TPMA_OBJECT_FIXEDTPM,
  TPMA_OBJECT_NODA,
  TPMA_OBJECT_RESTRICTED,
  TPMA_OBJECT_SENSITIVEDATAORIGIN,
  TPMA_OBJECT_USERWITHAUTH,
} from "../structures/constants.ts";
import { encodeTpmlPcrSelection } from "../structures/pcr-selection.ts";
import { encodeTpm2bPublic } from "../structures/public.ts";
import {
  ESYS_TR_NONE,
  ESYS_TR_PASSWORD,
  TPM_ALG_NULL,
  TPM_SE_HMAC,
  TPM_SE_POLICY,
  TPM_SE_TRIAL,
} from "./constants.ts";
import { type EsysConnection, type EsysTurn, input, numberOutput, output } from "./esys.ts";
import { fromTpm2b, tpm2b } from "./key.ts";
import { createPrimary, flushTr } from "./objects.ts";
import { encryptSession, endSession, startSession } from "./session.ts";

/** MAX_SYM_DATA (Part 2 §11.1.2). */
export const MAX_SEALED_BYTES = 128;

/** Public: without the TPM it is of no use. */
export interface TpmSealed {
  /** TPM2B_PUBLIC. */
  readonly publicArea: Uint8Array;
  /** TPM2B_PRIVATE. */
  readonly privateArea: Uint8Array;
}

/** Every method may throw `ATTEST_TSS_FAILED` and `ATTEST_TSS_BUSY`. */
export interface TpmSealing {
  /**
   * @param secret 1 to {@link MAX_SEALED_BYTES} bytes
   * @param pcrs of the SHA-256 bank, with the values that they have now; one or more, ascending
   */
  seal(secret: Uint8Array, pcrs: readonly number[]): Promise<TpmSealed>;
  /**
   * @param pcrs as at the sealing
   * @throws `ATTEST_TSS_FAILED` with `TPM_RC_POLICY_FAIL` where a PCR has another value now, and with
   * `TPM_RC_INTEGRITY` where another TPM has sealed it
   */
  unseal(sealed: TpmSealed, pcrs: readonly number[]): Promise<Uint8Array>;
}

const NONE = [ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE] as const;
const PASSWORD = [ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE] as const;
const TPM_ALG_KEYEDHASH = 0x0008;

export function createTpmSealing(connection: EsysConnection): TpmSealing {
  return {
    seal: (secret, pcrs) =>
      connection.turn((esys) => withStorageKey(esys, (parent) => seal(esys, parent, secret, pcrs))),
    unseal: (sealed, pcrs) =>
      connection.turn((esys) =>
        withStorageKey(esys, (parent) => unseal(esys, parent, sealed, pcrs)),
      ),
  };
}

async function withStorageKey<T>(esys: EsysTurn, work: (parent: number) => Promise<T>): Promise<T> {
  const { esysTr } = await createPrimary(esys, "owner", storageKeyTemplate());
  try {
    return await work(esysTr);
  } finally {
    await flushTr(esys, esysTr);
  }
}

async function withSession<T>(
  esys: EsysTurn,
  type: number,
  saltKey: number,
  work: (session: number) => Promise<T>,
): Promise<T> {
  const session = await startSession(esys, type, saltKey);
  try {
    return await work(session);
  } finally {
    await endSession(esys, session);
  }
}

async function seal(
  esys: EsysTurn,
  parent: number,
  secret: Uint8Array,
  pcrs: readonly number[],
): Promise<TpmSealed> {
  if (secret.length < 1 || secret.length > MAX_SEALED_BYTES || pcrs.length === 0) {
    throw new RangeError(`expected 1 to ${MAX_SEALED_BYTES} bytes, and a PCR`);
  }
  const policy = await withSession(esys, TPM_SE_TRIAL, ESYS_TR_NONE, async (session) => {
    await policyPcr(esys, session, pcrs);
    const digest = output("TPM2B_DIGEST");
    await esys.call("Esys_PolicyGetDigest", session, ...NONE, digest);
    return fromTpm2b("TPM2B_DIGEST", digest.wire);
  });
  const sensitive = new Writer().vec16(new Writer().u16(0).vec16(secret).finish()).finish();
  const privateArea = output("TPM2B_PRIVATE");
  const publicArea = output("TPM2B_PUBLIC");
  try {
    await withSession(esys, TPM_SE_HMAC, parent, async (session) => {
      await encryptSession(esys, session, "command");
      await esys.call(
        "Esys_Create",
        parent,
        ESYS_TR_PASSWORD,
        session,
        ESYS_TR_NONE,
        input("TPM2B_SENSITIVE_CREATE", sensitive),
        input("TPM2B_PUBLIC", sealedTemplate(policy)),
        input("TPM2B_DATA", tpm2b(new Uint8Array())),
        input("TPML_PCR_SELECTION", new Writer().u32(0).finish()),
        privateArea,
        publicArea,
        output("discarded"),
        output("discarded"),
        output("discarded"),
      );
    });
  } finally {
    sensitive.fill(0);
  }
  return { publicArea: publicArea.wire, privateArea: privateArea.wire };
}

async function unseal(
  esys: EsysTurn,
  parent: number,
  sealed: TpmSealed,
  pcrs: readonly number[],
): Promise<Uint8Array> {
  const item = numberOutput();
  await esys.call(
    "Esys_Load",
    parent,
    ...PASSWORD,
    input("TPM2B_PRIVATE", sealed.privateArea),
    input("TPM2B_PUBLIC", sealed.publicArea),
    item,
  );
  try {
    return await withSession(esys, TPM_SE_POLICY, parent, async (session) => {
      await policyPcr(esys, session, pcrs);
      await encryptSession(esys, session, "response");
      const data = output("TPM2B_SENSITIVE_DATA");
      await esys.call("Esys_Unseal", item.value, session, ESYS_TR_NONE, ESYS_TR_NONE, data);
      const secret = Uint8Array.from(fromTpm2b("TPM2B_SENSITIVE_DATA", data.wire));
      data.wire.fill(0);
      return secret;
    });
  } finally {
    await flushTr(esys, item.value);
  }
}

/** The PCRs as they are now; the TPM compares, so what is told to it here proves nothing. */
async function policyPcr(esys: EsysTurn, session: number, pcrs: readonly number[]): Promise<void> {
  const selection = encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [...pcrs] }]);
  const none = input("TPM2B_DIGEST", tpm2b(new Uint8Array()));
  await esys.call("Esys_PolicyPCR", session, ...NONE, none, input("TPML_PCR_SELECTION", selection));
}

/** TCG TPM v2.0 Provisioning Guidance §7.5.1, with the parameters of the ECC EK template. */
function storageKeyTemplate(): Uint8Array {
  const nameAlg = hashRow(TPM_ALG_SHA256);
  const curve = curveRow(TPM_ECC_NIST_P256);
  if (nameAlg === undefined || curve === undefined) throw new TypeError("the tables lack a row");
  return encodeTpm2bPublic({
    type: TPM_ALG_ECC,
    nameAlg,
    objectAttributes:
      TPMA_OBJECT_FIXEDTPM |
      TPMA_OBJECT_FIXEDPARENT |
      TPMA_OBJECT_SENSITIVEDATAORIGIN |
      TPMA_OBJECT_USERWITHAUTH |
      TPMA_OBJECT_NODA |
      TPMA_OBJECT_RESTRICTED |
      TPMA_OBJECT_DECRYPT,
    authPolicy: new Uint8Array(),
    symmetric: { algorithm: TPM_ALG_AES, keyBits: 128, mode: TPM_ALG_CFB },
    scheme: undefined,
    curve,
    unique: { x: new Uint8Array(32), y: new Uint8Array(32) },
  });
}

/**
 * TPMT_PUBLIC of a sealed data object (Part 2 §12.2.4): without userWithAuth, so that the policy is the only
 * way, and without the dictionary-attack logic, since there is no password to guess.
 */
function sealedTemplate(authPolicy: Uint8Array): Uint8Array {
  const attributes =
    TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_NODA;
  const area = new Writer().u16(TPM_ALG_KEYEDHASH).u16(TPM_ALG_SHA256).u32(attributes);
  return tpm2b(area.vec16(authPolicy).u16(TPM_ALG_NULL).u16(0).finish());
}
