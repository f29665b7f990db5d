/**
 * PCR values (TPM 2.0 Part 3 §22). TPM2_PCR_Read answers at most eight at once, so a longer list is
 * read in parts, and again from the start where a PCR changed in between.
 */
import { Reader, StileError, Writer } from "../../wire/index.ts";
import { HASH_ROWS, type HashName } from "../structures/constants.ts";
import { encodeTpmlPcrSelection } from "../structures/pcr-selection.ts";
import { ESYS_TR_NONE, ESYS_TR_PASSWORD } from "./constants.ts";
import { type EsysConnection, type EsysTurn, input, numberOutput, output } from "./esys.ts";

const NONE = [ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE] as const;

/** A boot extends PCRs for a while; a list that never settles is an error of its own. */
const MAX_READS = 8;

export interface TpmPcrs {
  /**
   * The values of the PCRs of one bank, in the order of `pcrs`, all of one instant.
   * @param pcrs ascending numbers below 24
   */
  pcrRead(hash: HashName, pcrs: readonly number[]): Promise<Uint8Array[]>;
  /** Extends one PCR of one bank with a digest of the bank's size. */
  pcrExtend(pcr: number, hash: HashName, digest: Uint8Array): Promise<void>;
}

export function createTpmPcrs(connection: EsysConnection): TpmPcrs {
  return {
    pcrRead: (hash, pcrs) => connection.turn((esys) => pcrRead(esys, hash, pcrs)),
    pcrExtend: (pcr, hash, digest) =>
      connection.turn(async (esys) => {
        const row = HASH_ROWS.find(({ name }) => name === hash);
        if (row?.digestBytes !== digest.length) throw new RangeError("digest: not of this hash");
        const digests = new Writer().u32(1).u16(row.alg).bytes(digest).finish();
        const list = input("TPML_DIGEST_VALUES", digests);
        // ESYS_TR_PCR0 is 0: the number of a PCR is its ESYS_TR.
        await esys.call("Esys_PCR_Extend", pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, list);
      }),
  };
}

async function pcrRead(
  esys: EsysTurn,
  hash: HashName,
  pcrs: readonly number[],
): Promise<Uint8Array[]> {
  for (let attempt = 0; attempt < MAX_READS; attempt += 1) {
    const values = await readOnce(esys, hash, pcrs);
    if (values !== undefined) return values;
  }
  throw new StileError("ATTEST_TSS_FAILED", "the PCRs change while they are read");
}

/** All values, or undefined where the update counter moved between two parts. */
async function readOnce(
  esys: EsysTurn,
  hash: HashName,
  pcrs: readonly number[],
): Promise<Uint8Array[] | undefined> {
  const values: Uint8Array[] = [];
  const counter = numberOutput();
  while (values.length < pcrs.length) {
    const before = counter.value;
    const part = await readPart(esys, hash, pcrs.slice(values.length), counter);
    if (part.length === 0) throw new StileError("ATTEST_TSS_FAILED", "the TPM has no such PCR");
    if (values.length > 0 && counter.value !== before) return undefined;
    values.push(...part);
  }
  return values;
}

async function readPart(
  esys: EsysTurn,
  hash: HashName,
  pcrs: readonly number[],
  counter: ReturnType<typeof numberOutput>,
): Promise<Uint8Array[]> {
  const list = output("TPML_DIGEST");
  const selection = input("TPML_PCR_SELECTION", encodeTpmlPcrSelection([{ hash, pcrs }]));
  await esys.call("Esys_PCR_Read", ...NONE, selection, counter, output("discarded"), list);
  const reader = new Reader(list.wire, "TPML_DIGEST");
  const count = reader.count32("count", 0, 8);
  const values = Array.from({ length: count }, () => reader.vec16("digest", 0, 64));
  reader.end();
  return values;
}
