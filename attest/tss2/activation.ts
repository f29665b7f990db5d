/**
 * TPM2_ActivateCredential with an EK whose policy is PolicySecret(endorsement) (TPM 2.0 Part 3 §12.5;
 * TCG EK Credential Profile Annex B.2).
 */
import {
  ESYS_TR_NONE,
  ESYS_TR_PASSWORD,
  HIERARCHIES,
  type Hierarchy,
  TPM_SE_POLICY,
} from "./constants.ts";
import { type EsysTurn, input, output } from "./esys.ts";
import { fromTpm2b, handleOf, type TpmKey } from "./key.ts";
import { endSession, startSession } from "./session.ts";

const PASSWORD = [ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE] as const;

/** TPM 2.0 Part 3 TPM2_ActivateCredential: the AK by its (empty) auth, the EK by its policy. */
export async function activateCredential(
  esys: EsysTurn,
  ek: TpmKey,
  ak: TpmKey,
  credentialBlob: Uint8Array,
  encryptedSecret: Uint8Array,
): Promise<Uint8Array> {
  const akTr = handleOf(esys, ak);
  const ekTr = handleOf(esys, ek);
  const session = await startSession(esys, TPM_SE_POLICY);
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
  } finally {
    await endSession(esys, session);
  }
  return fromTpm2b("TPM2B_DIGEST", secret.wire);
}

async function policySecret(esys: EsysTurn, hierarchy: Hierarchy, session: number): Promise<void> {
  const tr = HIERARCHIES[hierarchy];
  const discarded = [output("discarded"), output("discarded")] as const;
  await esys.call("Esys_PolicySecret", tr, session, ...PASSWORD, null, null, null, 0, ...discarded);
}
