/** PCR values from a JSON file: `{"sha256": {"0": "<hex>", …}, …}`. */
import { HASH_ROWS, type HashName, type PcrValue } from "../../../attest/index.ts";
import { decodeHex, isStileError } from "../../../wire/index.ts";
import { CliUsageError } from "../usage.ts";
import { readJson } from "./report.ts";

/** In the order of a selection: bank by bank as the file has them, PCRs ascending. @throws CliUsageError */
export function readPcrValues(file: string): readonly PcrValue[] {
  const banks = readJson(file);
  if (typeof banks !== "object" || banks === null) throw malformed(file);
  return Object.entries(banks).flatMap(([bank, values]) => {
    const hash = HASH_ROWS.find(({ name }) => name === bank)?.name;
    if (hash === undefined || typeof values !== "object" || values === null) throw malformed(file);
    return Object.entries(values as Readonly<Record<string, unknown>>)
      .map(([pcr, value]) => pcrValueOf(file, hash, pcr, value))
      .toSorted((a, b) => a.pcr - b.pcr);
  });
}

function pcrValueOf(file: string, hash: HashName, pcr: string, value: unknown): PcrValue {
  if (!/^\d{1,2}$/.test(pcr) || typeof value !== "string") throw malformed(file);
  try {
    return { hash, pcr: Number(pcr), value: decodeHex(value.toLowerCase()) };
  } catch (error) {
    if (isStileError(error)) throw malformed(file);
    throw error;
  }
}

function malformed(file: string): CliUsageError {
  return new CliUsageError(`${file}: expected {"sha256": {"0": "<hexadecimal>"}} of PCR values`);
}
