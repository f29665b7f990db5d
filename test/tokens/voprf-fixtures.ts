/** Issuer keys of the private types, and the signer and verifier over them, without a worker pool. */
import { randomBytes } from "node:crypto";
import {
  type BlindSigner,
  createKeyRing,
  createIssuer,
  DEFAULT_BATCH_LIMITS,
  type Issuer,
  type IssuerKeyRecord,
  type KeyRing,
  type PrivateTokenVerifier,
} from "../../tokens/index.ts";
import {
  createVoprfEngine,
  createVoprfEvaluator,
  generateVoprfKey,
  importVoprfKey,
  type Voprf,
  type VoprfTokenType,
} from "../../tokens/voprf/index.ts";
import { encodeHex, StileError } from "../../wire/index.ts";
import {
  DAY_MS,
  ofOwnTruncatedId,
  START_MS,
  testClock,
  type TestKey,
  testSigner,
} from "./fixtures.ts";

export const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));

const engines = new Map<VoprfTokenType, Voprf>();

export function voprfOf(type: VoprfTokenType): Voprf {
  const voprf = engines.get(type) ?? createVoprfEngine(type, "native");
  engines.set(type, voprf);
  return voprf;
}

/** An active key of one day; of the given scalar, or fresh. */
export function voprfKey(type: VoprfTokenType, scalar?: Uint8Array): TestKey {
  const voprf = voprfOf(type);
  const pair = scalar
    ? importVoprfKey(voprf, scalar)
    : ofOwnTruncatedId(() => generateVoprfKey(voprf, random));
  const record: IssuerKeyRecord = {
    tokenType: type,
    tokenKeyId: pair.tokenKeyId,
    publicKeySpki: pair.tokenKey,
    publishedAtMs: START_MS,
    notBeforeMs: START_MS,
    retireAtMs: START_MS + DAY_MS,
    destroyAtMs: START_MS + 2 * DAY_MS,
  };
  return { privateKey: pair.privateKey, record };
}

/** The signer of keys of all types, and the verifier of the private ones. */
export function mixedSigner(keys: readonly TestKey[]): BlindSigner & PrivateTokenVerifier {
  const rsa = testSigner(keys.filter(({ record }) => record.tokenType === 2));
  const keyOf = (tokenKeyId: Uint8Array): TestKey => {
    const id = encodeHex(tokenKeyId);
    const key = keys.find(({ record }) => encodeHex(record.tokenKeyId) === id);
    if (key === undefined) throw new StileError("TOKEN_KEY_UNKNOWN", "no such key");
    return key;
  };
  const evaluatorOf = (key: TestKey): ReturnType<typeof createVoprfEvaluator> =>
    createVoprfEvaluator(voprfOf(key.record.tokenType as VoprfTokenType), key.privateKey, random);
  return {
    async blindSign(tokenKeyId, blindedMessage) {
      const key = keyOf(tokenKeyId);
      if (key.record.tokenType === 2) return rsa.blindSign(tokenKeyId, blindedMessage);
      return evaluatorOf(key).issue(blindedMessage);
    },
    async verifyPrivate(tokenKeyId, input, authenticator) {
      return evaluatorOf(keyOf(tokenKeyId)).verify(input, authenticator);
    },
  };
}

export function mixedIssuer(keys: readonly TestKey[]): { issuer: Issuer; keyRing: KeyRing } {
  const clock = testClock();
  const keyRing = createKeyRing({ records: keys.map(({ record }) => record), clock });
  const limits = DEFAULT_BATCH_LIMITS;
  const signer = mixedSigner(keys);
  return { issuer: createIssuer({ keyRing, signer, limits, batchConcurrency: 4 }), keyRing };
}
