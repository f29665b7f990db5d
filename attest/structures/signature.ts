/** TPMT_SIGNATURE for RSASSA, RSAPSS and ECDSA: TPM 2.0 Library Part 2 §11.3.4. */
import { Reader, Writer } from "../../wire/index.ts";
import { type HashRow, TPM_ALG_ECDSA, TPM_ALG_RSAPSS, TPM_ALG_RSASSA } from "./constants.ts";
import { readHashAlg } from "./fields.ts";

const MAX_RSA_BYTES = 512;
/** P-384: the largest curve of the profile. */
const MAX_COORDINATE_BYTES = 48;

export type TpmtSignature =
  | {
      readonly sigAlg: typeof TPM_ALG_RSASSA | typeof TPM_ALG_RSAPSS;
      readonly hash: HashRow;
      readonly sig: Uint8Array;
    }
  | {
      readonly sigAlg: typeof TPM_ALG_ECDSA;
      readonly hash: HashRow;
      readonly signatureR: Uint8Array;
      readonly signatureS: Uint8Array;
    };

/** A whole TPMT_SIGNATURE. @throws `WIRE_*` */
export function parseTpmtSignature(bytes: Uint8Array): TpmtSignature {
  const reader = new Reader(bytes, "TPMT_SIGNATURE");
  const signature = readSignature(reader);
  reader.end();
  return signature;
}

function readSignature(reader: Reader): TpmtSignature {
  // TPMI_ALG_SIG_SCHEME sigAlg
  const sigAlg = reader.u16("sigAlg");
  if (sigAlg === TPM_ALG_RSASSA || sigAlg === TPM_ALG_RSAPSS) {
    // TPMS_SIGNATURE_RSA (§11.3.1)
    const hash = readHashAlg(reader, "hash");
    return { sigAlg, hash, sig: reader.vec16("sig", 1, MAX_RSA_BYTES) };
  }
  if (sigAlg === TPM_ALG_ECDSA) {
    // TPMS_SIGNATURE_ECC (§11.3.2)
    const hash = readHashAlg(reader, "hash");
    const signatureR = reader.vec16("signatureR", 1, MAX_COORDINATE_BYTES);
    const signatureS = reader.vec16("signatureS", 1, MAX_COORDINATE_BYTES);
    return { sigAlg, hash, signatureR, signatureS };
  }
  return reader.fail("WIRE_VALUE_NOT_ALLOWED", "sigAlg", "expected RSASSA, RSAPSS or ECDSA", -2);
}

export function encodeTpmtSignature(signature: TpmtSignature): Uint8Array<ArrayBuffer> {
  const writer = new Writer().u16(signature.sigAlg).u16(signature.hash.alg);
  if (signature.sigAlg === TPM_ALG_ECDSA) {
    return writer.vec16(signature.signatureR).vec16(signature.signatureS).finish();
  }
  return writer.vec16(signature.sig).finish();
}
