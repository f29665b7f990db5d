/**
 * The client's side of the VOPRF, RFC 9497 §3.3.2, in mode 0x01: Blind, and Finalize after the proof was checked.
 * A blind is used once and then forgotten. It is inverted in JavaScript numbers, whose time depends on it: nobody
 * can measure that twice, and a private key, which is used again and again, never comes here.
 */
import { invert } from "@noble/curves/abstract/modular";
import {
  bytesToNumberBE,
  bytesToNumberLE,
  numberToBytesBE,
  numberToBytesLE,
} from "@noble/curves/abstract/utils";
import { ed25519 } from "@noble/curves/ed25519";
import { p384 } from "@noble/curves/p384";
import { concatBytes, encodeUtf8, Writer } from "../../wire/index.ts";
import { TOKEN_TYPE_VOPRF_P384 } from "../structures/token-types.ts";
import { createVoprfDomain } from "./domain.ts";
import { groupFor, type VoprfEnginePreference } from "./engine.ts";
import { voprfCiphersuite, type VoprfTokenType } from "./group.ts";
import { createVoprf } from "./protocol.ts";

/** What a client keeps of a blinded input. Secret until the token is made. */
export interface BlindedInput {
  readonly input: Uint8Array;
  readonly blind: Uint8Array;
  /** Ne bytes: what is sent. */
  readonly blindedElement: Uint8Array;
}

export interface VoprfClient {
  /** Ne bytes of an element: what a token key is. Hostile input. */
  isElement(bytes: Uint8Array): boolean;
  /** A blind out of `uniformLength` bytes of randomness. */
  blindOf(uniform: Uint8Array): Uint8Array;
  readonly uniformLength: number;
  /** @param input at most 65,535 bytes */
  blind(input: Uint8Array, blind: Uint8Array): BlindedInput;
  /**
   * The outputs, Nh bytes each, in the order of the inputs; undefined where the proof does not hold.
   * @param response hostile: the evaluated elements end to end, then one proof for all
   */
  finalize(
    publicKey: Uint8Array,
    blinded: readonly BlindedInput[],
    response: Uint8Array,
  ): readonly Uint8Array[] | undefined;
}

export function createVoprfClient(
  tokenType: VoprfTokenType,
  preference: VoprfEnginePreference,
): VoprfClient {
  const suite = voprfCiphersuite(tokenType);
  const group = groupFor(tokenType, preference);
  const domain = createVoprfDomain(suite, group);
  const voprf = createVoprf(suite, group);
  const inverse = tokenType === TOKEN_TYPE_VOPRF_P384 ? inverseP384 : inverseRistretto255;

  function outputOf({ blind, input }: BlindedInput, evaluated: Uint8Array): Uint8Array {
    // N = G.ScalarInverse(blind) * evaluatedElement
    const element = group.multiply(inverse(blind), evaluated);
    const transcript = new Writer().vec16(input).vec16(element).bytes(encodeUtf8("Finalize"));
    return domain.hash(transcript.finish());
  }

  return {
    uniformLength: suite.uniformLength,
    isElement: (bytes) => bytes.length === suite.Ne && group.isElement(bytes),
    blindOf: (uniform) => voprf.nonceOf(uniform),
    blind: (input, blind) => {
      const blindedElement = group.multiply(blind, domain.hashToGroup(input));
      return { input, blind, blindedElement };
    },
    finalize(publicKey, blinded, response) {
      const sent = concatBytes(blinded.map(({ blindedElement }) => blindedElement));
      if (!voprf.verifyResponse(publicKey, sent, response)) return undefined;
      return blinded.map((one, i) =>
        outputOf(one, response.subarray(i * suite.Ne, (i + 1) * suite.Ne)),
      );
    },
  };
}

function inverseP384(scalar: Uint8Array): Uint8Array {
  return numberToBytesBE(invert(bytesToNumberBE(scalar), p384.CURVE.n), scalar.length);
}

function inverseRistretto255(scalar: Uint8Array): Uint8Array {
  return numberToBytesLE(invert(bytesToNumberLE(scalar), ed25519.CURVE.n), scalar.length);
}
