/**
 * The signature of an AK over an attestation structure (checklist D1): over the received bytes, before
 * anything inside is read, with the scheme and hash that the AK itself is fixed to. The header of the
 * signature is hostile and only has to agree.
 */
import { concatBytes, StileError } from "../../wire/index.ts";
import type { AttestCrypto, SignatureCheck, SignatureScheme } from "../crypto.ts";
import {
  type HashRow,
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSAPSS,
} from "../structures/constants.ts";
import type { TpmtPublic } from "../structures/public.ts";
import { parseTpmtSignature, type TpmtSignature } from "../structures/signature.ts";
import { encodeSpki, leftPadded } from "../structures/spki.ts";

/** Bytes that an AK signed, as received. */
export interface SignedAttest {
  /** TPMS_ATTEST. */
  readonly attest: Uint8Array;
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array;
}

/** TPMS_ATTEST is under 300 bytes with the largest names; the cap comes before any work. */
const MAX_ATTEST_BYTES = 1_024;
const MAX_SIGNATURE_BYTES = 1_024;

/**
 * @param ak passed `checkAkPublic`, so it has a signing scheme with a hash
 * @returns the hash of the scheme
 * @throws `ATTEST_SIGNATURE_INVALID`, `WIRE_*`
 */
export async function verifyAttestSignature(
  ak: TpmtPublic,
  signed: SignedAttest,
  crypto: AttestCrypto,
): Promise<HashRow> {
  if (signed.attest.length > MAX_ATTEST_BYTES || signed.signature.length > MAX_SIGNATURE_BYTES) {
    throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", "attest: larger than any that a TPM makes");
  }
  const { scheme } = ak;
  if (scheme?.hashAlg === undefined) throw new TypeError("the AK has no signing scheme");
  const signature = parseTpmtSignature(signed.signature);
  if (signature.sigAlg !== scheme.scheme || signature.hash !== scheme.hashAlg) throw invalid();
  const check: SignatureCheck = {
    spki: encodeSpki(ak),
    scheme: schemeName(scheme.scheme),
    hash: scheme.hashAlg.name,
    message: signed.attest,
    signature: rawSignature(ak, signature),
  };
  if (!(await crypto.verifySignature(check))) throw invalid();
  return scheme.hashAlg;
}

function schemeName(scheme: number): SignatureScheme {
  if (scheme === TPM_ALG_ECDSA) return "ECDSA";
  return scheme === TPM_ALG_RSAPSS ? "RSASSA-PSS" : "RSASSA-PKCS1-v1_5";
}

/** One length per key, so that no second spelling of a signature verifies. */
function rawSignature(ak: TpmtPublic, signature: TpmtSignature): Uint8Array {
  if (ak.type === TPM_ALG_ECC) {
    if (signature.sigAlg !== TPM_ALG_ECDSA) throw invalid();
    const { coordinateBytes } = ak.curve;
    const { signatureR, signatureS } = signature;
    if (signatureR.length > coordinateBytes || signatureS.length > coordinateBytes) throw invalid();
    const [r, s] = [signatureR, signatureS].map((part) => leftPadded(part, coordinateBytes));
    return concatBytes([r ?? signatureR, s ?? signatureS]);
  }
  if (signature.sigAlg === TPM_ALG_ECDSA || signature.sig.length !== ak.unique.length) {
    throw invalid();
  }
  return signature.sig;
}

function invalid(): StileError {
  return new StileError("ATTEST_SIGNATURE_INVALID", "the signature of the AK does not verify");
}
