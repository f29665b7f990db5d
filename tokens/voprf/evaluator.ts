/**
 * What a signing thread does with the key of a private token type: answer a request, and verify a token
 * (RFC 9578 §5.2, §5.4). Synchronous, 0.3 to 4 ms: run it off the event loop.
 *
 * The scalar is a copy for one call and is wiped after it. The time of an answer depends on how many
 * elements were sent and on public values, not on the key (see the heads of the two engines); with the
 * portable engine it does, which is why that one is asked for by name.
 */
import type { KeyObject } from "node:crypto";
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import type { Voprf } from "./protocol.ts";

export interface VoprfEvaluator {
  /**
   * The TokenResponse of a request or of an amortized batch: every element evaluated, then one proof.
   * @param blinded hostile
   * @throws `TOKEN_REQUEST_INVALID` for anything but elements of the group
   */
  issue(blinded: Uint8Array): Uint8Array<ArrayBuffer>;
  /** True when `authenticator` is that of `authenticatorInput` under the key; both are hostile. */
  verify(authenticatorInput: Uint8Array, authenticator: Uint8Array): boolean;
}

/**
 * @param privateKey of `importVoprfKey` of the same suite
 * @throws `TOKEN_KEY_STORE_INVALID` for any other key
 */
export function createVoprfEvaluator(
  voprf: Voprf,
  privateKey: KeyObject,
  random: (length: number) => Uint8Array,
): VoprfEvaluator {
  const publicKey = withSecret(privateKey, (key) => {
    if (voprf.isKey(key)) return voprf.publicKeyOf(key);
    throw new StileError("TOKEN_KEY_STORE_INVALID", "expected a private key of the suite");
  });
  return {
    issue: (blinded) =>
      withSecret(privateKey, (key) => {
        const uniform = random(voprf.suite.uniformLength);
        const nonce = voprf.nonceOf(uniform);
        try {
          return voprf.blindEvaluate(key, publicKey, blinded, nonce);
        } finally {
          uniform.fill(0);
          nonce.fill(0);
        }
      }),
    verify: (authenticatorInput, authenticator) => {
      const expected = withSecret(privateKey, (key) => voprf.evaluate(key, authenticatorInput));
      return constantTimeEqual(expected, authenticator);
    },
  };
}

function withSecret<T>(privateKey: KeyObject, use: (key: Uint8Array) => T): T {
  const key = privateKey.export();
  try {
    return use(key);
  } finally {
    key.fill(0);
  }
}
