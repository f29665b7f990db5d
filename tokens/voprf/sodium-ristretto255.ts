/**
 * ristretto255 on libsodium (`crypto_core_ristretto255_*`, `crypto_scalarmult_ristretto255`): 64-bit C,
 * constant time by its design, 25 times as fast as big integers. Synchronous, so for a worker thread.
 *
 * Timing: scalar multiplication walks 64 signed nibbles with table look-ups that read every entry
 * (ge25519_scalarmult, ge25519_scalarmult_base); sc25519_reduce and sc25519_muladd are straight-line.
 * No secret decides a branch or an address, so no masking is added here.
 */
import koffi, { type LibraryHandle } from "koffi";
import { expandMessageXmd } from "./expand-message.ts";
import { RISTRETTO255_SHA512, type VoprfGroup } from "./group.ts";

/** 1.0.18 and, since 1.0.19, the second. */
const SONAMES: readonly string[] = ["libsodium.so.23", "libsodium.so.26", "libsodium.dylib"];

const { Ne, Ns } = RISTRETTO255_SHA512;
const HASH_BYTES = 64;
const ZERO = new Uint8Array(Ns);
/** The order, little endian: 2^252 + 27742317777372353535851937790883648493. */
const ORDER: Uint8Array = Uint8Array.from(
  Buffer.from("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010", "hex"),
);

type Unary = (out: Uint8Array, a: Uint8Array) => number;
type Binary = (out: Uint8Array, a: Uint8Array, b: Uint8Array) => number;

interface Sodium {
  readonly version: string;
  readonly isValidPoint: (element: Uint8Array) => number;
  readonly isZero: (bytes: Uint8Array, length: number) => number;
  readonly compare: (a: Uint8Array, b: Uint8Array, length: number) => number;
  readonly fromHash: Unary;
  readonly add: Binary;
  readonly multiply: Binary;
  readonly multiplyBase: Unary;
  readonly scalarReduce: Unary;
  readonly scalarMul: Binary;
  readonly scalarSub: Binary;
}

/** `undefined` where no libsodium with ristretto255 is installed. */
export function createSodiumRistretto255(): VoprfGroup | undefined {
  const sodium = loadSodium();
  return sodium && groupOf(sodium);
}

function groupOf(sodium: Sodium): VoprfGroup {
  const multiply = (scalar: Uint8Array, element: Uint8Array): Uint8Array<ArrayBuffer> =>
    output(Ne, (out) => sodium.multiply(out, scalar, element));
  return {
    engine: `libsodium ${sodium.version}`,
    // libsodium counts the identity among the valid points
    isElement: (bytes) =>
      bytes.length === Ne && sodium.isZero(bytes, Ne) === 0 && sodium.isValidPoint(bytes) === 1,
    // sodium_compare is constant time and little endian, as the scalars are
    isScalar: (bytes) =>
      bytes.length === Ns &&
      sodium.compare(bytes, ZERO, Ns) === 1 &&
      sodium.compare(bytes, ORDER, Ns) === -1,
    multiply,
    multiplyBase: (scalar) => output(Ne, (out) => sodium.multiplyBase(out, scalar)),
    combine(scalars, elements) {
      if (scalars.length !== elements.length) throw new RangeError("expected as many scalars");
      const [first, ...rest] = elements.map((element, i) => multiply(scalars[i] ?? ZERO, element));
      if (first === undefined) throw new RangeError("expected an element");
      return rest.reduce((sum, term) => output(Ne, (out) => sodium.add(out, sum, term)), first);
    },
    reduce: (uniform) => output(Ns, (out) => sodium.scalarReduce(out, uniform)),
    respond(nonce, challenge, key) {
      const product = output(Ns, (out) => sodium.scalarMul(out, challenge, key));
      const response = output(Ns, (out) => sodium.scalarSub(out, nonce, product));
      // c * k gives k to whoever reads it
      product.fill(0);
      return response;
    },
    hashToGroup(input, dst) {
      const uniform = expandMessageXmd(RISTRETTO255_SHA512, input, dst, HASH_BYTES);
      return output(Ne, (out) => sodium.fromHash(out, uniform));
    },
  };
}

/** The library answers -1 for a point off the group and for a result that is the identity. */
function output(length: number, call: (out: Uint8Array) => number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  if (call(out) !== 0) throw new RangeError("ristretto255: expected elements of the group");
  return out;
}

function loadSodium(): Sodium | undefined {
  for (const soname of SONAMES) {
    try {
      return functionsOf(koffi.load(soname));
    } catch {
      // the next name, and after the last the caller's other engine
    }
  }
  return undefined;
}

function functionsOf(library: LibraryHandle): Sodium {
  const core = (name: string, parameters: string): ((...values: Uint8Array[]) => number) =>
    library.func(`int crypto_core_ristretto255_${name}(${parameters})`);
  // The scalar functions return nothing: they cannot fail.
  const scalar = (name: string, parameters: string): ((...values: Uint8Array[]) => number) => {
    const native = library.func(`void crypto_core_ristretto255_scalar_${name}(${parameters})`);
    return (...values) => {
      native(...values);
      return 0;
    };
  };
  const unary = "uint8_t *, const uint8_t *";
  const binary = "uint8_t *, const uint8_t *, const uint8_t *";
  const initialized: number = library.func("int sodium_init()")();
  if (initialized < 0) throw new TypeError("libsodium does not start");
  return {
    version: String(library.func("const char *sodium_version_string()")()),
    isValidPoint: core("is_valid_point", "const uint8_t *"),
    isZero: library.func("int sodium_is_zero(const uint8_t *, size_t)"),
    compare: library.func("int sodium_compare(const uint8_t *, const uint8_t *, size_t)"),
    fromHash: core("from_hash", unary),
    add: core("add", binary),
    multiply: library.func(`int crypto_scalarmult_ristretto255(${binary})`),
    multiplyBase: library.func(`int crypto_scalarmult_ristretto255_base(${unary})`),
    scalarReduce: scalar("reduce", unary),
    scalarMul: scalar("mul", binary),
    scalarSub: scalar("sub", binary),
  };
}
