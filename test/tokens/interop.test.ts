/** privacypass-ts as the other side: its client with our issuer, its issuer and origin with our side. */
import { webcrypto } from "node:crypto";
import {
  genericBatched,
  publicVerif,
  Token as LibraryToken,
  TOKEN_TYPES,
  TokenChallenge as LibraryTokenChallenge,
} from "@cloudflare/privacypass-ts";
import { beforeAll, describe, expect, it } from "vitest";
import {
  createChallenger,
  createIssuer,
  createKeyRing,
  createRedeemer,
  DEFAULT_BATCH_LIMITS,
  encodeGenericBatchTokenResponse,
  formatAuthorization,
  formatWwwAuthenticate,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
  parseAuthorization,
  parseGenericBatchTokenResponse,
  parseToken,
  parseTokenChallenge,
  parseWwwAuthenticate,
} from "../../tokens/index.ts";
import { createTokenClient, type PendingIssuance } from "../../tokens/client/index.ts";
import { encodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import {
  crypto,
  fakeRecord,
  memorySpentStore,
  testClock,
  testKey,
  testSigner,
} from "./fixtures.ts";
import { atOffset } from "./vectors.ts";

const { BlindRSAMode } = publicVerif;
const clock = testClock();
const key = testKey();
const keyRing = createKeyRing({ records: [key.record], clock });
const issuer = createIssuer({
  keyRing,
  signer: testSigner([key]),
  limits: DEFAULT_BATCH_LIMITS,
  batchConcurrency: 8,
});
const challenger = createChallenger({
  issuerName: "issuer.example:8443",
  secret: new Uint8Array(32).fill(1),
  crypto,
  clock,
  windowMs: 60_000,
});
const scope = { originInfo: "a.example,b.example", context: "window" } as const;
const challenge = challenger.challenge(scope, 2);
const { publicKeySpki: tokenKey, tokenKeyId } = key.record;

function redeemer(): ReturnType<typeof createRedeemer> {
  const spentStore = memorySpentStore();
  return createRedeemer({ keyRing, challenger, spentStore, crypto, clock, repeatWindowMs: 0 });
}

/** Their issuer and origin with our key; imported the way their documentation does. */
let theirIssuer: publicVerif.Issuer;
let theirPublicKey: webcrypto.CryptoKey;
beforeAll(async () => {
  const algorithm = { name: "RSA-PSS", hash: "SHA-384" };
  const der = key.privateKey.export({ format: "der", type: "pkcs8" });
  const privateKey = await webcrypto.subtle.importKey("pkcs8", der, algorithm, true, ["sign"]);
  const enc = publicVerif.convertRSASSAPSSToEnc(Uint8Array.from(tokenKey));
  theirPublicKey = await webcrypto.subtle.importKey("spki", Uint8Array.from(enc), algorithm, true, [
    "verify",
  ]);
  theirIssuer = new publicVerif.Issuer(
    BlindRSAMode.PSS,
    "issuer.example",
    privateKey,
    theirPublicKey,
  );
});

async function theirVerify(token: Uint8Array): Promise<boolean> {
  const origin = new publicVerif.Origin(BlindRSAMode.PSS);
  const parsed = LibraryToken.deserialize(TOKEN_TYPES.BLIND_RSA, Uint8Array.from(token));
  return origin.verify(parsed, theirPublicKey);
}

describe("their client", () => {
  const theirChallenge = LibraryTokenChallenge.deserialize(Uint8Array.from(challenge));

  it("gets a token from our issuer, and our redeemer takes it once", async () => {
    const client = new publicVerif.Client(BlindRSAMode.PSS);
    const request = await client.createTokenRequest(theirChallenge, tokenKey);
    const result = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, request.serialize());
    const token = await client.finalize(client.deserializeTokenResponse(result.body));
    const { redeem } = redeemer();
    const bytes = token.serialize();
    expect(await redeem({ token: bytes, scope })).toMatchObject({ outcome: "fresh", tokenKeyId });
    expect(await codeOfAsync(() => redeem({ token: bytes, scope }))).toBe("TOKEN_ALREADY_SPENT");
  });

  it("gets a generic batch from our issuer", async () => {
    const clients = Array.from({ length: 3 }, () => new publicVerif.Client(BlindRSAMode.PSS));
    const requests = [];
    for (const client of clients) {
      const request = await client.createTokenRequest(theirChallenge, tokenKey);
      requests.push(new genericBatched.TokenRequest(request));
    }
    const batch = new genericBatched.Client().createTokenRequest(requests);
    const result = await issuer.issue(MEDIA_TYPE_GENERIC_BATCH_REQUEST, batch.serialize());
    const parsed = new genericBatched.Client().deserializeTokenResponse(result.body);
    const { redeem } = redeemer();
    for (const [i, response] of [...parsed].entries()) {
      const body = response.tokenResponse?.serialize() ?? new Uint8Array(0);
      const token = await clients[i]!.finalize(publicVerif.TokenResponse.deserialize(body));
      expect(await redeem({ token: token.serialize(), scope })).toMatchObject({ outcome: "fresh" });
    }
  });
});

describe("their issuer and origin", () => {
  it("agree on the token key id", async () => {
    expect(await theirIssuer.tokenKeyID()).toEqual(tokenKeyId);
  });

  it("issue to our client, singly and in a batch, and verify its tokens; so does our redeemer", async () => {
    const { redeem } = redeemer();
    for (const count of [1, 2]) {
      const pending = await createTokenClient().request({ challenge, tokenKey, count });
      const tokens = await pending.finalize(await theirAnswer(pending));
      expect(tokens).toHaveLength(count);
      for (const token of tokens) {
        expect(await theirVerify(token)).toBe(true);
        expect(await redeem({ token, scope })).toMatchObject({ outcome: "fresh" });
      }
    }
  });

  async function theirAnswer(
    pending: PendingIssuance,
  ): Promise<{ status: number; mediaType: string; body: Uint8Array }> {
    const isBatch = pending.mediaType === MEDIA_TYPE_GENERIC_BATCH_REQUEST;
    const bytes = Uint8Array.from(pending.body);
    const body = isBatch
      ? (
          await new genericBatched.Issuer(theirIssuer).issue(
            genericBatched.BatchedTokenRequest.deserialize(bytes),
          )
        ).serialize()
      : (
          await theirIssuer.issue(
            publicVerif.TokenRequest.deserialize(TOKEN_TYPES.BLIND_RSA, bytes),
          )
        ).serialize();
    return { status: 200, mediaType: pending.accept, body };
  }
});

describe("our client with our issuer", () => {
  it("goes the whole way through the headers, from views into larger buffers", async () => {
    const header = formatWwwAuthenticate([{ challenge, tokenKey, maxAgeSeconds: 60 }]);
    const [received] = parseWwwAuthenticate(header);
    const pending = await createTokenClient().request({
      challenge: atOffset(received?.challenge ?? new Uint8Array(0)),
      tokenKey: atOffset(received?.tokenKey ?? new Uint8Array(0)),
      count: 3,
    });
    const issued = await issuer.issue(pending.mediaType, atOffset(pending.body));
    const tokens = await pending.finalize({ ...issued, body: atOffset(issued.body) });
    const { redeem } = redeemer();
    const nonces = new Set<string>();
    for (const token of tokens) {
      const text = formatAuthorization(token);
      const sent = parseAuthorization(text)?.token ?? new Uint8Array(0);
      expect(await redeem({ token: atOffset(sent), scope })).toMatchObject({ outcome: "fresh" });
      nonces.add(encodeHex(parseToken(token).nonce));
    }
    expect(nonces.size).toBe(3);
  });

  it("takes what a partly issued batch gives, and rejects a batch that gives nothing", async () => {
    const pending = await createTokenClient().request({ challenge, tokenKey, count: 2 });
    const { body } = await issuer.issue(pending.mediaType, pending.body);
    const [first] = parseGenericBatchTokenResponse(body, DEFAULT_BATCH_LIMITS);
    const answer = (responses: Parameters<typeof encodeGenericBatchTokenResponse>[0]) => ({
      status: 206,
      mediaType: MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
      body: encodeGenericBatchTokenResponse(responses),
    });
    expect(await codeOfAsync(() => pending.finalize(answer([undefined, undefined])))).toBe(
      "TOKEN_ISSUANCE_REFUSED",
    );
    expect(await codeOfAsync(() => pending.finalize(answer([first])))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
    const type1 = { tokenType: 1, response: new Uint8Array(145) };
    expect(await codeOfAsync(() => pending.finalize(answer([type1, undefined])))).toBe(
      "TOKEN_TYPE_UNSUPPORTED",
    );
    expect(await pending.finalize(answer([first, undefined]))).toHaveLength(1);
  });

  it("rejects refusals, other media types, malformed responses and bad signatures", async () => {
    const pending = await createTokenClient().request({ challenge, tokenKey, count: 1 });
    const good = await issuer.issue(pending.mediaType, pending.body);
    const mediaType = MEDIA_TYPE_TOKEN_RESPONSE;
    const cases: readonly [Partial<typeof good> | object, string][] = [
      [{ status: 422 }, "TOKEN_ISSUANCE_REFUSED"],
      [{ status: 206 }, "TOKEN_ISSUANCE_REFUSED"],
      [{ mediaType: "text/html" }, "TOKEN_ISSUANCE_REFUSED"],
      [{ body: good.body.subarray(1) }, "WIRE_TOO_SHORT"],
      [{ body: new Uint8Array(257) }, "WIRE_TRAILING_BYTES"],
      [{ body: new Uint8Array(256).fill(2) }, "TOKEN_AUTHENTICATOR_INVALID"],
    ];
    for (const [change, code] of cases) {
      const response = { status: 200, mediaType, body: good.body, ...change };
      expect(await codeOfAsync(() => pending.finalize(response))).toBe(code);
    }
    expect(await pending.finalize(good)).toHaveLength(1);
  });

  it("rejects challenges and keys that are not of type 0x0002, and absurd counts", async () => {
    const client = createTokenClient();
    const type1 = Uint8Array.from(challenge);
    type1[1] = 1;
    const cases: readonly [Uint8Array, Uint8Array][] = [
      [type1, tokenKey],
      [challenge.subarray(1), tokenKey],
      [challenge, fakeRecord(1).publicKeySpki],
    ];
    for (const [badChallenge, badKey] of cases) {
      const request = { challenge: badChallenge, tokenKey: badKey, count: 1 };
      expect(await codeOfAsync(() => client.request(request))).toBe("TOKEN_CHALLENGE_INVALID");
    }
    for (const count of [0, 101, 1.5]) {
      await expect(client.request({ challenge, tokenKey, count })).rejects.toThrow(RangeError);
    }
    expect(parseTokenChallenge(challenge).originInfo).toBe("a.example,b.example");
  });
});
