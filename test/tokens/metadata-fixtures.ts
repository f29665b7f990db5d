/** The vectors of token type 0xDA7A, and their key: safe primes are found in seconds, and tests have no such time. */
import { createPrivateKey, type KeyObject } from "node:crypto";
import { expect } from "vitest";
import { type BlindSigner, TOKEN_TYPE_PARTIALLY_BLIND_RSA } from "../../tokens/index.ts";
import { createPartiallyBlindSigner } from "../../tokens/partially-blind-rsa/index.ts";
import { crypto, DAY_MS, START_MS, type TestKey } from "./fixtures.ts";
import { bytesOf, readVectors, type Vector } from "./vectors.ts";

export function metadataVectors(): readonly Vector[] {
  return readVectors("privacypass-ts/pub_verif_with_metadata_v3.json");
}

export function privateKeyOf(vector: Vector): KeyObject {
  return createPrivateKey(Buffer.from(bytesOf(vector, "skS")));
}

/** An active key of type 0xDA7A of one day, redeemable for another; its private key is published. */
export function metadataKey(): TestKey {
  const [vector] = metadataVectors();
  if (vector === undefined) throw new Error("no vector");
  const publicKeySpki = bytesOf(vector, "pkS");
  const record = {
    tokenType: TOKEN_TYPE_PARTIALLY_BLIND_RSA,
    publicKeySpki,
    tokenKeyId: crypto.sha256(publicKeySpki),
    publishedAtMs: START_MS,
    notBeforeMs: START_MS,
    retireAtMs: START_MS + DAY_MS,
    destroyAtMs: START_MS + 2 * DAY_MS,
  };
  return { privateKey: privateKeyOf(vector), record };
}

export function metadataSigner({ privateKey, record }: TestKey): BlindSigner & { calls: number } {
  const signer = createPartiallyBlindSigner(privateKey);
  return {
    calls: 0,
    async blindSign(tokenKeyId, blindedMessage, metadata) {
      this.calls += 1;
      expect([tokenKeyId, metadata]).toEqual([record.tokenKeyId, expect.any(Uint8Array)]);
      return signer.sign(blindedMessage, metadata ?? new Uint8Array(0));
    },
  };
}
