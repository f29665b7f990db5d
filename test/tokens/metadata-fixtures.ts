/** The vectors of token type 0xDA7A, and their key: safe primes are found in seconds, and tests have no such time. */
import { createPrivateKey, type KeyObject } from "node:crypto";
import {
  Extension as LibraryExtension,
  Extensions as LibraryExtensions,
  publicVerif,
  TokenChallenge as LibraryTokenChallenge,
} from "@cloudflare/privacypass-ts";
import { expect } from "vitest";
import {
  type BlindSigner,
  type Extension,
  parseTokenChallenge,
  TOKEN_TYPE_PARTIALLY_BLIND_RSA,
} from "../../tokens/index.ts";
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

/** The client, issuer and origin of privacypass-ts. */
export function libraryExtensions(extensions: readonly Extension[]): LibraryExtensions {
  return new LibraryExtensions(
    extensions.map(
      ({ extensionData, extensionType }) =>
        new LibraryExtension(extensionType, Uint8Array.from(extensionData)),
    ),
  );
}

export async function libraryRequest(
  challenge: Uint8Array,
  tokenKey: Uint8Array,
  extensions: readonly Extension[],
): Promise<{ client: publicVerif.ClientWithMetadata; body: Uint8Array }> {
  const { issuerName, originInfo, redemptionContext, tokenType } = parseTokenChallenge(challenge);
  const libraryChallenge = new LibraryTokenChallenge(
    tokenType,
    issuerName,
    Uint8Array.from(redemptionContext),
    [originInfo],
  );
  expect(libraryChallenge.serialize()).toEqual(Uint8Array.from(challenge));
  const client = new publicVerif.ClientWithMetadata(
    publicVerif.BlindRSAMode.PSS,
    libraryExtensions(extensions),
  );
  const request = await client.createTokenRequest(libraryChallenge, Uint8Array.from(tokenKey));
  return { client, body: request.serialize() };
}

export async function libraryKeys(): Promise<{ privateKey: CryptoKey; publicKey: CryptoKey }> {
  const { privateKey } = metadataKey();
  const algorithm = { name: "RSA-PSS", hash: "SHA-384" };
  const { subtle } = globalThis.crypto;
  const pkcs8 = Uint8Array.from(privateKey.export({ format: "der", type: "pkcs8" }));
  const { e = "", kty = "", n = "" } = privateKey.export({ format: "jwk" });
  return {
    privateKey: await subtle.importKey("pkcs8", pkcs8, algorithm, true, ["sign"]),
    publicKey: await subtle.importKey("jwk", { e, kty, n }, algorithm, true, ["verify"]),
  };
}
