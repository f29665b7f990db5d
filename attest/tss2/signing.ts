/** TPM2_Quote, TPM2_Certify and TPM2_Sign (TPM 2.0 Part 3 §18.4, §18.2, §20.2) by a key's own scheme. */
import { Writer } from "../../wire/index.ts";
import {
  ESYS_TR_NONE,
  ESYS_TR_PASSWORD,
  TPM_ALG_NULL,
  TPM_RH_NULL,
  TPM_ST_HASHCHECK,
} from "./constants.ts";
import { type EsysTurn, input, output } from "./esys.ts";
import { fromTpm2b, handleOf, tpm2b, type TpmKey } from "./key.ts";

const PASSWORD = [ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE] as const;

/** TPMT_SIG_SCHEME TPM_ALG_NULL: the scheme that the key's public area states. */
const OWN_SCHEME: Uint8Array = new Writer().u16(TPM_ALG_NULL).finish();

/** What TPM2_Quote and TPM2_Certify answer. */
export interface Attestation {
  /** TPMS_ATTEST, without a size field. */
  readonly attest: Uint8Array;
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array;
}

export async function quote(
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

export async function certify(
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

export async function sign(esys: EsysTurn, key: TpmKey, digest: Uint8Array): Promise<Uint8Array> {
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
