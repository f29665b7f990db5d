/**
 * The firmware that a quote names, against policy (checklist D8, A10). The number is the TPM's only where
 * the AK is in the endorsement or platform hierarchy; elsewhere the version counts as unknown.
 */
import type { AttestCrypto } from "../crypto.ts";
import {
  checkFirmware,
  exactVersion,
  type FirmwareFinding,
  type FirmwarePolicy,
  type TpmFirmware,
} from "../ek/index.ts";
import type { TpmtPublic } from "../structures/public.ts";
import { hierarchyOfSigner } from "./qualified-signer.ts";
import type { VerifiedQuote } from "./verify-quote.ts";

export interface QuoteFirmwareCheck {
  readonly quote: VerifiedQuote;
  /** The AK of that quote. */
  readonly ak: TpmtPublic;
  /** The verified EK, for an AK that is its child. */
  readonly ek?: TpmtPublic;
  /** Of the verified EK certificate. */
  readonly manufacturer: string;
  readonly keyTypes: TpmFirmware["keyTypes"];
  readonly crypto: AttestCrypto;
}

/**
 * @returns what is reported and not refused
 * @throws `ATTEST_FIRMWARE_REFUSED`
 */
export function checkQuoteFirmware(
  check: QuoteFirmwareCheck,
  policy: FirmwarePolicy,
): FirmwareFinding[] {
  const { manufacturer, keyTypes } = check;
  const version = isPlain(check) ? exactVersion(check.quote.firmwareVersion) : undefined;
  return checkFirmware({ manufacturer, version, keyTypes }, policy);
}

function isPlain({ ak, ek, quote, crypto }: QuoteFirmwareCheck): boolean {
  const hierarchy = hierarchyOfSigner(ak, quote.qualifiedSigner, crypto, ek);
  return hierarchy === "endorsement" || hierarchy === "platform";
}
