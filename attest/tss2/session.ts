/** Authorisation sessions (TPM 2.0 Part 1 §19, Part 3 §11.1): for policies, and to encrypt what crosses a bus. */
import { Writer } from "../../wire/index.ts";
import { TPM_ALG_AES, TPM_ALG_CFB } from "../structures/constants.ts";
import {
  ESYS_TR_NONE,
  TPM_ALG_NULL,
  TPM_ALG_SHA256,
  TPMA_SESSION_CONTINUESESSION,
  TPMA_SESSION_DECRYPT,
  TPMA_SESSION_ENCRYPT,
} from "./constants.ts";
import { type EsysTurn, input, numberOutput } from "./esys.ts";

const NONE = [ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE] as const;
const NO_ENCRYPTION = new Writer().u16(TPM_ALG_NULL).finish();
const AES_128_CFB = new Writer().u16(TPM_ALG_AES).u16(128).u16(TPM_ALG_CFB).finish();

/**
 * @param saltKey ESYS_TR of a decryption key of the TPM: the first parameters of commands and answers that use
 * the session are then encrypted under a key that whoever reads the bus does not have (Part 1 §21)
 * @returns ESYS_TR
 */
export async function startSession(
  esys: EsysTurn,
  type: number,
  saltKey: number = ESYS_TR_NONE,
): Promise<number> {
  const isEncrypted = saltKey !== ESYS_TR_NONE;
  const session = numberOutput();
  await esys.call(
    "Esys_StartAuthSession",
    saltKey,
    ESYS_TR_NONE,
    ...NONE,
    null,
    type,
    input("TPMT_SYM_DEF", isEncrypted ? AES_128_CFB : NO_ENCRYPTION),
    TPM_ALG_SHA256,
    session,
  );
  return session.value;
}

/** Says which way the next command with this session is encrypted. */
export async function encryptSession(
  esys: EsysTurn,
  session: number,
  direction: "command" | "response",
): Promise<void> {
  const attribute = direction === "command" ? TPMA_SESSION_DECRYPT : TPMA_SESSION_ENCRYPT;
  const flags = attribute | TPMA_SESSION_CONTINUESESSION;
  await esys.call("Esys_TRSess_SetAttributes", session, flags, 0xff);
}

/** ESYS asks the TPM to keep a session after a command, and the TPM has room for three. */
export async function endSession(esys: EsysTurn, session: number): Promise<void> {
  await esys.call("Esys_FlushContext", session).catch(() => undefined);
}
