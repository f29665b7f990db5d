/** The vectors of token type 0xDA7A, and their key: safe primes are found in seconds, and tests have no such time. */
import { createPrivateKey, type KeyObject } from "node:crypto";
import { bytesOf, readVectors, type Vector } from "./vectors.ts";

export function metadataVectors(): readonly Vector[] {
  return readVectors("privacypass-ts/pub_verif_with_metadata_v3.json");
}

export function privateKeyOf(vector: Vector): KeyObject {
  return createPrivateKey(Buffer.from(bytesOf(vector, "skS")));
}
