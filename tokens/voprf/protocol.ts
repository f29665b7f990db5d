/**
 * The VOPRF protocol, RFC 9497 §2.2, §3.2, §3.3.2, in mode 0x01, over any {@link VoprfGroup}: the
 * issuer's side with its proof, and verifying that proof. Blinding is the client's and not here.
 * Synchronous; a key is a serialized scalar in a buffer of the caller, who wipes it.
 */
import { concatBytes, encodeUtf8, StileError, Writer } from "../../wire/index.ts";
import { createVoprfDomain } from "./domain.ts";
import type { VoprfCiphersuite, VoprfGroup } from "./group.ts";
import { generateProof, verifyProof } from "./proof.ts";

const SEED_BYTES = 32;
/** DeriveKeyPair gives up there: no seed has ever come near it. */
const MAX_DERIVE_COUNTER = 255;

export interface Voprf {
  readonly suite: VoprfCiphersuite;
  /** As {@link VoprfGroup.engine}. */
  readonly engine: string;
  /**
   * DeriveKeyPair, RFC 9497 §3.2.1. The returned key is secret.
   * @param seed 32 secret bytes. @throws RangeError for another length
   */
  deriveKey(seed: Uint8Array, info: Uint8Array): Uint8Array<ArrayBuffer>;
  /** True for Ns bytes that are a scalar other than zero: what every other method expects of a key. */
  isKey(key: Uint8Array): boolean;
  /** Ne bytes. */
  publicKeyOf(key: Uint8Array): Uint8Array<ArrayBuffer>;
  /** True for the canonical encoding of an element other than the identity. Hostile input. */
  isElement(bytes: Uint8Array): boolean;
  /** A scalar out of `uniformLength` bytes of randomness, for {@link blindEvaluate}. */
  nonceOf(uniform: Uint8Array): Uint8Array<ArrayBuffer>;
  /**
   * BlindEvaluate, RFC 9497 §3.3.2: every element by the key, and one proof for all of them.
   * @param blinded one or more elements of Ne bytes, end to end; hostile
   * @param nonce the random scalar of the proof. Used twice, it gives the key away
   * @returns the evaluated elements end to end, then the proof of twice Ns bytes
   * @throws `TOKEN_REQUEST_INVALID` when `blinded` is no list of elements
   */
  blindEvaluate(
    key: Uint8Array,
    publicKey: Uint8Array,
    blinded: Uint8Array,
    nonce: Uint8Array,
  ): Uint8Array<ArrayBuffer>;
  /** VerifyProof, RFC 9497 §2.2.2, over what {@link blindEvaluate} takes and gives; all hostile. */
  verifyResponse(publicKey: Uint8Array, blinded: Uint8Array, response: Uint8Array): boolean;
  /**
   * Evaluate, RFC 9497 §3.3.1: Nh bytes.
   * @param input hostile, at most 65,535 bytes
   */
  evaluate(key: Uint8Array, input: Uint8Array): Uint8Array<ArrayBuffer>;
}

export function createVoprf(suite: VoprfCiphersuite, group: VoprfGroup): Voprf {
  const { Ne, Ns, uniformLength } = suite;
  const domain = createVoprfDomain(suite, group);
  const elementsOf = (bytes: Uint8Array): readonly Uint8Array[] | undefined => {
    const elements = split(bytes, Ne);
    return elements.length > 0 && elements.every((element) => group.isElement(element))
      ? elements
      : undefined;
  };

  return {
    suite,
    engine: group.engine,
    isKey: (key) => group.isScalar(key),
    publicKeyOf: (key) => group.multiplyBase(key),
    isElement: (bytes) => group.isElement(bytes),
    nonceOf(uniform) {
      if (uniform.length !== uniformLength) throw new RangeError("uniform: expected its length");
      return group.reduce(uniform);
    },
    deriveKey(seed, info) {
      if (seed.length !== SEED_BYTES) throw new RangeError("seed: expected 32 bytes");
      for (let counter = 0; counter <= MAX_DERIVE_COUNTER; counter += 1) {
        const input = new Writer().bytes(seed).vec16(info).u8(counter).finish();
        const key = domain.deriveScalar(input);
        input.fill(0);
        if (group.isScalar(key)) return key;
      }
      throw new RangeError("seed: no key can be derived of it");
    },
    blindEvaluate(key, publicKey, bytes, nonce) {
      const blinded = elementsOf(bytes);
      if (blinded === undefined) {
        throw new StileError("TOKEN_REQUEST_INVALID", "blinded_msg: expected group elements");
      }
      const evaluated = blinded.map((element) => group.multiply(key, element));
      const statement = { publicKey, blinded, evaluated };
      return concatBytes([...evaluated, generateProof(group, domain, statement, { key, nonce })]);
    },
    verifyResponse(publicKey, bytes, response) {
      const proofAt = Math.max(response.length - 2 * Ns, 0);
      const blinded = elementsOf(bytes);
      const evaluated = elementsOf(response.subarray(0, proofAt));
      if (blinded === undefined || evaluated?.length !== blinded.length) return false;
      if (!group.isElement(publicKey)) return false;
      const statement = { publicKey, blinded, evaluated };
      return verifyProof(suite, group, domain, statement, response.subarray(proofAt));
    },
    evaluate(key, input) {
      const element = group.multiply(key, domain.hashToGroup(input));
      const transcript = new Writer().vec16(input).vec16(element).bytes(encodeUtf8("Finalize"));
      return domain.hash(transcript.finish());
    },
  };
}

/** The pieces of `size` bytes; none when the length is no multiple of it. */
function split(bytes: Uint8Array, size: number): readonly Uint8Array[] {
  if (bytes.length % size !== 0) return [];
  const count = bytes.length / size;
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}
