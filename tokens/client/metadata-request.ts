/** A request for a token of type 0xDA7A, and its token (draft-ietf-privacypass-public-metadata-issuance). */
import { StileError } from "../../wire/index.ts";
import { checkCoarse } from "../metadata/client-metadata.ts";
import { blindWithMetadata } from "../partially-blind-rsa/blind-client.ts";
import { encodeExtendedTokenRequest } from "../structures/extended-token-request.ts";
import { parseExtensions } from "../structures/extensions.ts";
import { MEDIA_TYPE_TOKEN_REQUEST, MEDIA_TYPE_TOKEN_RESPONSE } from "../structures/media-types.ts";
import { parseBlindRsaTokenKey } from "../structures/token-key.ts";
import { parseTokenResponse } from "../structures/token-request.ts";
import { NONCE_BYTES, TOKEN_TYPE_PARTIALLY_BLIND_RSA } from "../structures/token-types.ts";
import { encodeAuthenticatorInput, encodeToken } from "../structures/token.ts";
import { checkIssued } from "./refusals.ts";
import type { PendingIssuance } from "./token-client.ts";

/**
 * @param challenge of type 0xDA7A, parsed before
 * @param extensions encoded
 * @throws `WIRE_*` for a key or extensions that are none, `TOKEN_METADATA_REFUSED`
 */
export async function requestWithMetadata(
  challenge: Uint8Array<ArrayBuffer>,
  tokenKey: Uint8Array<ArrayBuffer>,
  extensions: Uint8Array<ArrayBuffer>,
): Promise<PendingIssuance> {
  const tokenType = TOKEN_TYPE_PARTIALLY_BLIND_RSA;
  const modulus = parseBlindRsaTokenKey(tokenKey);
  checkCoarse(parseExtensions(extensions));
  const tokenKeyId = await sha256(tokenKey);
  const challengeDigest = await sha256(challenge);
  const input = { tokenType, nonce: random(NONCE_BYTES), challengeDigest, tokenKeyId };
  const message = encodeAuthenticatorInput(input);
  const blinded = await blindWithMetadata({ modulus, metadata: extensions, message, random });
  const { blindedMessage } = blinded;
  const truncatedTokenKeyId = tokenKeyId.at(-1) ?? 0;
  const request = { tokenType, truncatedTokenKeyId, blindedMessage };
  return {
    mediaType: MEDIA_TYPE_TOKEN_REQUEST,
    accept: MEDIA_TYPE_TOKEN_RESPONSE,
    body: encodeExtendedTokenRequest(request, extensions),
    async finalize(issued) {
      checkIssued(issued, MEDIA_TYPE_TOKEN_RESPONSE);
      const { response } = parseTokenResponse(issued.body, tokenType);
      const authenticator = blinded.finalize(response);
      if (authenticator !== undefined) return [encodeToken({ ...input, authenticator })];
      const signed = "the blind signature does not verify under the token key and the extensions";
      throw new StileError("TOKEN_AUTHENTICATOR_INVALID", signed);
    },
  };
}

function random(length: number): Uint8Array {
  return globalThis.crypto.getRandomValues(new Uint8Array(length));
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes));
}
