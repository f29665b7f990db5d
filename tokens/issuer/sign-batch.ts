/**
 * Signs what can be signed of a generic batch (draft-ietf-privacypass-batched-tokens). Messages for one key
 * of a publicly verifiable type share calls of the signer, since what a call costs beside its signatures is a
 * fortieth of them; of the private types each request has an answer with a proof of its own.
 */
import { concatBytes, isStileError } from "../../wire/index.ts";
import type { IssuerKeyRecord } from "../keys/issuer-key-record.ts";
import type { KeyRing } from "../keys/key-ring.ts";
import type { BlindSigner } from "../stores.ts";
import type { TokenRequest, TokenResponse } from "../structures/token-request.ts";
import { isPrivateTokenType } from "../structures/token-types.ts";
import { issuanceKeyFor } from "./examine.ts";

export interface BatchSigningOptions {
  readonly keyRing: KeyRing;
  readonly signer: BlindSigner;
  /** Messages that are with the signer at a time, 1 or more. */
  readonly concurrency: number;
}

/** What waits behind a call is bounded by it: 2 ms of blind RSA. */
const MAX_MESSAGES_PER_CALL = 8;

/** One call of the signer: the requests for a key, by their places in the batch. */
interface Call {
  readonly key: IssuerKeyRecord;
  readonly places: number[];
}

type Responses = (TokenResponse | undefined)[];

/**
 * @param requests hostile
 * @returns in the order of the requests; `undefined` for one that cannot be issued
 * @throws what the signer throws that is not the fault of a request; nothing is then issued
 */
export async function signBatch(
  requests: readonly TokenRequest[],
  { concurrency, keyRing, signer }: BatchSigningOptions,
): Promise<Responses> {
  const perCall = Math.min(concurrency, MAX_MESSAGES_PER_CALL);
  const responses: Responses = Array.from(requests, () => undefined);
  const calls = callsFor(requests, keyRing, perCall);
  await inParallel(calls, Math.floor(concurrency / perCall), async ({ key, places }) => {
    const messages = places.map((place) => requests[place]?.blindedMessage ?? new Uint8Array(0));
    const signed = await refusable(() => signer.blindSign(key.tokenKeyId, concatBytes(messages)));
    if (signed === undefined) return;
    const length = signed.length / places.length;
    for (const [i, place] of places.entries()) {
      const response = signed.subarray(i * length, (i + 1) * length);
      responses[place] = { tokenType: key.tokenType, response };
    }
  });
  return responses;
}

function callsFor(requests: readonly TokenRequest[], keyRing: KeyRing, perCall: number): Call[] {
  const calls: Call[] = [];
  /** The call of a key that has room. */
  const open = new Map<IssuerKeyRecord, Call>();
  for (const [place, request] of requests.entries()) {
    const key = issuableKey(keyRing, request);
    if (key === undefined) continue;
    const known = open.get(key);
    if (known !== undefined && known.places.length < perCall) {
      known.places.push(place);
      continue;
    }
    const call: Call = { key, places: [place] };
    calls.push(call);
    if (!isPrivateTokenType(key.tokenType)) open.set(key, call);
  }
  return calls;
}

function issuableKey(keyRing: KeyRing, request: TokenRequest): IssuerKeyRecord | undefined {
  try {
    return issuanceKeyFor(keyRing, request);
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}

/** `undefined` for what requests fail with by their own fault: the key may have been removed since. */
async function refusable(sign: () => Promise<Uint8Array>): Promise<Uint8Array | undefined> {
  try {
    return await sign();
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}

function isRefusal(error: unknown): boolean {
  return (
    isStileError(error, "TOKEN_REQUEST_INVALID") ||
    isStileError(error, "TOKEN_TYPE_UNSUPPORTED") ||
    isStileError(error, "TOKEN_KEY_UNKNOWN")
  );
}

/** At most `lanes` at a time; the first failure stops the rest. */
async function inParallel<T>(
  items: readonly T[],
  lanes: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  let failed = false;
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (failed) return;
      try {
        await work(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(lanes, items.length) }, lane));
}
