/**
 * A TPM 2.0 reached through tpm2-tss: `openTpm` and the operations that an attested device and a
 * test TPM need. All calls are asynchronous and run one at a time per connection.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Reader, Writer } from "../../wire/index.ts";
import {
  ESYS_TR_NONE,
  HIERARCHIES,
  type Hierarchy,
  TPM_CAP_HANDLES,
  TPM_SU_CLEAR,
  TRANSIENT_FIRST,
} from "./constants.ts";
import {
  createEsysConnection,
  type EsysConnection,
  type EsysTurn,
  input,
  numberOutput,
  output,
  responseCodeOf,
} from "./esys.ts";
import { loadTss } from "./libraries.ts";
import { createTpmNv, type TpmNv } from "./nv.ts";
import { createTpmObjects, type TpmObjects } from "./objects.ts";
import { createTpmPcrs, type TpmPcrs } from "./pcr.ts";
import { createTpmSealing, type TpmSealing } from "./sealing.ts";

const NONE = [ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE] as const;
const HANDLES_AT_ONCE = 64;

export interface TpmOptions {
  /**
   * TCTI configuration: `device:/dev/tpmrm0` for hardware (through the kernel's resource manager),
   * `swtpm:path=<socket>` for a software TPM.
   */
  readonly tcti: string;
  /** Calls that may run or wait at once; more are refused with `ATTEST_TSS_BUSY`. */
  readonly maxPendingCalls: number;
  /** Authorisation values of hierarchies that have one. */
  readonly hierarchyAuth?: Readonly<Partial<Record<Hierarchy, Uint8Array>>>;
}

/** Every method may throw `ATTEST_TSS_FAILED` (see {@link responseCodeOf}) and `ATTEST_TSS_BUSY`. */
export interface Tpm extends Omit<TpmObjects, "flushTransientObjects">, TpmNv, TpmPcrs, TpmSealing {
  /** TPM2_Startup(CLEAR); a TPM that is already started is fine. */
  startup(): Promise<void>;
  /** TPM2_SelfTest of everything. */
  selfTest(): Promise<void>;
  /** @param length bytes; asked for in as many calls as it takes. */
  getRandom(length: number): Promise<Uint8Array>;
  /** Handles of one range that exist, ascending, from `first` on within its range. */
  handles(first: number): Promise<number[]>;
  /**
   * Unloads every transient object: what a process that died left in a TPM without a resource
   * manager. It takes the keys of every other user of that TPM too.
   */
  flushTransientObjects(): Promise<void>;
  /** Ends the connection after the calls that wait. Loaded keys should be flushed before. */
  close(): Promise<void>;
}

/**
 * Opens a connection and checks that a TPM answers. A command waits for its response as long as the
 * TCTI does: the kernel's driver has time limits, a software TPM that is stopped in the middle has not.
 * @throws `ATTEST_TSS_MISSING` without tpm2-tss, `ATTEST_TSS_FAILED` without a TPM
 */
export async function openTpm(options: TpmOptions): Promise<Tpm> {
  const connection = createEsysConnection({
    tss: loadTss(),
    tcti: options.tcti,
    maxPendingCalls: options.maxPendingCalls,
    sleep: (milliseconds) => sleep(milliseconds),
    onNewContext: (esys) => setHierarchyAuth(esys, options.hierarchyAuth ?? {}),
  });
  const tpm = createTpm(connection);
  try {
    await tpm.startup();
  } catch (error) {
    await tpm.close();
    throw error;
  }
  return tpm;
}

function createTpm(connection: EsysConnection): Tpm {
  const objects = createTpmObjects(connection);
  const handles = (first: number): Promise<number[]> =>
    connection.turn((esys) => readHandles(esys, first));
  return {
    ...objects,
    ...createTpmNv(connection),
    ...createTpmPcrs(connection),
    ...createTpmSealing(connection),
    startup: () => connection.turn(startup),
    selfTest: () => connection.turn((esys) => esys.call("Esys_SelfTest", ...NONE, 1)),
    getRandom: (length) => connection.turn((esys) => getRandom(esys, length)),
    handles,
    flushTransientObjects: async () =>
      objects.flushTransientObjects(await handles(TRANSIENT_FIRST)),
    close: () => connection.close(),
  };
}

async function setHierarchyAuth(
  esys: EsysTurn,
  auths: NonNullable<TpmOptions["hierarchyAuth"]>,
): Promise<void> {
  for (const hierarchy of ["owner", "endorsement", "platform", "lockout"] as const) {
    const auth = auths[hierarchy];
    if (auth === undefined) continue;
    const value = input("TPM2B_DIGEST", new Writer().vec16(auth).finish());
    await esys.call("Esys_TR_SetAuth", HIERARCHIES[hierarchy], value);
  }
}

async function startup(esys: EsysTurn): Promise<void> {
  try {
    await esys.call("Esys_Startup", TPM_SU_CLEAR);
  } catch (error) {
    if (responseCodeOf(error)?.name !== "TPM_RC_INITIALIZE") throw error;
  }
}

async function getRandom(esys: EsysTurn, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const part = output("TPM2B_DIGEST");
    await esys.call("Esys_GetRandom", ...NONE, Math.min(length - filled, 0xffff), part);
    // A TPM answers at most its largest digest, and at least something.
    const random = new Reader(part.wire, "TPM2B_DIGEST").vec16("buffer", 1, length - filled);
    bytes.set(random, filled);
    filled += random.length;
  }
  return bytes;
}

async function readHandles(esys: EsysTurn, first: number): Promise<number[]> {
  const handles: number[] = [];
  const more = numberOutput(1);
  while (more.value !== 0) {
    const from = (handles.at(-1) ?? first - 1) + 1;
    const data = output("TPMS_CAPABILITY_DATA");
    await esys.call(
      "Esys_GetCapability",
      ...NONE,
      TPM_CAP_HANDLES,
      from,
      HANDLES_AT_ONCE,
      more,
      data,
    );
    const reader = new Reader(data.wire, "TPMS_CAPABILITY_DATA");
    reader.u32("capability");
    const count = reader.count32("count", 0, 254);
    for (let i = 0; i < count; i += 1) handles.push(reader.u32("handle"));
    reader.end();
    if (count === 0) break;
  }
  return handles;
}
