/**
 * The functions of OpenSSL's libcrypto that P-384 and partially blind RSA need, out of the OpenSSL that the
 * Node binary itself exports: no second library, and the one that Node's own updates keep current. Only declarations; a
 * runtime that exports none of them (another engine) gives `undefined`.
 */
import koffi from "koffi";

/** A pointer as koffi gives it. */
export type Pointer = bigint;
type Nullable = Pointer | null;

/** By the names of OpenSSL's manual. Integer results are 1 for success. */
export interface Libcrypto {
  readonly version: string;
  readonly newGroup: (nid: number) => Nullable;
  readonly groupOrder: (group: Pointer) => Nullable;
  readonly newContext: () => Nullable;
  readonly freeContext: (context: Pointer) => void;
  readonly newMontgomery: () => Nullable;
  readonly freeMontgomery: (montgomery: Pointer) => void;
  readonly setMontgomery: (montgomery: Pointer, modulus: Pointer, context: Pointer) => number;
  readonly newPoint: (group: Pointer) => Nullable;
  readonly clearFreePoint: (point: Pointer) => void;
  readonly decodePoint: (
    group: Pointer,
    point: Pointer,
    bytes: Uint8Array,
    length: number,
    context: Pointer,
  ) => number;
  readonly encodePoint: (
    group: Pointer,
    point: Pointer,
    form: number,
    out: Uint8Array,
    length: number,
    context: Pointer,
  ) => number;
  readonly multiply: (
    group: Pointer,
    out: Pointer,
    generatorScalar: Nullable,
    point: Nullable,
    scalar: Nullable,
    context: Pointer,
  ) => number;
  /** Deprecated by OpenSSL 3, and missing where it is built without such functions. */
  readonly multiplySum?: (
    group: Pointer,
    out: Pointer,
    generatorScalar: Pointer,
    count: number,
    points: readonly Pointer[],
    scalars: readonly Pointer[],
    context: Pointer,
  ) => number;
  readonly addPoints: (
    group: Pointer,
    out: Pointer,
    a: Pointer,
    b: Pointer,
    context: Pointer,
  ) => number;
  readonly newNumber: () => Nullable;
  readonly decodeNumber: (bytes: Uint8Array, length: number, out: null) => Nullable;
  readonly encodeNumber: (value: Pointer, out: Uint8Array, length: number) => number;
  readonly clearFreeNumber: (value: Pointer) => void;
  readonly setFlags: (value: Pointer, flags: number) => void;
  readonly isZero: (value: Pointer) => number;
  readonly compare: (a: Pointer, b: Pointer) => number;
  readonly subtract: (out: Pointer, a: Pointer, b: Pointer) => number;
  readonly addWord: (value: Pointer, word: number) => number;
  readonly subtractWord: (value: Pointer, word: number) => number;
  readonly halve: (out: Pointer, a: Pointer) => number;
  readonly double: (out: Pointer, a: Pointer) => number;
  readonly multiplyNumbers: (out: Pointer, a: Pointer, b: Pointer, context: Pointer) => number;
  readonly modulo: (out: Pointer, a: Pointer, modulus: Pointer, context: Pointer) => number;
  readonly toMontgomery: (out: Pointer, a: Pointer, mont: Pointer, context: Pointer) => number;
  readonly multiplyMontgomery: (
    out: Pointer,
    a: Pointer,
    b: Pointer,
    mont: Pointer,
    context: Pointer,
  ) => number;
  readonly exponentiateConstantTime: (
    out: Pointer,
    base: Pointer,
    exponent: Pointer,
    modulus: Pointer,
    context: Pointer,
    mont: Pointer,
  ) => number;
  readonly clearErrors: () => void;
}

/** Of the running Node binary. */
export function loadLibcrypto(): Libcrypto | undefined {
  try {
    return functions();
  } catch {
    return undefined;
  }
}

function functions(): Libcrypto {
  const process = koffi.load(null);
  const multiplySum = optional(() =>
    process.func("int EC_POINTs_mul(void *, void *, void *, size_t, void **, void **, void *)"),
  );
  const version: string = process.func("const char *OpenSSL_version(int)")(6);
  return {
    version,
    newGroup: process.func("void *EC_GROUP_new_by_curve_name(int)"),
    groupOrder: process.func("void *EC_GROUP_get0_order(void *)"),
    newContext: process.func("void *BN_CTX_new()"),
    freeContext: process.func("void BN_CTX_free(void *)"),
    newMontgomery: process.func("void *BN_MONT_CTX_new()"),
    freeMontgomery: process.func("void BN_MONT_CTX_free(void *)"),
    setMontgomery: process.func("int BN_MONT_CTX_set(void *, void *, void *)"),
    newPoint: process.func("void *EC_POINT_new(void *)"),
    clearFreePoint: process.func("void EC_POINT_clear_free(void *)"),
    decodePoint: process.func(
      "int EC_POINT_oct2point(void *, void *, const uint8_t *, size_t, void *)",
    ),
    encodePoint: process.func(
      "size_t EC_POINT_point2oct(void *, void *, int, uint8_t *, size_t, void *)",
    ),
    multiply: process.func("int EC_POINT_mul(void *, void *, void *, void *, void *, void *)"),
    ...(multiplySum && { multiplySum }),
    addPoints: process.func("int EC_POINT_add(void *, void *, void *, void *, void *)"),
    newNumber: process.func("void *BN_secure_new()"),
    decodeNumber: process.func("void *BN_bin2bn(const uint8_t *, int, void *)"),
    encodeNumber: process.func("int BN_bn2binpad(void *, uint8_t *, int)"),
    clearFreeNumber: process.func("void BN_clear_free(void *)"),
    setFlags: process.func("void BN_set_flags(void *, int)"),
    isZero: process.func("int BN_is_zero(void *)"),
    compare: process.func("int BN_ucmp(void *, void *)"),
    subtract: process.func("int BN_usub(void *, void *, void *)"),
    addWord: process.func("int BN_add_word(void *, uint64_t)"),
    subtractWord: process.func("int BN_sub_word(void *, uint64_t)"),
    halve: process.func("int BN_rshift1(void *, void *)"),
    double: process.func("int BN_lshift1(void *, void *)"),
    multiplyNumbers: process.func("int BN_mul(void *, void *, void *, void *)"),
    modulo: process.func("int BN_nnmod(void *, void *, void *, void *)"),
    toMontgomery: process.func("int BN_to_montgomery(void *, void *, void *, void *)"),
    multiplyMontgomery: process.func(
      "int BN_mod_mul_montgomery(void *, void *, void *, void *, void *)",
    ),
    exponentiateConstantTime: process.func(
      "int BN_mod_exp_mont_consttime(void *, void *, void *, void *, void *, void *)",
    ),
    clearErrors: process.func("void ERR_clear_error()"),
  };
}

function optional<T>(load: () => T): T | undefined {
  try {
    return load();
  } catch {
    return undefined;
  }
}
