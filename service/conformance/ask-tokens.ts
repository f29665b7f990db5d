/**
 * Asking an issuer for tokens (RFC 9578 §5.1, §6.1): requests that are blinded afresh, and whether what comes
 * back is good under the listed key. Type 0x0002 and the tokens of type 0x0001 go through privacypass-ts, which
 * is independent of this service; for elements without a token the proof of RFC 9497 is verified here.
 */
import { privateVerif, TokenChallenge as LibraryTokenChallenge } from "@cloudflare/privacypass-ts";
import {
  encodeTokenChallenge,
  encodeTokenRequest,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_VOPRF_P384,
  TOKEN_TYPE_VOPRF_RISTRETTO255,
  truncatedTokenKeyId,
} from "../../tokens/index.ts";
import { createTokenClient } from "../../tokens/client/index.ts";
import {
  createVoprfEngine,
  generateVoprfKey,
  isVoprfTokenType,
  type Voprf,
  type VoprfTokenType,
} from "../../tokens/voprf/index.ts";
import { concatBytes, isStileError } from "../../wire/index.ts";
import type { ExchangeAnswer } from "../agent/exchange.ts";
import { directoryOf, directoryUrl, issuerOf, usableKey } from "./directory-view.ts";
import { mediaTypeOf } from "./http.ts";
import { type Context, expectThat, type ListedKey, skip, Verdict } from "./model.ts";

/** What of an answer says that the issuer does not issue to us, whatever is asked. */
const NO_RIGHT: readonly number[] = [401, 403, 407, 429];

/** A token request, and what its answer is checked with. It holds blinding secrets. */
export interface BlindedRequest {
  readonly tokenType: number;
  readonly mediaType: string;
  readonly accept: string;
  readonly body: Uint8Array;
  /** Tokens, or none where only proofs were asked for. Throws anything where the answer is not good. */
  readonly finalize: (body: Uint8Array) => Promise<readonly Uint8Array[]>;
}

/** Random elements of the group, as blinded messages are. */
export interface BlindedElements {
  readonly voprf: Voprf;
  readonly elements: readonly Uint8Array[];
}

export async function requestUrl(context: Context): Promise<URL> {
  const uri = (await directoryOf(context)).members["issuer-request-uri"];
  if (typeof uri !== "string" || !URL.canParse(uri, directoryUrl(context))) {
    return skip("the directory has no issuer-request-uri");
  }
  const url = new URL(uri, directoryUrl(context));
  // What gives the right to issue is not sent in the clear.
  return url.protocol === "https:" ? url : skip("issuer-request-uri is not https");
}

/** @param body what is sent, where it is not the whole request as it is */
export async function askForTokens(
  context: Context,
  { accept, body, mediaType }: Pick<BlindedRequest, "accept" | "body" | "mediaType">,
): Promise<ExchangeAnswer> {
  const headers = { "content-type": mediaType, accept };
  return context.http.askToIssue(await requestUrl(context), { method: "POST", headers, body });
}

/** The listed key of the first type that the issuer offers and this suite can ask for. @throws Verdict */
export async function offeredKey(
  context: Context,
  tokenTypes: readonly number[] = [
    TOKEN_TYPE_BLIND_RSA,
    TOKEN_TYPE_VOPRF_P384,
    TOKEN_TYPE_VOPRF_RISTRETTO255,
  ],
): Promise<ListedKey> {
  const directory = await directoryOf(context);
  for (const tokenType of tokenTypes) {
    const key = usableKey(directory, tokenType, context.clock());
    if (key !== undefined) return key;
  }
  return skip(`no usable key of type ${tokenTypes.join(", ")} is listed`);
}

/** For a token that nobody is to redeem, of any type. */
export async function plainRequest(
  context: Context,
  { tokenKey, tokenKeyId, tokenType }: ListedKey,
): Promise<BlindedRequest> {
  if (tokenType === TOKEN_TYPE_BLIND_RSA || tokenType === TOKEN_TYPE_VOPRF_P384) {
    const challenge = encodeTokenChallenge({
      tokenType,
      issuerName: issuerOf(context).host,
      redemptionContext: new Uint8Array(0),
      originInfo: "",
    });
    return blindToken(challenge, tokenType, tokenKey);
  }
  expectThat(isVoprfTokenType(tokenType), "expected a known token type");
  const { elements, voprf } = randomElements(context, tokenType, 1);
  const [blindedMessage = new Uint8Array(0)] = elements;
  const truncated = truncatedTokenKeyId(tokenKeyId);
  return {
    tokenType,
    mediaType: MEDIA_TYPE_TOKEN_REQUEST,
    accept: MEDIA_TYPE_TOKEN_RESPONSE,
    body: encodeTokenRequest({ tokenType, truncatedTokenKeyId: truncated, blindedMessage }),
    finalize: (response) => {
      const isProven = voprf.verifyResponse(tokenKey, blindedMessage, response);
      return isProven ? Promise.resolve([]) : Promise.reject(new Error("the proof does not hold"));
    },
  };
}

/** One token for a challenge. @throws Verdict for a type or a spelling that the client does not take */
export async function blindToken(
  challenge: Uint8Array,
  tokenType: number,
  tokenKey: Uint8Array,
): Promise<BlindedRequest> {
  const media = { mediaType: MEDIA_TYPE_TOKEN_REQUEST, accept: MEDIA_TYPE_TOKEN_RESPONSE } as const;
  if (tokenType === TOKEN_TYPE_BLIND_RSA) return blindRsaTokens(challenge, tokenKey, 1);
  if (tokenType !== TOKEN_TYPE_VOPRF_P384) skip(`no client of type ${tokenType} is at hand`);
  const client = new privateVerif.Client();
  const theirs = LibraryTokenChallenge.deserialize(Uint8Array.from(challenge));
  const request = await client.createTokenRequest(theirs, Uint8Array.from(tokenKey));
  return {
    tokenType,
    ...media,
    body: request.serialize(),
    finalize: async (body) => {
      // Their parse passes over trailing bytes.
      if (body.length !== privateVerif.VOPRF.Ne + 2 * privateVerif.VOPRF.Ns) {
        throw new Error("the response has another length");
      }
      const response = privateVerif.TokenResponse.deserialize(Uint8Array.from(body));
      return [Uint8Array.from((await client.finalize(response)).serialize())];
    },
  };
}

/** @param count more than one goes as a generic batch */
export async function blindRsaTokens(
  challenge: Uint8Array,
  tokenKey: Uint8Array,
  count: number,
): Promise<BlindedRequest> {
  const pending = await createTokenClient()
    .request({ challenge, tokenKey, count })
    .catch((error: unknown) => {
      if (!isStileError(error)) throw error;
      return skip(`the client does not take this challenge: ${error.message}`);
    });
  const { accept, body, mediaType } = pending;
  return {
    tokenType: TOKEN_TYPE_BLIND_RSA,
    mediaType,
    accept,
    body,
    finalize: (response) => pending.finalize({ status: 200, mediaType: accept, body: response }),
  };
}

export function randomElements(
  { random }: Context,
  tokenType: VoprfTokenType,
  count: number,
): BlindedElements {
  const voprf = createVoprfEngine(tokenType, "any");
  const elements = Array.from({ length: count }, () => generateVoprfKey(voprf, random).tokenKey);
  return { voprf, elements };
}

/** @returns the tokens of an answer that is good in every way. @throws Verdict */
export async function tokensOf(
  request: BlindedRequest,
  answer: ExchangeAnswer,
): Promise<readonly Uint8Array[]> {
  expectThat(answer.status === 200, `expected status 200, got ${answer.status}`);
  const mediaType = mediaTypeOf(answer);
  expectThat(mediaType === request.accept, `expected the media type ${request.accept}`);
  try {
    return await request.finalize(answer.body);
  } catch {
    // Whatever the client says of it might quote the answer.
    throw new Verdict("fail", "the response does not finalise under the listed key");
  }
}

/**
 * That the issuer issues to us: one request that is right in all, asked once for the run.
 * @throws Verdict skipped where it does not
 */
export async function needRight(context: Context): Promise<void> {
  skipWithoutRight((await validIssuance(context)).status);
}

/** @throws Verdict */
export function skipWithoutRight(status: number): void {
  if (NO_RIGHT.includes(status)) skip(`no right to issue: the issuer answered ${status}`);
}

/** The same, and that it was issued. Without it, a refusal of something else says nothing. */
export async function needIssuance(context: Context): Promise<void> {
  await needRight(context);
  const { status } = await validIssuance(context);
  if (status !== 200) skip(`a valid request was answered ${status}: a refusal would say nothing`);
}

async function validIssuance(context: Context): Promise<ExchangeAnswer> {
  return (await firstIssuance(context)).answer;
}

export function firstIssuance(
  context: Context,
): Promise<{ request: BlindedRequest; answer: ExchangeAnswer }> {
  return context.once("issuance", async () => {
    const request = await plainRequest(context, await offeredKey(context));
    return { request, answer: await askForTokens(context, request) };
  });
}

/** The elements end to end, as a proof is over them. */
export function joined(elements: readonly Uint8Array[]): Uint8Array {
  return concatBytes([...elements]);
}
