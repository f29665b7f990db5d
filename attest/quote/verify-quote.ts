/**
 * Verification of a TPM2_Quote (checklist D; TPM 2.0 Library Part 3 §18.4, Part 2 §10.12).
 *
 * A quote is verified when all of this holds, checked in this order:
 *  1. the AK's signature verifies over the received bytes (D1);
 *  2. the bytes are one TPMS_ATTEST that a TPM generated, of type quote, with nothing left over (D2, D10);
 *  3. extraData is the whole expected value (D3, D11);
 *  4. the signer is where the AK must be, if its parent is known (D4);
 *  5. the PCR selection is the one that was asked for, byte for byte (D5);
 *  6. the supplied values are those PCRs, once each, in order, and hash to pcrDigest (D5, D6).
 */
import { concatBytes, constantTimeEqual, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { HashName, HashRow } from "../structures/constants.ts";
import { parseTpmsAttestQuote, type TpmsClockInfo } from "../structures/attest.ts";
import { parseTpmlPcrSelection, type TpmlPcrSelection } from "../structures/pcr-selection.ts";
import type { TpmtPublic } from "../structures/public.ts";
import { checkQualifiedSigner } from "./qualified-signer.ts";
import { type SignedAttest, verifyAttestSignature } from "./signature.ts";

/** One PCR as the device says it is: hostile until the quote has been verified. */
export interface PcrValue {
  readonly hash: HashName;
  readonly pcr: number;
  readonly value: Uint8Array;
}

export interface QuoteCheck {
  /** The AK's public area; passed `checkAkPublic`. */
  readonly ak: TpmtPublic;
  readonly quote: SignedAttest;
  readonly extraData: Uint8Array;
  /** TPML_PCR_SELECTION that was asked for. */
  readonly pcrSelection: Uint8Array;
  /** In selection order: bank by bank, PCRs ascending. */
  readonly pcrValues: readonly PcrValue[];
  /** Where the caller knows the AK's parent (D4). */
  readonly akQualifiedName?: Uint8Array;
  readonly crypto: AttestCrypto;
}

/** What a genuine TPM said of itself at this moment. */
export interface VerifiedQuote {
  readonly kind: "verified-quote";
  readonly pcrValues: readonly PcrValue[];
  readonly clockInfo: TpmsClockInfo;
  readonly firmwareVersion: bigint;
  readonly qualifiedSigner: Uint8Array;
}

/**
 * @throws `ATTEST_SIGNATURE_INVALID`, `ATTEST_MAGIC_MISMATCH`, `ATTEST_TYPE_MISMATCH`,
 * `ATTEST_NONCE_MISMATCH`, `ATTEST_NAME_MISMATCH`, `ATTEST_PCR_SELECTION_MISMATCH`, `ATTEST_PCR_DIGEST_MISMATCH`, `WIRE_*`
 */
export async function verifyQuote(check: QuoteCheck): Promise<VerifiedQuote> {
  const schemeHash = await verifyAttestSignature(check.ak, check.quote, check.crypto);
  const quote = parseTpmsAttestQuote(check.quote.attest);
  if (!constantTimeEqual(quote.extraData, check.extraData)) {
    throw new StileError("ATTEST_NONCE_MISMATCH", "quote.extraData: expected the binding value");
  }
  checkQualifiedSigner(quote.qualifiedSigner, check.akQualifiedName);
  if (!constantTimeEqual(quote.pcrSelect.raw, check.pcrSelection)) {
    throw new StileError(
      "ATTEST_PCR_SELECTION_MISMATCH",
      "quote.pcrSelect: expected what was asked",
    );
  }
  checkValues(parseTpmlPcrSelection(check.pcrSelection), check.pcrValues);
  if (!constantTimeEqual(quote.pcrDigest, digestOf(check, schemeHash))) {
    throw new StileError("ATTEST_PCR_DIGEST_MISMATCH", "quote.pcrDigest: is not of these values");
  }
  return {
    kind: "verified-quote",
    pcrValues: check.pcrValues,
    clockInfo: quote.clockInfo,
    firmwareVersion: quote.firmwareVersion,
    qualifiedSigner: quote.qualifiedSigner,
  };
}

function checkValues(selection: TpmlPcrSelection, values: readonly PcrValue[]): void {
  const expected = selection.banks.flatMap(({ hash, pcrs }) => pcrs.map((pcr) => ({ hash, pcr })));
  const isExact =
    expected.length === values.length &&
    expected.every(({ hash, pcr }, i) => {
      const value = values[i];
      return (
        value?.hash === hash.name && value.pcr === pcr && value.value.length === hash.digestBytes
      );
    });
  if (!isExact) {
    const message = "PCR values: expected each selected PCR once, in order";
    throw new StileError("ATTEST_PCR_SELECTION_MISMATCH", message);
  }
}

function digestOf(check: QuoteCheck, schemeHash: HashRow): Uint8Array {
  return check.crypto.hash(schemeHash.name, concatBytes(check.pcrValues.map(({ value }) => value)));
}
