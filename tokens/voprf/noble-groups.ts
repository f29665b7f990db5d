/**
 * The two groups on @noble/curves: portable, and slow. It computes with JavaScript big integers, whose
 * time depends on their values, so that a key which it uses can leak to whoever measures many answers:
 * it serves where no native library can be loaded and the operator has said so, and as a second opinion
 * in tests. The hash to P-384 is its work in every configuration: its inputs are no secrets.
 */
import { mod } from "@noble/curves/abstract/modular";
import {
  bytesToNumberBE,
  bytesToNumberLE,
  numberToBytesBE,
  numberToBytesLE,
} from "@noble/curves/abstract/utils";
import { ed25519, RistrettoPoint } from "@noble/curves/ed25519";
import { hashToCurve as hashToP384, p384 } from "@noble/curves/p384";
import { expandMessageXmd } from "./expand-message.ts";
import { P384_SHA384, RISTRETTO255_SHA512, type VoprfGroup } from "./group.ts";

const ENGINE = "noble";

/** What both point classes of the library have. */
interface Point<P> {
  add(other: P): P;
  multiply(scalar: bigint): P;
  toRawBytes(): Uint8Array;
}

interface Parts<P extends Point<P>> {
  readonly order: bigint;
  readonly base: P;
  readonly zero: P;
  readonly Ns: number;
  /** @throws for anything but a canonical element other than the identity */
  readonly decode: (bytes: Uint8Array) => P;
  readonly toNumber: (bytes: Uint8Array) => bigint;
  readonly toBytes: (value: bigint, length: number) => Uint8Array;
  readonly hashToGroup: VoprfGroup["hashToGroup"];
}

export function createNobleP384(): VoprfGroup {
  return groupOf({
    order: p384.CURVE.n,
    base: p384.ProjectivePoint.BASE,
    zero: p384.ProjectivePoint.ZERO,
    Ns: P384_SHA384.Ns,
    decode(bytes) {
      if (bytes.length !== P384_SHA384.Ne) throw new RangeError("expected a compressed point");
      return p384.ProjectivePoint.fromHex(bytes);
    },
    toNumber: bytesToNumberBE,
    toBytes: numberToBytesBE,
    hashToGroup: hashToP384Element,
  });
}

export function createNobleRistretto255(): VoprfGroup {
  return groupOf({
    order: ed25519.CURVE.n,
    base: RistrettoPoint.BASE,
    zero: RistrettoPoint.ZERO,
    Ns: RISTRETTO255_SHA512.Ns,
    decode(bytes) {
      if (bytes.every((byte) => byte === 0)) throw new RangeError("expected no identity");
      return RistrettoPoint.fromHex(bytes);
    },
    toNumber: bytesToNumberLE,
    toBytes: numberToBytesLE,
    // hash_to_ristretto255, RFC 9380 appendix B
    hashToGroup(input, dst) {
      const uniform = expandMessageXmd(RISTRETTO255_SHA512, input, dst, 64);
      return Uint8Array.from(RistrettoPoint.hashToCurve(uniform).toRawBytes());
    },
  });
}

/** P384_XMD:SHA-384_SSWU_RO_, RFC 9380 §8.3, as a compressed point. */
export function hashToP384Element(input: Uint8Array, dst: Uint8Array): Uint8Array<ArrayBuffer> {
  const point = p384.ProjectivePoint.fromAffine(hashToP384(input, { DST: dst }).toAffine());
  return Uint8Array.from(point.toRawBytes(true));
}

function groupOf<P extends Point<P>>(parts: Parts<P>): VoprfGroup {
  const { order, base, zero, Ns, decode, toNumber, toBytes, hashToGroup } = parts;
  const encode = (point: P): Uint8Array<ArrayBuffer> => Uint8Array.from(point.toRawBytes());
  const scalarOf = (value: bigint): Uint8Array<ArrayBuffer> =>
    Uint8Array.from(toBytes(mod(value, order), Ns));
  return {
    engine: ENGINE,
    isElement(bytes) {
      try {
        decode(bytes);
        return true;
      } catch {
        return false;
      }
    },
    isScalar(bytes) {
      const value = toNumber(bytes);
      return bytes.length === Ns && value > 0n && value < order;
    },
    multiply: (scalar, element) => encode(decode(element).multiply(toNumber(scalar))),
    multiplyBase: (scalar) => encode(base.multiply(toNumber(scalar))),
    combine(scalars, elements) {
      const terms = elements.map((one, i) => decode(one).multiply(toNumber(at(scalars, i))));
      return encode(terms.reduce((sum, term) => sum.add(term), zero));
    },
    reduce: (uniform) => scalarOf(toNumber(uniform)),
    respond: (nonce, challenge, key) =>
      scalarOf(toNumber(nonce) - toNumber(challenge) * toNumber(key)),
    hashToGroup,
  };
}

function at(scalars: readonly Uint8Array[], index: number): Uint8Array {
  const scalar = scalars[index];
  if (scalar === undefined) throw new RangeError("expected a scalar for each element");
  return scalar;
}
