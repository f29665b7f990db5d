/**
 * One connection to a TPM: a TCTI, an ESYS_CONTEXT on it and the rule that a call at a time runs.
 * Frees what ESYS allocates, repeats a command that the TPM asks to repeat, and builds a new context
 * where the old one is in an unknown state. Knows no TPM command by itself.
 */
import { isStileError, StileError } from "../../wire/index.ts";
import type { EsysFunction, NativeArgument, Pointer, TssLibraries } from "./libraries.ts";
import { createMarshaller, type Marshaller, type MuType, tssError } from "./marshal.ts";
import { createCallQueue } from "./queue.ts";
import { isTpmAnswer, parseResponseCode, type ResponseCode } from "./response-codes.ts";

/** Waits between attempts, in milliseconds: 2.5 s in all, longer than a self-test of known TPMs. */
const RETRY_DELAYS_MS = [5, 10, 20, 40, 80, 160, 320, 640, 1280] as const;
const RETRY_NAMES: ReadonlySet<string> = new Set([
  "TPM_RC_RETRY",
  "TPM_RC_YIELDED",
  "TPM_RC_TESTING",
]);

/** Codes that ESYS raises about an argument, before anything is sent: the context stays sound. */
const ARGUMENT_NAMES: ReadonlySet<string> = new Set([
  "TSS2_ESYS_RC_BAD_TR",
  "TSS2_ESYS_RC_BAD_VALUE",
  "TSS2_ESYS_RC_BAD_REFERENCE",
  "TSS2_SYS_RC_BAD_VALUE",
  "TSS2_SYS_RC_BAD_SIZE",
]);

/** An input structure, as wire bytes. */
export interface WireInput {
  readonly type: MuType;
  readonly wire: Uint8Array;
}

/** Where an output structure goes: its wire bytes after the call, or nothing where it is discarded. */
export interface WireOutput {
  readonly output: MuType | "discarded";
  wire: Uint8Array<ArrayBuffer>;
}

/** Where an ESYS_TR or a plain number goes. */
export interface NumberOutput {
  readonly output: "number";
  value: number;
}

export type EsysArgument = number | null | WireInput | WireOutput | NumberOutput;

export const input = (type: MuType, wire: Uint8Array): WireInput => ({ type, wire });
export const output = (type: WireOutput["output"]): WireOutput => ({
  output: type,
  wire: new Uint8Array(),
});
export const numberOutput = (value = 0): NumberOutput => ({ output: "number", value });

/** Calls on the context, valid inside one turn of the queue. */
export interface EsysTurn {
  /** Grows with each new context: an ESYS_TR of another generation means nothing here. */
  readonly generation: number;
  /** @throws `ATTEST_TSS_FAILED` */
  call(name: EsysFunction, ...values: EsysArgument[]): Promise<void>;
}

export interface EsysConnection {
  /**
   * Runs `work` alone on the context.
   * @throws `ATTEST_TSS_BUSY`, `ATTEST_TSS_FAILED`
   */
  turn<T>(work: (turn: EsysTurn) => Promise<T>): Promise<T>;
  /** Ends the context after the calls that wait. Idempotent. */
  close(): Promise<void>;
}

export interface EsysDeps {
  readonly tss: TssLibraries;
  /** A TCTI configuration: `device:/dev/tpmrm0`, `swtpm:path=…`. */
  readonly tcti: string;
  readonly maxPendingCalls: number;
  readonly sleep: (milliseconds: number) => Promise<void>;
  /** Runs on each new context before anything else. */
  readonly onNewContext: (turn: EsysTurn) => Promise<void>;
}

interface Context {
  readonly tcti: Pointer;
  readonly esys: Pointer;
  readonly generation: number;
  /** Set where a call left it in an unknown state. */
  isBroken: boolean;
}

export function createEsysConnection(deps: EsysDeps): EsysConnection {
  const queue = createCallQueue(deps.maxPendingCalls);
  const marshaller = createMarshaller(deps.tss);
  let context: Context | undefined;
  let generation = 0;
  let isClosed = false;

  async function drop(): Promise<void> {
    const old = context;
    context = undefined;
    if (old !== undefined) await closeContext(deps.tss, old);
  }

  async function useContext(): Promise<EsysTurn> {
    if (isClosed) throw new TypeError("the TPM connection is closed");
    if (context !== undefined) return createTurn(deps, marshaller, context);
    context = await openContext(deps, (generation += 1));
    const turn = createTurn(deps, marshaller, context);
    try {
      await deps.onNewContext(turn);
    } catch (error) {
      await drop();
      throw error;
    }
    return turn;
  }

  return {
    turn: (work) =>
      queue.run(async () => {
        try {
          return await work(await useContext());
        } finally {
          if (context?.isBroken === true) await drop();
        }
      }),
    close: () =>
      isClosed
        ? Promise.resolve()
        : queue.run(async () => {
            isClosed = true;
            await drop();
          }),
  };
}

/** The response code behind an `ATTEST_TSS_FAILED`, or undefined. */
export function responseCodeOf(error: unknown): ResponseCode | undefined {
  if (!isStileError(error, "ATTEST_TSS_FAILED")) return undefined;
  // tssError is the only source of this code with a cause, and its cause is a ResponseCode.
  return error.cause as ResponseCode | undefined;
}

/**
 * Whatever is not the TPM's own answer leaves the context in the middle of a command, and ESYS then
 * refuses every later call with BAD_SEQUENCE.
 */
function leavesContextSound(response: ResponseCode): boolean {
  return isTpmAnswer(response) || ARGUMENT_NAMES.has(response.name);
}

async function openContext(deps: EsysDeps, generation: number): Promise<Context> {
  const tcti: Pointer[] = [null];
  const opened = await deps.tss.tctiInitialize(deps.tcti, tcti);
  if (opened !== 0) throw tssError(deps.tss, "Tss2_TctiLdr_Initialize", opened);
  const esys: Pointer[] = [null];
  const started = await deps.tss.initialize(esys, tcti[0] ?? null, null);
  if (started !== 0) {
    await deps.tss.tctiFinalize(tcti);
    throw tssError(deps.tss, "Esys_Initialize", started);
  }
  return { tcti: tcti[0] ?? null, esys: esys[0] ?? null, generation, isBroken: false };
}

async function closeContext(tss: TssLibraries, context: Context): Promise<void> {
  await tss.finalize([context.esys]);
  await tss.tctiFinalize([context.tcti]);
}

function createTurn(deps: EsysDeps, marshaller: Marshaller, context: Context): EsysTurn {
  return {
    generation: context.generation,
    async call(name, ...values) {
      for (const delay of [...RETRY_DELAYS_MS, undefined]) {
        const code = await callOnce(deps.tss, marshaller, context, name, values);
        if (code === 0) return;
        const response = parseResponseCode(code);
        if (!leavesContextSound(response)) context.isBroken = true;
        const isRetry = RETRY_NAMES.has(response.name);
        if (!isRetry || delay === undefined) throw tssError(deps.tss, name, code);
        await deps.sleep(delay);
      }
    },
  };
}

async function callOnce(
  tss: TssLibraries,
  marshaller: Marshaller,
  context: Context,
  name: EsysFunction,
  values: readonly EsysArgument[],
): Promise<number> {
  const natives = values.map((value) => toNative(marshaller, value));
  const code = await tss.esys[name](context.esys, ...natives);
  const pointers = natives.map((native) => (Array.isArray(native) ? native[0] : undefined));
  try {
    if (code === 0) values.forEach((value, i) => takeOutput(marshaller, value, pointers[i]));
  } finally {
    values.forEach((value, i) => freeOutput(tss, value, pointers[i]));
  }
  return code;
}

function toNative(marshaller: Marshaller, value: EsysArgument): NativeArgument {
  if (value === null || typeof value === "number") return value;
  if ("wire" in value && "type" in value) return marshaller.unmarshal(value.type, value.wire);
  return value.output === "number" ? [value.value] : [null];
}

function takeOutput(
  marshaller: Marshaller,
  value: EsysArgument,
  native: NativeArgument | undefined,
): void {
  if (value === null || typeof value === "number" || !("output" in value)) return;
  if (value.output === "number") value.value = Number(native);
  else if (value.output !== "discarded") {
    if (typeof native !== "bigint") {
      throw new StileError("ATTEST_TSS_FAILED", `the TSS gave no ${value.output}`);
    }
    value.wire = marshaller.marshal(value.output, native);
  }
}

function freeOutput(
  tss: TssLibraries,
  value: EsysArgument,
  native: NativeArgument | undefined,
): void {
  if (value === null || typeof value === "number" || !("output" in value)) return;
  if (value.output !== "number" && typeof native === "bigint") tss.free(native);
}
