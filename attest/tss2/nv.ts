/**
 * NV indices (TPM 2.0 Part 3 §31): EK certificates are read from there, and a test TPM is
 * provisioned there. Indices with authorisation values of their own are not handled.
 */
import { Reader, Writer } from "../../wire/index.ts";
import { ESYS_TR_NONE, ESYS_TR_PASSWORD, HIERARCHIES, TPM_ALG_SHA256 } from "./constants.ts";
import {
  type EsysConnection,
  type EsysTurn,
  input,
  numberOutput,
  output,
  responseCodeOf,
} from "./esys.ts";

const NONE = [ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE] as const;
const PASSWORD = [ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE] as const;

/** Every PC Client TPM takes at least this much at once (PTP §4.6: TPM_PT_NV_BUFFER_MAX). */
const NV_CHUNK_BYTES = 512;

/** TPMA_NV bits (Part 2 §13.4). */
export const TPMA_NV = {
  PPWRITE: 0x0000_0001,
  OWNERWRITE: 0x0000_0002,
  AUTHWRITE: 0x0000_0004,
  WRITEDEFINE: 0x0000_2000,
  PPREAD: 0x0001_0000,
  OWNERREAD: 0x0002_0000,
  AUTHREAD: 0x0004_0000,
  NO_DA: 0x0200_0000,
  PLATFORMCREATE: 0x4000_0000,
} as const;

/** TPMS_NV_PUBLIC without its policy. */
export interface NvPublic {
  readonly attributes: number;
  /** Bytes. */
  readonly dataSize: number;
}

/** What a Tpm does with NV. Every method may throw `ATTEST_TSS_FAILED` and `ATTEST_TSS_BUSY`. */
export interface TpmNv {
  /** The data of an index, whole and as it is stored, or undefined where it is not defined. */
  nvRead(index: number): Promise<Uint8Array | undefined>;
  /** Defines an index (removing an old one) under the platform hierarchy and writes it. */
  nvStore(index: number, data: Uint8Array, attributes: number): Promise<void>;
  nvUndefine(index: number): Promise<void>;
}

export function createTpmNv(connection: EsysConnection): TpmNv {
  return {
    nvRead: (index) => connection.turn((esys) => nvRead(esys, index)),
    nvStore: (index, data, attributes) =>
      connection.turn((esys) => nvStore(esys, index, data, attributes)),
    nvUndefine: (index) => connection.turn((esys) => nvUndefine(esys, index)),
  };
}

async function nvRead(esys: EsysTurn, index: number): Promise<Uint8Array | undefined> {
  const tr = await openIndex(esys, index);
  if (tr === undefined) return undefined;
  try {
    const { attributes, dataSize } = await nvReadPublic(esys, tr);
    // An EK certificate may be read with its own empty auth, so that an owner password is not needed.
    const authorised = (attributes & TPMA_NV.AUTHREAD) !== 0 ? tr : HIERARCHIES.owner;
    const data = new Uint8Array(dataSize);
    for (let offset = 0; offset < dataSize; offset += NV_CHUNK_BYTES) {
      const size = Math.min(NV_CHUNK_BYTES, dataSize - offset);
      const part = output("TPM2B_MAX_NV_BUFFER");
      await esys.call("Esys_NV_Read", authorised, tr, ...PASSWORD, size, offset, part);
      data.set(new Reader(part.wire, "TPM2B_MAX_NV_BUFFER").vec16("buffer", size, size), offset);
    }
    return data;
  } finally {
    await esys.call("Esys_TR_Close", numberOutput(tr)).catch(() => undefined);
  }
}

async function nvReadPublic(esys: EsysTurn, tr: number): Promise<NvPublic> {
  const wire = output("TPM2B_NV_PUBLIC");
  await esys.call("Esys_NV_ReadPublic", tr, ...NONE, wire, output("discarded"));
  const reader = new Reader(wire.wire, "TPM2B_NV_PUBLIC");
  reader.u16("size");
  reader.u32("nvIndex");
  reader.u16("nameAlg");
  const attributes = reader.u32("attributes");
  reader.vec16("authPolicy", 0, 64);
  const dataSize = reader.u16("dataSize");
  reader.end();
  return { attributes, dataSize };
}

async function nvStore(
  esys: EsysTurn,
  index: number,
  data: Uint8Array,
  attributes: number,
): Promise<void> {
  await nvUndefine(esys, index);
  const nvPublic = new Writer()
    .u32(index)
    .u16(TPM_ALG_SHA256)
    .u32(attributes)
    .u16(0)
    .u16(data.length)
    .finish();
  const tr = numberOutput();
  await esys.call(
    "Esys_NV_DefineSpace",
    HIERARCHIES.platform,
    ...PASSWORD,
    null,
    input("TPM2B_NV_PUBLIC", new Writer().vec16(nvPublic).finish()),
    tr,
  );
  for (let offset = 0; offset < data.length; offset += NV_CHUNK_BYTES) {
    const part = new Writer().vec16(data.subarray(offset, offset + NV_CHUNK_BYTES)).finish();
    const chunk = input("TPM2B_MAX_NV_BUFFER", part);
    await esys.call("Esys_NV_Write", HIERARCHIES.platform, tr.value, ...PASSWORD, chunk, offset);
  }
  await esys.call("Esys_TR_Close", tr);
}

async function nvUndefine(esys: EsysTurn, index: number): Promise<void> {
  const tr = await openIndex(esys, index);
  if (tr !== undefined) {
    await esys.call("Esys_NV_UndefineSpace", HIERARCHIES.platform, tr, ...PASSWORD);
  }
}

async function openIndex(esys: EsysTurn, index: number): Promise<number | undefined> {
  const tr = numberOutput();
  try {
    await esys.call("Esys_TR_FromTPMPublic", index, ...NONE, tr);
    return tr.value;
  } catch (error) {
    if (responseCodeOf(error)?.name === "TPM_RC_HANDLE") return undefined;
    throw error;
  }
}
