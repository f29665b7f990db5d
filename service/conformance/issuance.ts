/** Checks of issuance: RFC 9578 §5.2, §6.2, and the batches of draft-ietf-privacypass-batched-tokens. */
import {
  DEFAULT_BATCH_LIMITS,
  encodeAmortizedBatchTokenRequest,
  encodeTokenChallenge,
  GREASED_TOKEN_TYPES,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_VOPRF_P384,
  TOKEN_TYPE_VOPRF_RISTRETTO255,
  parseAmortizedBatchTokenResponse,
  truncatedTokenKeyId,
} from "../../tokens/index.ts";
import { isVoprfTokenType } from "../../tokens/voprf/index.ts";
import { concatBytes, isStileError } from "../../wire/index.ts";
import type { ExchangeAnswer } from "../agent/exchange.ts";
import {
  askForTokens,
  blindRsaTokens,
  type BlindedRequest,
  firstIssuance,
  joined,
  needIssuance,
  needRight,
  offeredKey,
  plainRequest,
  randomElements,
  requestUrl,
  skipWithoutRight,
  tokensOf,
} from "./ask-tokens.ts";
import { directoryOf, issuerOf } from "./directory-view.ts";
import { mediaTypeOf } from "./http.ts";
import { type Check, type Context, expectThat, fail, skip } from "./model.ts";

const SECTION = "RFC 9578 §5.2, §6.2";
const BATCH_DRAFT = "draft-ietf-privacypass-batched-tokens";
const VOPRF_TYPES: readonly number[] = [TOKEN_TYPE_VOPRF_P384, TOKEN_TYPE_VOPRF_RISTRETTO255];
const BATCH = 3;
/** An issuer that answers so to a batch does not know its media type. */
const NOT_OFFERED: readonly number[] = [404, 405, 406, 415, 501];

const validChecks: readonly Check[] = [
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_VOPRF_P384,
  TOKEN_TYPE_VOPRF_RISTRETTO255,
].map((tokenType) => ({
  id: `issuance.valid-type-${tokenType}`,
  section: tokenType === TOKEN_TYPE_BLIND_RSA ? "RFC 9578 §6.2, §6.3" : "RFC 9578 §5.2, §5.3",
  level: "MUST" as const,
  title: `A valid request of type ${tokenType} gives a response that verifies under the listed key`,
  run: async (context: Context): Promise<void> => {
    const key = await offeredKey(context, [tokenType]);
    await needRight(context);
    const first = await firstIssuance(context);
    if (first.request.tokenType === tokenType) {
      await tokensOf(first.request, first.answer);
      return;
    }
    const request = await plainRequest(context, key);
    await tokensOf(request, await askForTokens(context, request));
  },
}));

const refusalChecks: readonly Check[] = [
  {
    id: "issuance.unknown-key",
    section: SECTION,
    level: "MUST",
    title: "A truncated_token_key_id of no key is answered 422",
    run: async (context) => {
      const request = await refusable(context);
      const { keys } = await directoryOf(context);
      const known = new Set(keys.map(({ tokenKeyId }) => truncatedTokenKeyId(tokenKeyId)));
      const other = Array.from({ length: 256 }, (_, id) => id).find((id) => !known.has(id));
      if (other === undefined) skip("every truncated_token_key_id is in use");
      await expectStatus(
        context,
        { ...request, body: request.body.with(2, other) },
        isUnprocessable,
      );
    },
  },
  {
    id: "issuance.unknown-type",
    section: SECTION,
    level: "MUST",
    title: "A reserved token_type is answered 422",
    run: async (context) => {
      const request = await refusable(context);
      const type = GREASED_TOKEN_TYPES[1] ?? 0;
      const body = request.body.with(0, type >> 8).with(1, type & 0xff);
      await expectStatus(context, { ...request, body }, isUnprocessable);
    },
  },
  {
    id: "issuance.unusable-message",
    section: "RFC 9578 §5.2",
    level: "MUST",
    title: "A blinded_msg that is no element of its group is answered 422",
    run: async (context) => {
      const request = await refusable(context, VOPRF_TYPES);
      const body = request.body.fill(0xff, 3);
      await expectStatus(context, { ...request, body }, isUnprocessable);
    },
  },
  {
    id: "issuance.message-range",
    // RFC 9578 names no status for it, so any refusal will do.
    section: "RFC 9474 §4.3",
    level: "MUST",
    title: "A blinded_msg of type 2 that is not below the modulus is refused",
    run: async (context) => {
      const request = await refusable(context, [TOKEN_TYPE_BLIND_RSA]);
      const body = request.body.fill(0xff, 3);
      await expectStatus(context, { ...request, body }, isRefusal);
    },
  },
  {
    id: "issuance.leading-byte",
    section: SECTION,
    level: "MUST",
    title: "A request with a byte before it is refused",
    run: async (context) => {
      const request = await refusable(context);
      const body = concatBytes([new Uint8Array(1), request.body]);
      await expectStatus(context, { ...request, body }, isClientError);
    },
  },
  {
    id: "issuance.trailing-byte",
    section: SECTION,
    level: "MUST",
    title: "A request with a byte too many is refused",
    run: async (context) => {
      const request = await refusable(context);
      const body = concatBytes([request.body, new Uint8Array(1)]);
      await expectStatus(context, { ...request, body }, isClientError);
    },
  },
  {
    id: "issuance.truncated",
    section: SECTION,
    level: "MUST",
    title: "A request with a byte too few, or with none, is refused",
    run: async (context) => {
      const request = await refusable(context);
      for (const length of [request.body.length - 1, 2, 0]) {
        const body = request.body.subarray(0, length);
        await expectStatus(context, { ...request, body }, isClientError);
      }
    },
  },
  {
    id: "issuance.media-type",
    section: "RFC 9578 §5.1, §6.1",
    level: "SHOULD",
    title: "A request of another media type is refused",
    run: async (context) => {
      const request = await refusable(context);
      const mediaType = "application/octet-stream";
      await expectStatus(context, { ...request, mediaType }, isClientError);
    },
  },
  {
    id: "issuance.get",
    section: "RFC 9110 §15.5.6",
    level: "SHOULD",
    title: "GET at the request endpoint is refused",
    run: async (context) => {
      issuerOf(context);
      const { status } = await context.http.askToIssue(await requestUrl(context), {});
      skipWithoutRight(status);
      expectThat(isClientError(status) || status === 501, `expected 4xx, got ${status}`);
    },
  },
];

const batchChecks: readonly Check[] = [
  {
    id: "issuance.generic-batch",
    section: BATCH_DRAFT,
    level: "MUST",
    title: "A generic batch gives a token for each request, verified under the listed key",
    run: async (context) => {
      const key = await offeredKey(context, [TOKEN_TYPE_BLIND_RSA]);
      await needIssuance(context);
      const request = await blindRsaTokens(anyChallenge(context), key.tokenKey, BATCH);
      const answer = await askForTokens(context, request);
      skipUnoffered(answer);
      const tokens = await tokensOf(request, answer);
      expectThat(tokens.length === BATCH, `expected ${BATCH} tokens, got ${tokens.length}`);
    },
  },
  {
    id: "issuance.generic-batch-malformed",
    section: BATCH_DRAFT,
    level: "MUST",
    title: "A generic batch with a byte too many is refused whole",
    run: async (context) => {
      const key = await offeredKey(context, [TOKEN_TYPE_BLIND_RSA]);
      await needIssuance(context);
      const request = await blindRsaTokens(anyChallenge(context), key.tokenKey, 2);
      skipUnoffered(await askForTokens(context, request));
      const body = concatBytes([request.body, new Uint8Array(1)]);
      await expectStatus(context, { ...request, body }, isClientError);
    },
  },
  ...VOPRF_TYPES.map((tokenType) => ({
    id: `issuance.amortized-batch-type-${tokenType}`,
    section: BATCH_DRAFT,
    level: "MUST" as const,
    title: `An amortized batch of type ${tokenType} is answered with one proof that holds`,
    run: (context: Context): Promise<void> => checkAmortized(context, tokenType),
  })),
];

export const ISSUANCE_CHECKS: readonly Check[] = [...validChecks, ...refusalChecks, ...batchChecks];

async function checkAmortized(context: Context, tokenType: number): Promise<void> {
  const { tokenKey, tokenKeyId } = await offeredKey(context, [tokenType]);
  await needIssuance(context);
  if (!isVoprfTokenType(tokenType)) return skip("not a private token type");
  const { elements, voprf } = randomElements(context, tokenType, BATCH);
  const answer = await askForTokens(context, {
    mediaType: MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
    accept: MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
    body: encodeAmortizedBatchTokenRequest({
      tokenType,
      truncatedTokenKeyId: truncatedTokenKeyId(tokenKeyId),
      blindedElements: elements,
    }),
  });
  skipUnoffered(answer);
  expectThat(answer.status === 200, `expected status 200, got ${answer.status}`);
  const isType = mediaTypeOf(answer) === MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE;
  expectThat(isType, `expected the media type ${MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE}`);
  const response = amortizedResponse(answer.body, tokenType);
  const isProven = voprf.verifyResponse(tokenKey, joined(elements), response);
  expectThat(isProven, "the proof does not hold under the listed key");
}

/** The evaluated elements and the proof end to end. */
function amortizedResponse(body: Uint8Array, tokenType: number): Uint8Array {
  try {
    const parsed = parseAmortizedBatchTokenResponse(body, tokenType, DEFAULT_BATCH_LIMITS);
    return concatBytes([...parsed.evaluatedElements, parsed.evaluatedProof]);
  } catch (error) {
    if (isStileError(error)) return fail(`malformed response: ${error.message}`);
    throw error;
  }
}

/** A request that would be issued as it is; each check makes it worse in one way. */
async function refusable(
  context: Context,
  tokenTypes?: readonly number[],
): Promise<BlindedRequest> {
  const key = await offeredKey(context, tokenTypes);
  await needIssuance(context);
  return plainRequest(context, key);
}

async function expectStatus(
  context: Context,
  request: BlindedRequest,
  isExpected: (status: number) => boolean,
): Promise<void> {
  const { status } = await askForTokens(context, request);
  if (status === 429) skip("the issuer asks to come later");
  expectThat(isExpected(status), `expected ${EXPECTED.get(isExpected) ?? "4xx"}, got ${status}`);
}

const isUnprocessable = (status: number): boolean => status === 422;
const isClientError = (status: number): boolean => status >= 400 && status < 500;
const isRefusal = (status: number): boolean => status >= 400;
/** What a reason calls them. */
const EXPECTED: ReadonlyMap<(status: number) => boolean, string> = new Map([
  [isUnprocessable, "422"],
  [isClientError, "4xx"],
  [isRefusal, "a refusal"],
]);

function skipUnoffered({ status }: ExchangeAnswer): void {
  if (NOT_OFFERED.includes(status)) skip(`not offered: the issuer answered ${status}`);
  if (status === 429) skip("the issuer asks to come later");
}

function anyChallenge(context: Context): Uint8Array {
  return encodeTokenChallenge({
    tokenType: TOKEN_TYPE_BLIND_RSA,
    issuerName: issuerOf(context).host,
    redemptionContext: new Uint8Array(0),
    originInfo: "",
  });
}
