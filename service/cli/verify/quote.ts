/** `stile verify quote`: a TPM2_Quote with the files that tpm2_quote and tpm2_createak write. */
import { parseArgs } from "node:util";
import {
  checkAkPublic,
  encodeTpmlPcrSelection,
  type HashName,
  parseTpm2bPublic,
  verifyQuote,
} from "../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../attest/node/index.ts";
import { decodeHex, isStileError } from "../../../wire/index.ts";
import { CliUsageError } from "../usage.ts";
import { readPcrValues } from "./pcr-values.ts";
import { type Facts, needed, readBytes, report } from "./report.ts";

export const QUOTE_USAGE =
  "verify quote --ak TPM2B_PUBLIC --message TPMS_ATTEST --signature TPMT_SIGNATURE --pcrs JSON --nonce HEX [--allow-sha1]";

export function verifyQuoteCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ak: { type: "string" },
      message: { type: "string" },
      signature: { type: "string" },
      pcrs: { type: "string" },
      nonce: { type: "string" },
      "allow-sha1": { type: "boolean" },
      json: { type: "boolean" },
    },
  });
  const file = (value: string | undefined): Uint8Array => readBytes(needed(value, QUOTE_USAGE));
  const akPublic = file(values.ak);
  const quote = { attest: file(values.message), signature: file(values.signature) };
  const pcrValues = readPcrValues(needed(values.pcrs, QUOTE_USAGE));
  const extraData = hexOf(needed(values.nonce, QUOTE_USAGE));
  const allowSha1 = values["allow-sha1"] ?? false;
  return report(values.json ?? false, async (): Promise<Facts> => {
    const ak = parseTpm2bPublic(akPublic);
    checkAkPublic(ak, { allowSha1 });
    const verified = await verifyQuote({
      ak,
      quote,
      extraData,
      pcrSelection: encodeTpmlPcrSelection(banksOf(pcrValues)),
      pcrValues,
      crypto: createNodeAttestCrypto(),
    });
    const { clockInfo, firmwareVersion, qualifiedSigner } = verified;
    return {
      pcrs: pcrValues.map(({ hash, pcr }) => `${hash}:${pcr}`),
      clockInfo,
      firmwareVersion,
      qualifiedSigner,
    };
  });
}

function banksOf(
  values: readonly { readonly hash: HashName; readonly pcr: number }[],
): { readonly hash: HashName; readonly pcrs: number[] }[] {
  const banks = new Map<HashName, number[]>();
  for (const { hash, pcr } of values) banks.set(hash, [...(banks.get(hash) ?? []), pcr]);
  return [...banks].map(([hash, pcrs]) => ({ hash, pcrs }));
}

function hexOf(text: string): Uint8Array {
  try {
    return decodeHex(text.toLowerCase());
  } catch (error) {
    if (isStileError(error)) throw new CliUsageError("--nonce: expected hexadecimal");
    throw error;
  }
}
