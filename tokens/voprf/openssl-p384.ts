/**
 * P-384 on OpenSSL's EC_POINT_mul, as NIST SP 800-186 has the curve: 11 times as fast as big integers in
 * JavaScript, synchronous, so for a worker thread. Every pointer of a call is freed before it returns.
 *
 * Timing of what is secret (the key k and the nonce r of a proof):
 * - A product of one scalar and one point takes OpenSSL's Montgomery ladder (ec_scalar_mul_ladder) over
 *   the fixed length of the order, with swaps instead of branches and blinded coordinates. Products of
 *   public scalars take the faster wNAF: {@link VoprfGroup.combine} adds a generator term of zero to
 *   get there, and no secret may come that way.
 * - `respond` multiplies only (see there): OpenSSL's public subtraction modulo n branches on which of
 *   two values is larger, and with s known that is a bit of k in each proof.
 * - BN_nnmod divides by shifts of fixed length (bn_div_fixed_top) and BN_bn2binpad reads all words.
 * Numbers have no leading zero words but for a chance of 2^-64, which is all that their length can tell.
 */
import { P384_SHA384, type VoprfGroup } from "./group.ts";
import { type Libcrypto, loadLibcrypto, type Pointer } from "../openssl/libcrypto.ts";
import { made, type Scope, succeeded, withScope } from "../openssl/scope.ts";
import { hashToP384Element } from "./noble-groups.ts";

const NID_SECP384R1 = 715;
const POINT_CONVERSION_COMPRESSED = 2;
const { Ne, Ns } = P384_SHA384;

/** What lives as long as the process: not shared with another thread, since a BN_CTX must not be. */
interface Curve {
  readonly lib: Libcrypto;
  readonly group: Pointer;
  readonly order: Pointer;
  readonly context: Pointer;
  readonly montgomery: Pointer;
  /** n + 1 and n - 2. */
  readonly orderPlusOne: Pointer;
  readonly orderMinusTwo: Pointer;
}

/** `undefined` where the runtime exports no OpenSSL. */
export function createOpensslP384(): VoprfGroup | undefined {
  const lib = loadLibcrypto();
  return lib && groupOf(curveOf(lib));
}

function curveOf(lib: Libcrypto): Curve {
  const group = made(lib.newGroup(NID_SECP384R1));
  const order = made(lib.groupOrder(group));
  const context = made(lib.newContext());
  const montgomery = made(lib.newMontgomery());
  succeeded(lib.setMontgomery(montgomery, order, context));
  const bytes = new Uint8Array(Ns);
  succeeded(lib.encodeNumber(order, bytes, Ns) === Ns ? 1 : 0);
  const orderPlusOne = made(lib.decodeNumber(bytes, Ns, null));
  const orderMinusTwo = made(lib.decodeNumber(bytes, Ns, null));
  succeeded(lib.addWord(orderPlusOne, 1));
  succeeded(lib.subtractWord(orderMinusTwo, 2));
  return { lib, group, order, context, montgomery, orderPlusOne, orderMinusTwo };
}

function groupOf(curve: Curve): VoprfGroup {
  const { lib, group, context, order } = curve;
  return {
    engine: `openssl ${lib.version}`,
    isElement: (bytes) =>
      bytes.length === Ne &&
      withScope(lib, (scope) => {
        const isValid = lib.decodePoint(group, scope.point(group), bytes, Ne, context) === 1;
        // a refusal leaves its reason in the thread's error queue, which node:crypto reads
        if (!isValid) lib.clearErrors();
        return isValid;
      }),
    isScalar: (bytes) =>
      bytes.length === Ns &&
      withScope(lib, (scope) => {
        const value = scope.number(bytes);
        return lib.isZero(value) === 0 && lib.compare(value, order) < 0;
      }),
    multiply: (scalar, element) =>
      withScope(lib, (scope) => {
        const out = scope.point(group);
        const point = decoded(curve, scope, element);
        succeeded(lib.multiply(group, out, null, point, scope.number(scalar), context));
        return encoded(curve, out);
      }),
    multiplyBase: (scalar) =>
      withScope(lib, (scope) => {
        const out = scope.point(group);
        succeeded(lib.multiply(group, out, scope.number(scalar), null, null, context));
        return encoded(curve, out);
      }),
    combine: (scalars, elements) =>
      withScope(lib, (scope) => combined(curve, scope, scalars, elements)),
    reduce: (uniform) =>
      withScope(lib, (scope) => {
        const out = scope.zero();
        succeeded(lib.modulo(out, scope.number(uniform), order, context));
        return scalarBytes(lib, out);
      }),
    respond: (nonce, challenge, key) =>
      withScope(lib, (scope) => responded(curve, scope, nonce, challenge, key)),
    hashToGroup: hashToP384Element,
  };
}

/** Public scalars only: see the head of this file. */
function combined(
  curve: Curve,
  scope: Scope,
  scalars: readonly Uint8Array[],
  elements: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const { lib, group, context } = curve;
  if (scalars.length !== elements.length) throw new RangeError("expected as many scalars");
  const zero = scope.zero();
  // a point of EC_POINT_new is the identity
  const sum = scope.point(group);
  const points = elements.map((element) => decoded(curve, scope, element));
  const factors = scalars.map((scalar) => scope.number(scalar));
  if (lib.multiplySum !== undefined && points.length > 1) {
    // one chain of doublings for all of them: a fifth of the time
    succeeded(lib.multiplySum(group, sum, zero, points.length, points, factors, context));
    return encoded(curve, sum);
  }
  const term = scope.point(group);
  for (const [i, point] of points.entries()) {
    succeeded(lib.multiply(group, term, zero, point, factors[i] ?? zero, context));
    succeeded(lib.addPoints(group, sum, sum, term, context));
  }
  return encoded(curve, sum);
}

/**
 * s = r - c * k mod n as r * (1 - c * k / r): `n + 1 - y` for a y below n needs no reduction, and the
 * Montgomery product that follows has none that branches. The inverse is r^(n - 2), by an exponentiation
 * in constant time.
 */
function responded(
  curve: Curve,
  scope: Scope,
  nonce: Uint8Array,
  challenge: Uint8Array,
  key: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const { lib, order, context, montgomery } = curve;
  const times = (a: Pointer, b: Pointer): Pointer => {
    const out = scope.zero();
    succeeded(lib.multiplyMontgomery(out, a, b, montgomery, context));
    return out;
  };
  const shifted = (a: Pointer): Pointer => {
    const out = scope.zero();
    succeeded(lib.toMontgomery(out, a, montgomery, context));
    return out;
  };
  const r = scope.number(nonce);
  const inverse = scope.zero();
  succeeded(
    lib.exponentiateConstantTime(inverse, r, curve.orderMinusTwo, order, context, montgomery),
  );
  // one factor of a product in Montgomery form, so that the product is not
  const y = times(shifted(times(shifted(scope.number(challenge)), scope.number(key))), inverse);
  const difference = scope.zero();
  succeeded(lib.subtract(difference, curve.orderPlusOne, y));
  return scalarBytes(lib, times(shifted(difference), r));
}

function decoded(curve: Curve, scope: Scope, element: Uint8Array): Pointer {
  const point = scope.point(curve.group);
  const { lib, group, context } = curve;
  const result = element.length === Ne ? lib.decodePoint(group, point, element, Ne, context) : 0;
  if (result !== 1) throw new RangeError("P-384: expected an element of the group");
  return point;
}

function encoded(curve: Curve, point: Pointer): Uint8Array<ArrayBuffer> {
  const { lib, group, context } = curve;
  const out = new Uint8Array(Ne);
  const form = POINT_CONVERSION_COMPRESSED;
  // the identity has an encoding of one byte
  succeeded(lib.encodePoint(group, point, form, out, Ne, context) === Ne ? 1 : 0);
  return out;
}

function scalarBytes(lib: Libcrypto, value: Pointer): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(Ns);
  succeeded(lib.encodeNumber(value, out, Ns) === Ns ? 1 : 0);
  return out;
}
