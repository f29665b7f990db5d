/** A client of the types 0x0001 and 0x0005, by noble's VOPRF: what it asks for, and the token that it makes of the answer. */
import { createHash, randomBytes } from "node:crypto";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { encodeAuthenticatorInput, parseWwwAuthenticate } from "../../tokens/index.ts";
import { concatBytes } from "../../wire/index.ts";
import { nobleClient } from "../tokens/noble-client.ts";
import { random, voprfOf } from "../tokens/voprf-fixtures.ts";

export interface Blinded {
  readonly tokenType: 1 | 5;
  readonly input: Uint8Array;
  readonly blind: Uint8Array;
  readonly truncatedTokenKeyId: number;
  readonly blindedMessage: Uint8Array;
}

/** A request for the challenge of this type in an answer. */
export function blindedFor({ headers }: ExchangeAnswer, tokenType: 1 | 5): Blinded {
  const received = parseWwwAuthenticate(headers["www-authenticate"] ?? "");
  const { challenge, tokenKey } = received.find(
    (one) => one.tokenChallenge.tokenType === tokenType,
  )!;
  const tokenKeyId = Uint8Array.from(createHash("sha256").update(tokenKey!).digest());
  const challengeDigest = Uint8Array.from(createHash("sha256").update(challenge).digest());
  const nonce = Uint8Array.from(randomBytes(32));
  const input = encodeAuthenticatorInput({ tokenType, nonce, challengeDigest, tokenKeyId });
  const voprf = voprfOf(tokenType);
  const blind = voprf.nonceOf(random(voprf.suite.uniformLength));
  const blindedMessage = nobleClient(tokenType).blind(input, blind);
  return { tokenType, input, blind, truncatedTokenKeyId: tokenKeyId[31]!, blindedMessage };
}

/** The encoded token. */
export function tokenOf(
  { tokenType, input, blind }: Blinded,
  evaluatedElement: Uint8Array,
): Uint8Array {
  return concatBytes([input, nobleClient(tokenType).finalize(input, blind, evaluatedElement)]);
}
