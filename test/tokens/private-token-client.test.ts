/** Our client of the private types, against our issuer and that of privacypass-ts; and what it refuses. */
import { privateVerif, Token as LibraryToken } from "@cloudflare/privacypass-ts";
import { beforeAll, describe, expect, it } from "vitest";
import { createPrivateTokenClient } from "../../tokens/client/index.ts";
import {
  encodeTokenChallenge,
  type Issuer,
  parseAmortizedBatchTokenRequest,
  DEFAULT_BATCH_LIMITS,
  encodeAmortizedBatchTokenResponse,
  parseAmortizedBatchTokenResponse,
  parseToken,
} from "../../tokens/index.ts";
import { concatBytes, encodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { crypto, type TestKey } from "./fixtures.ts";
import { atOffset } from "./vectors.ts";
import { mixedIssuer, mixedSigner, random, voprfKey } from "./voprf-fixtures.ts";

const client = createPrivateTokenClient({ random });

const challengeOf = (tokenType: number): Uint8Array =>
  encodeTokenChallenge({
    tokenType,
    issuerName: "issuer.example",
    redemptionContext: new Uint8Array(),
    originInfo: "origin.example",
  });

describe.each([1, 5] as const)("the client of type %i", (type) => {
  let key: TestKey;
  let issuer: Issuer;
  beforeAll(() => {
    key = voprfKey(type);
    ({ issuer } = mixedIssuer([key]));
  });

  const ask = (count: number): ReturnType<typeof client.request> => {
    const tokenKey = atOffset(key.record.publicKeySpki);
    return client.request({ challenge: atOffset(challengeOf(type)), tokenKey, count });
  };

  it.each([1, 7])("gets %i tokens in one request, which the issuer verifies", async (count) => {
    const pending = await ask(count);
    expect(pending.mediaType).toBe(
      `application/private-token-${count === 1 ? "" : "amortized-batch-"}request`,
    );
    const tokens = await pending.finalize(await issuer.issue(pending.mediaType, pending.body));
    expect(new Set(tokens.map((one) => encodeHex(one))).size).toBe(count);
    for (const token of tokens) {
      const { authenticator, authenticatorInput, challengeDigest, tokenKeyId } = parseToken(token);
      expect(tokenKeyId).toEqual(key.record.tokenKeyId);
      expect(challengeDigest).toEqual(crypto.sha256(challengeOf(type)));
      const verify = mixedSigner([key]).verifyPrivate(
        tokenKeyId,
        authenticatorInput,
        authenticator,
      );
      expect(await verify).toBe(true);
    }
  });

  it("rejects a batch of another key, without a proof, cut, swapped or for fewer", async () => {
    const pending = await ask(3);
    const good = await issuer.issue(pending.mediaType, pending.body);
    const other = mixedIssuer([voprfKey(type)]).issuer;
    const { blindedElements } = parseAmortizedBatchTokenRequest(pending.body, DEFAULT_BATCH_LIMITS);
    const parsed = parseAmortizedBatchTokenResponse(good.body, type, DEFAULT_BATCH_LIMITS);
    const [first, second, third] = parsed.evaluatedElements;
    const answer = (change: Partial<typeof parsed>): typeof good => ({
      ...good,
      body: encodeAmortizedBatchTokenResponse({ ...parsed, ...change }),
    });
    const otherKey = async (): Promise<typeof good> => {
      // Of a key that is not everyone's: the id on the way is changed so that its issuer takes it.
      for (let id = 0; id < 256; id += 1) {
        const body = pending.body.with(2, id);
        try {
          return await other.issue(pending.mediaType, body);
        } catch {
          // not its key
        }
      }
      throw new Error("the other issuer has a key");
    };
    for (const [response, code] of [
      [await otherKey(), "TOKEN_AUTHENTICATOR_INVALID"],
      [answer({ evaluatedElements: [second!, first!, third!] }), "TOKEN_AUTHENTICATOR_INVALID"],
      [answer({ evaluatedElements: blindedElements }), "TOKEN_AUTHENTICATOR_INVALID"],
      [
        answer({ evaluatedProof: new Uint8Array(parsed.evaluatedProof.length) }),
        "TOKEN_AUTHENTICATOR_INVALID",
      ],
      [answer({ evaluatedElements: [first!, second!] }), "WIRE_LENGTH_OUT_OF_BOUNDS"],
      [{ ...good, body: good.body.subarray(0, -1) }, "WIRE_TOO_SHORT"],
      [{ ...good, body: concatBytes([good.body, Uint8Array.of(0)]) }, "WIRE_TRAILING_BYTES"],
      [{ ...good, status: 206 }, "TOKEN_ISSUANCE_REFUSED"],
      [{ ...good, mediaType: "application/private-token-response" }, "TOKEN_ISSUANCE_REFUSED"],
    ] as const) {
      expect(await codeOfAsync(() => pending.finalize(response))).toBe(code);
    }
    expect(await pending.finalize(good)).toHaveLength(3);
  });

  it("rejects challenges, keys and counts that are none", async () => {
    const tokenKey = key.record.publicKeySpki;
    const good = { challenge: challengeOf(type), tokenKey, count: 1 };
    for (const wrong of [
      { challenge: challengeOf(2) },
      { challenge: good.challenge.subarray(1) },
      { tokenKey: tokenKey.subarray(1) },
      { tokenKey: new Uint8Array(tokenKey.length) },
      { tokenKey: new Uint8Array() },
      { extensions: Uint8Array.of(0, 0) },
    ]) {
      expect(await codeOfAsync(() => client.request({ ...good, ...wrong }))).toBe(
        "TOKEN_CHALLENGE_INVALID",
      );
    }
    for (const count of [0, 1.5, 101]) {
      await expect(client.request({ ...good, count })).rejects.toThrow(RangeError);
    }
  });
});

it("gets a token of type 1 from the issuer of privacypass-ts, which its origin verifies", async () => {
  const { privateKey, publicKey } = await privateVerif.keyGen();
  const issuer = new privateVerif.Issuer("issuer.example", privateKey, publicKey);
  const asked = { challenge: challengeOf(1), tokenKey: publicKey, count: 1 };
  const pending = await client.request(asked);
  const request = privateVerif.TokenRequest.deserialize(Uint8Array.from(pending.body));
  const body = (await issuer.issue(request)).serialize();
  const mediaType = "application/private-token-response";
  const [token] = await pending.finalize({ status: 200, mediaType, body });
  const read = LibraryToken.deserialize(privateVerif.VOPRF, Uint8Array.from(token!));
  expect(await new privateVerif.Origin(["origin.example"]).verify(read, privateKey)).toBe(true);
});
