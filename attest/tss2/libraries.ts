/**
 * The functions of tpm2-tss (TCG ESAPI, marshalling, TCTI loader and response-code libraries) as
 * koffi sees them. Structures are opaque here: `void *` stands for every structure pointer, so no
 * C layout is written down in TypeScript. Nothing in this file calls a TPM.
 */
import koffi, { type KoffiFunc, type LibraryHandle } from "koffi";
import { StileError } from "../../wire/index.ts";

/** Versioned names: an ABI change must fail to load, not misread memory. */
const LIBRARIES = {
  esys: { soname: "libtss2-esys.so.0", debian: "libtss2-esys-3.0.2-0" },
  mu: { soname: "libtss2-mu.so.0", debian: "libtss2-mu0" },
  tctildr: { soname: "libtss2-tctildr.so.0", debian: "libtss2-tctildr0" },
  rc: { soname: "libtss2-rc.so.0", debian: "libtss2-rc0" },
} as const;

/** Prototypes of tss2_esys.h 3.2 behind the context; `tr` is ESYS_TR, `in` and `out` structures. */
const ESYS_PROTOTYPES = {
  Esys_Startup: "uint16_t",
  Esys_Shutdown: "tr, tr, tr, uint16_t",
  Esys_SelfTest: "tr, tr, tr, uint8_t",
  Esys_GetRandom: "tr, tr, tr, uint16_t, out",
  Esys_GetCapability: "tr, tr, tr, uint32_t, uint32_t, uint32_t, outbyte, out",
  Esys_CreatePrimary: "tr, tr, tr, tr, in, in, in, in, outtr, out, out, out, out",
  Esys_ReadPublic: "tr, tr, tr, tr, out, out, out",
  Esys_EvictControl: "tr, tr, tr, tr, tr, uint32_t, outtr",
  Esys_FlushContext: "tr",
  Esys_ContextSave: "tr, out",
  Esys_ContextLoad: "in, outtr",
  Esys_TR_FromTPMPublic: "uint32_t, tr, tr, tr, outtr",
  Esys_TR_SetAuth: "tr, in",
  Esys_TR_GetName: "tr, out",
  Esys_TR_Close: "inouttr",
  Esys_TR_GetTpmHandle: "tr, outtr",
  Esys_NV_ReadPublic: "tr, tr, tr, tr, out, out",
  Esys_NV_Read: "tr, tr, tr, tr, tr, uint16_t, uint16_t, out",
  Esys_NV_Write: "tr, tr, tr, tr, tr, in, uint16_t",
  Esys_NV_DefineSpace: "tr, tr, tr, tr, in, in, outtr",
  Esys_NV_UndefineSpace: "tr, tr, tr, tr, tr",
  Esys_StartAuthSession: "tr, tr, tr, tr, tr, in, uint8_t, in, uint16_t, outtr",
  Esys_Create: "tr, tr, tr, tr, in, in, in, in, out, out, out, out, out",
  Esys_Load: "tr, tr, tr, tr, in, in, outtr",
  Esys_Unseal: "tr, tr, tr, tr, out",
  Esys_PolicyPCR: "tr, tr, tr, tr, in, in",
  Esys_PolicyGetDigest: "tr, tr, tr, tr, out",
  Esys_TRSess_SetAttributes: "tr, uint8_t, uint8_t",
  Esys_PolicySecret: "tr, tr, tr, tr, tr, in, in, in, int32_t, out, out",
  Esys_ActivateCredential: "tr, tr, tr, tr, tr, in, in, out",
  Esys_PCR_Read: "tr, tr, tr, in, outtr, out, out",
  Esys_PCR_Extend: "tr, tr, tr, tr, in",
  Esys_Quote: "tr, tr, tr, tr, in, in, in, out, out",
  Esys_Certify: "tr, tr, tr, tr, tr, in, in, out, out",
  Esys_Sign: "tr, tr, tr, tr, in, in, in, out",
} as const;

export type EsysFunction = keyof typeof ESYS_PROTOTYPES;

const C_TYPES: Readonly<Record<string, string>> = {
  tr: "uint32_t",
  in: "const void *",
  out: "_Out_ void **",
  outtr: "_Out_ uint32_t *",
  inouttr: "_Inout_ uint32_t *",
  outbyte: "_Out_ uint8_t *",
};

/** A pointer as koffi gives it: no C type goes with it. */
export type Pointer = bigint | null;
/** What a native function takes: a single-element array receives an output. */
export type NativeArgument = number | string | Uint8Array | Pointer | (number | Pointer)[];

type NativeSync = (...values: NativeArgument[]) => number;
type NativeAsync = (...values: NativeArgument[]) => Promise<number>;

/** Esys_*, Tss2_TctiLdr_* run on koffi's threads; marshalling is memory work and runs in place. */
export interface TssLibraries {
  readonly esys: Readonly<Record<EsysFunction, NativeAsync>>;
  readonly initialize: NativeAsync;
  readonly finalize: NativeAsync;
  readonly free: (pointer: bigint) => void;
  readonly tctiInitialize: NativeAsync;
  readonly tctiFinalize: NativeAsync;
  readonly decodeRc: (code: number) => string;
  /** `Tss2_MU_<type>_Marshal` and `_Unmarshal`. @throws TypeError for an unknown type */
  readonly mu: (type: string, direction: "Marshal" | "Unmarshal") => NativeSync;
}

/**
 * Loads the libraries. With `deep` (RTLD_DEEPBIND) they keep to the libcrypto that they were built
 * with: Node exports an OpenSSL of its own and would otherwise win for every shared symbol.
 * Sets `TSS2_LOG=all+NONE` in the C environment unless it is set: tpm2-tss writes to stderr on every
 * error, which would put response codes into whatever the process prints.
 * @throws `ATTEST_TSS_MISSING`
 */
export function loadTss(): TssLibraries {
  koffi.load(null).func("int setenv(const char *, const char *, int)")("TSS2_LOG", "all+NONE", 0);
  const esys = load("esys");
  const mu = load("mu");
  const tctildr = load("tctildr");
  const decode = load("rc").func("const char *Tss2_RC_Decode(uint32_t)");
  const free = esys.func("void Esys_Free(void *)");
  const marshallers = new Map<string, NativeSync>();
  return {
    esys: esysFunctions(esys),
    initialize: asynchronous(
      esys.func("uint32_t Esys_Initialize(_Out_ void **, void *, const void *)"),
    ),
    finalize: asynchronous(esys.func("void Esys_Finalize(_Inout_ void **)")),
    free: (pointer) => void free(pointer),
    tctiInitialize: asynchronous(
      tctildr.func("uint32_t Tss2_TctiLdr_Initialize(const char *, _Out_ void **)"),
    ),
    tctiFinalize: asynchronous(tctildr.func("void Tss2_TctiLdr_Finalize(_Inout_ void **)")),
    decodeRc: (code) => String(decode(code)),
    mu: (type, direction) => {
      const name = `Tss2_MU_${type}_${direction}`;
      const known = marshallers.get(name) ?? muFunction(mu, name, direction);
      marshallers.set(name, known);
      return known;
    },
  };
}

function load(library: keyof typeof LIBRARIES): LibraryHandle {
  try {
    return koffi.load(LIBRARIES[library].soname, { deep: true });
  } catch (cause) {
    const packages = Object.values(LIBRARIES).map((row) => row.debian);
    const message =
      `${LIBRARIES[library].soname} cannot be loaded: install tpm2-tss, ` +
      `on Debian with "apt install ${packages.join(" ")} libtss2-tcti-device0"`;
    throw new StileError("ATTEST_TSS_MISSING", message, { cause });
  }
}

function esysFunctions(library: LibraryHandle): TssLibraries["esys"] {
  const entries = Object.entries(ESYS_PROTOTYPES).map(([name, parameters]) => {
    const types = parameters.split(", ").map((type) => C_TYPES[type] ?? type);
    const native = library.func(`uint32_t ${name}(void *, ${types.join(", ")})`);
    return [name, asynchronous(native)] as const;
  });
  // The keys are those of the table that is mapped.
  return Object.fromEntries(entries) as Record<EsysFunction, NativeAsync>;
}

function muFunction(
  library: LibraryHandle,
  name: string,
  direction: "Marshal" | "Unmarshal",
): NativeSync {
  const parameters =
    direction === "Marshal"
      ? "const void *, void *, size_t, _Inout_ size_t *"
      : "const void *, size_t, _Inout_ size_t *, void *";
  return library.func(`uint32_t ${name}(${parameters})`) as NativeSync;
}

/** koffi types its asynchronous form as `any`: this is the one place that gives it a type. */
function asynchronous(native: KoffiFunc<NativeSync>): NativeAsync {
  return (...values) =>
    new Promise((resolve, reject) => {
      native.async(...values, (error: unknown, result: number) => {
        if (error === null || error === undefined) resolve(result);
        else reject(error instanceof Error ? error : new Error("koffi call failed"));
      });
    });
}
