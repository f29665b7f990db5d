/**
 * The client of token types 0x0002 and 0xDA7A: blinds requests, finalises responses. Type 0x0002 (RFC 9578 §6.1, §6.3)
 * is blinded by `@cloudflare/privacypass-ts`, type 0xDA7A by `metadata-request.ts`. Codecs and checks are ours,
 * and every array goes in as fresh memory: the library reads `bytes.buffer` from its start, so a pooled
 * Buffer would be misread, or its neighbours sent out.
 * It sends nothing: the caller posts `body` and hands the response in.
 */
import { publicVerif, TokenChallenge as LibraryTokenChallenge } from "@cloudflare/privacypass-ts";
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import {
  DEFAULT_BATCH_LIMITS,
  encodeGenericBatchTokenRequest,
  parseGenericBatchTokenResponse,
} from "../structures/generic-batch.ts";
import {
  type IssuanceMediaType,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
} from "../structures/media-types.ts";
import { parseTokenChallenge } from "../structures/token-challenge.ts";
import { parseBlindRsaTokenKey } from "../structures/token-key.ts";
import {
  encodeTokenRequest,
  parseTokenResponse,
  parseTokenRequest,
  type TokenRequest,
  type TokenResponse,
} from "../structures/token-request.ts";
import { TOKEN_TYPE_BLIND_RSA, TOKEN_TYPE_PARTIALLY_BLIND_RSA } from "../structures/token-types.ts";
import { requestWithMetadata } from "./metadata-request.ts";
import { checkIssued, refusing, refusingAsync } from "./refusals.ts";

export interface TokenClientRequest {
  /** The encoded TokenChallenge as the origin sent it. */
  readonly challenge: Uint8Array;
  /** The issuer's public key, from its directory. */
  readonly tokenKey: Uint8Array;
  /** 1 to 100. One token goes as a single request, more as a generic batch; with extensions, 1. */
  readonly count: number;
  /**
   * Encoded, for a challenge of type 0xDA7A and for no other; they go with the token when it is redeemed.
   * Take what every client of the issuer takes: `createClientMetadata`.
   */
  readonly extensions?: Uint8Array;
}

/** What an issuer answered; all of it hostile. */
export interface IssuanceResponse {
  readonly status: number;
  /** Without parameters. */
  readonly mediaType: string;
  readonly body: Uint8Array;
}

/** Requests on their way. It holds the blinding secrets: not to be logged or stored. */
export interface PendingIssuance {
  /** `Content-Type` of the POST. */
  readonly mediaType: IssuanceMediaType;
  /** `Accept` of the POST. */
  readonly accept: string;
  readonly body: Uint8Array;
  /**
   * The encoded tokens, each verified under the token key. A batch may give fewer than asked for.
   * @throws `TOKEN_ISSUANCE_REFUSED` when no token was issued; `WIRE_*` for a malformed response;
   * `TOKEN_AUTHENTICATOR_INVALID` when a signature does not verify, and then none is handed out
   */
  finalize(response: IssuanceResponse): Promise<readonly Uint8Array[]>;
}

export interface TokenClient {
  /**
   * Blinds `count` requests: about 25 ms of CPU each.
   * @throws `TOKEN_CHALLENGE_INVALID`; `TOKEN_METADATA_REFUSED` for extensions other than a coarse expiration
   */
  request(request: TokenClientRequest): Promise<PendingIssuance>;
}

/** One request and the library's state that unblinds its response. */
interface Blinded {
  readonly request: TokenRequest;
  readonly client: publicVerif.Client;
}

/** Randomness (nonces, salts, blinds) comes from the runtime's WebCrypto. */
export function createTokenClient(): TokenClient {
  return {
    async request({ challenge, tokenKey, count, extensions }) {
      const most = extensions === undefined ? DEFAULT_BATCH_LIMITS.maxItems : 1;
      if (!Number.isInteger(count) || count < 1 || count > most) {
        throw new RangeError(`count: expected 1 to ${most}`);
      }
      const tokenType =
        extensions === undefined ? TOKEN_TYPE_BLIND_RSA : TOKEN_TYPE_PARTIALLY_BLIND_RSA;
      const raw = checkedChallenge(challenge, tokenType);
      const key = checkedTokenKey(tokenKey);
      if (extensions !== undefined) {
        return refusingAsync(() => requestWithMetadata(raw, key, Uint8Array.from(extensions)));
      }
      const libraryChallenge = asLibraryChallenge(raw);
      const blinded: Blinded[] = [];
      for (let i = 0; i < count; i += 1) blinded.push(await blind(libraryChallenge, key));
      return pendingIssuance(blinded);
    },
  };
}

function pendingIssuance(blinded: readonly Blinded[]): PendingIssuance {
  const requests = blinded.map(({ request }) => request);
  const [single] = requests.length === 1 ? requests : [];
  const isBatch = single === undefined;
  const accept = isBatch ? MEDIA_TYPE_GENERIC_BATCH_RESPONSE : MEDIA_TYPE_TOKEN_RESPONSE;
  return {
    mediaType: isBatch ? MEDIA_TYPE_GENERIC_BATCH_REQUEST : MEDIA_TYPE_TOKEN_REQUEST,
    accept,
    body: isBatch ? encodeGenericBatchTokenRequest(requests) : encodeTokenRequest(single),
    async finalize(response) {
      checkIssued(response, accept, isBatch ? [200, 206] : [200]);
      const { body } = response;
      const responses = isBatch
        ? parseGenericBatchTokenResponse(body, DEFAULT_BATCH_LIMITS)
        : [parseTokenResponse(body, single.tokenType)];
      return finalizeAll(blinded, responses);
    },
  };
}

async function finalizeAll(
  blinded: readonly Blinded[],
  responses: readonly (TokenResponse | undefined)[],
): Promise<readonly Uint8Array[]> {
  if (responses.length !== blinded.length) {
    const message = `expected ${blinded.length} responses, got ${responses.length}`;
    throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", message);
  }
  const tokens: Uint8Array[] = [];
  for (const [i, one] of blinded.entries()) {
    const response = responses[i];
    if (response !== undefined) tokens.push(await unblind(one, response));
  }
  if (tokens.length === 0) {
    throw new StileError("TOKEN_ISSUANCE_REFUSED", "the issuer issued no token");
  }
  return tokens;
}

async function blind(challenge: LibraryTokenChallenge, tokenKey: Uint8Array): Promise<Blinded> {
  const client = new publicVerif.Client(publicVerif.BlindRSAMode.PSS);
  const request = await client.createTokenRequest(challenge, tokenKey);
  return { client, request: parseTokenRequest(request.serialize()) };
}

/** The library checks the unblinded signature under the token key (RFC 9474 §4.4). */
async function unblind({ client, request }: Blinded, response: TokenResponse): Promise<Uint8Array> {
  if (response.tokenType !== request.tokenType) {
    throw new StileError("TOKEN_TYPE_UNSUPPORTED", "token_type: expected that of the request");
  }
  try {
    const blindSignature = new publicVerif.TokenResponse(Uint8Array.from(response.response));
    return (await client.finalize(blindSignature)).serialize();
  } catch (cause) {
    const message = "the blind signature does not verify under the token key";
    throw new StileError("TOKEN_AUTHENTICATOR_INVALID", message, { cause });
  }
}

/** A copy. */
function checkedChallenge(bytes: Uint8Array, expectedType: number): Uint8Array<ArrayBuffer> {
  const raw = Uint8Array.from(bytes);
  const { tokenType } = refusing(() => parseTokenChallenge(raw));
  if (tokenType === expectedType) return raw;
  const name = expectedType === TOKEN_TYPE_BLIND_RSA ? "Blind RSA" : "Partially Blind RSA";
  throw new StileError("TOKEN_CHALLENGE_INVALID", `token_type: expected ${name} (2048-bit)`);
}

/** The library hashes its own encoding of the challenge, so that has to be the origin's bytes. */
function asLibraryChallenge(raw: Uint8Array): LibraryTokenChallenge {
  const { tokenType, issuerName, redemptionContext, originInfo } = parseTokenChallenge(raw);
  const challenge = new LibraryTokenChallenge(
    tokenType,
    issuerName,
    Uint8Array.from(redemptionContext),
    originInfo === "" ? undefined : originInfo.split(","),
  );
  if (constantTimeEqual(challenge.serialize(), raw)) return challenge;
  throw new StileError("TOKEN_CHALLENGE_INVALID", "challenge: expected another encoding");
}

function checkedTokenKey(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const tokenKey = Uint8Array.from(bytes);
  refusing(() => parseBlindRsaTokenKey(tokenKey));
  return tokenKey;
}
