/** Type 0xDA7A from request to admission: what is issued and redeemed, and what is not. */
import { publicVerif, Token, TOKEN_TYPES } from "@cloudflare/privacypass-ts";
import { describe, expect, it } from "vitest";
import { createTokenClient } from "../../tokens/client/index.ts";
import {
  checkExpirationGrid,
  createChallenger,
  createExpirationPolicy,
  createIssuer,
  createKeyRing,
  createRedeemer,
  DEFAULT_BATCH_LIMITS,
  encodeExtendedTokenRequest,
  encodeExtensions,
  expirationExtension,
  type Extension,
  formatAuthorization,
  type Issuer,
  latestExpiration,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
  type MetadataPolicy,
  parseAuthorization,
  parseExtendedTokenRequest,
  parseToken,
  type Redeemer,
  TOKEN_TYPE_PARTIALLY_BLIND_RSA,
  type TokenCrypto,
} from "../../tokens/index.ts";
import { concatBytes, encodeHex } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import {
  crypto,
  DAY_MS,
  memorySpentStore,
  type MemorySpentStore,
  START_MS,
  testClock,
  type TestClock,
} from "./fixtures.ts";
import {
  libraryExtensions,
  libraryKeys,
  libraryRequest,
  metadataKey,
  metadataSigner,
  metadataVectors,
} from "./metadata-fixtures.ts";
import { atOffset, bytesOf } from "./vectors.ts";

const HOUR = 3_600;
const GRID = { precisionSeconds: HOUR, maxLifetimeSeconds: 4 * HOUR };
const START = BigInt(START_MS / 1_000);
const scope = { originInfo: "origin.example", context: "none" } as const;
const acceptsAll: MetadataPolicy = {
  checkRequested: () => undefined,
  checkPresented: () => undefined,
};

interface Bench {
  readonly clock: TestClock;
  readonly issuer: Issuer;
  readonly redeemer: Redeemer;
  readonly signer: { readonly calls: number };
  readonly store: MemorySpentStore;
  readonly challenge: Uint8Array;
  readonly tokenKey: Uint8Array;
}

function bench(
  options: { policy?: MetadataPolicy | "none"; digest?: Uint8Array; crypto?: TokenCrypto } = {},
): Bench {
  const clock = testClock();
  const key = metadataKey();
  const keyRing = createKeyRing({ records: [key.record], clock });
  const signer = metadataSigner(key);
  const store = memorySpentStore();
  const secret = new Uint8Array(32).fill(1);
  const issuerName = "issuer.example";
  const challenger = createChallenger({ issuerName, secret, crypto, clock, windowMs: 60_000 });
  const { digest, policy = createExpirationPolicy({ ...GRID, clock }) } = options;
  const metadata = policy === "none" ? {} : { metadataPolicy: policy };
  return {
    clock,
    signer,
    store,
    challenge: challenger.challenge(scope, TOKEN_TYPE_PARTIALLY_BLIND_RSA),
    tokenKey: key.record.publicKeySpki,
    issuer: createIssuer({
      keyRing,
      signer,
      limits: DEFAULT_BATCH_LIMITS,
      batchConcurrency: 8,
      ...metadata,
    }),
    redeemer: createRedeemer({
      keyRing,
      challenger:
        digest === undefined ? challenger : { ...challenger, acceptedDigests: () => [digest] },
      spentStore: store,
      crypto: options.crypto ?? crypto,
      clock,
      repeatWindowMs: 0,
      ...metadata,
    }),
  };
}

function expiring(timestamp: bigint, timestampPrecision = BigInt(HOUR)): Extension {
  return expirationExtension({ timestamp, timestampPrecision });
}

/** One round with the library as the client. */
async function tokenOf(
  { challenge, issuer, tokenKey }: Bench,
  extensions: readonly Extension[],
): Promise<Uint8Array> {
  const { client, body } = await libraryRequest(challenge, tokenKey, extensions);
  const issued = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, atOffset(body));
  expect(issued).toMatchObject({ status: 200, mediaType: MEDIA_TYPE_TOKEN_RESPONSE, issued: 1 });
  const response = client.deserializeTokenResponse(Uint8Array.from(issued.body));
  return (await client.finalize(response)).serialize();
}

describe.skipIf(sharedMissing)("type 0xDA7A", () => {
  it("issues and redeems the vectors of privacypass-ts, byte for byte", async () => {
    for (const vector of metadataVectors()) {
      const digest = crypto.sha256(bytesOf(vector, "token_challenge"));
      const { issuer, redeemer } = bench({ policy: acceptsAll, digest });
      const body = atOffset(bytesOf(vector, "token_request"));
      expect(issuer.examine(MEDIA_TYPE_TOKEN_REQUEST, body)).toBe(1);
      const issued = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, body);
      expect(encodeHex(issued.body)).toBe(encodeHex(bytesOf(vector, "token_response")));
      const header = formatAuthorization(bytesOf(vector, "token"), bytesOf(vector, "extensions"));
      const presented = parseAuthorization(header);
      if (presented === undefined) throw new Error("no credentials");
      expect(await redeemer.redeem({ ...presented, scope })).toMatchObject({ outcome: "fresh" });
      // What a real policy thinks of three bytes of an expiration:
      const strict = bench({ digest });
      const issue = (): unknown => strict.issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, body);
      expect(await codeOfAsync(async () => issue())).toBe("TOKEN_METADATA_REFUSED");
      const redeem = (): unknown => strict.redeemer.redeem({ ...presented, scope });
      expect(await codeOfAsync(async () => redeem())).toBe("TOKEN_METADATA_REFUSED");
    }
  });

  it("gives privacypass-ts tokens that both redeem, until they expire", async () => {
    const own = bench();
    const extensions = latestExpiration(GRID, own.clock());
    expect(extensions).toEqual(encodeExtensions([expiring(START + 4n * BigInt(HOUR))]));
    const [first, second] = [
      await tokenOf(own, [expiring(START + BigInt(HOUR))]),
      await tokenOf(own, [expiring(START + 4n * BigInt(HOUR))]),
    ];
    const origin = new publicVerif.OriginWithMetadata(
      publicVerif.BlindRSAMode.PSS,
      libraryExtensions([expiring(START + 4n * BigInt(HOUR))]),
    );
    const keys = await libraryKeys();
    const token = Token.deserialize(TOKEN_TYPES.PARTIALLY_BLIND_RSA, Uint8Array.from(second));
    expect(await origin.verify(token, keys.publicKey)).toBe(true);

    const redeem = (bytes: Uint8Array, metadata: Uint8Array): ReturnType<Redeemer["redeem"]> =>
      own.redeemer.redeem({ token: atOffset(bytes), extensions: atOffset(metadata), scope });
    own.clock.advance(HOUR * 1_000 - 1);
    const early = encodeExtensions([expiring(START + BigInt(HOUR))]);
    expect(await redeem(first, early)).toMatchObject({ outcome: "fresh" });
    expect(await codeOfAsync(() => redeem(first, early))).toBe("TOKEN_ALREADY_SPENT");
    own.clock.advance(1);
    expect(await codeOfAsync(() => redeem(first, early))).toBe("TOKEN_EXPIRED");
    expect(await redeem(second, extensions)).toMatchObject({ outcome: "fresh" });
  });

  it("is asked for by our client, with its extensions alone", async () => {
    const { challenge, clock, issuer, redeemer, tokenKey } = bench();
    const extensions = latestExpiration(GRID, clock());
    const client = createTokenClient();
    const asked = { challenge: atOffset(challenge), tokenKey: atOffset(tokenKey), count: 1 };
    const pending = await client.request({ ...asked, extensions: atOffset(extensions) });
    const issued = await issuer.issue(pending.mediaType, pending.body);
    const tampered = { ...issued, body: issued.body.with(9, (issued.body[9] ?? 0) ^ 1) };
    expect(await codeOfAsync(() => pending.finalize(tampered))).toBe("TOKEN_AUTHENTICATOR_INVALID");
    // Who changes the metadata on the way, to another value that the issuer signs, gets nothing past the client.
    const { request } = parseExtendedTokenRequest(pending.body);
    const other = encodeExtensions([expiring(START + BigInt(HOUR))]);
    const marked = await issuer.issue(
      pending.mediaType,
      encodeExtendedTokenRequest(request, other),
    );
    expect(marked.status).toBe(200);
    expect(await codeOfAsync(() => pending.finalize(marked))).toBe("TOKEN_AUTHENTICATOR_INVALID");
    const [token = new Uint8Array(0)] = await pending.finalize(issued);
    expect(await redeemer.redeem({ token, extensions, scope })).toMatchObject({ outcome: "fresh" });

    for (const wrong of [asked, { ...asked, extensions: extensions.subarray(1) }]) {
      expect(await codeOfAsync(() => client.request(wrong))).toBe("TOKEN_CHALLENGE_INVALID");
    }
    await expect(client.request({ ...asked, extensions, count: 2 })).rejects.toThrow(RangeError);
  });

  it("is given to our client by the issuer of privacypass-ts, and verified by its origin", async () => {
    const { challenge, clock, tokenKey } = bench();
    const extensions = latestExpiration(GRID, clock());
    const asked = { challenge, tokenKey, count: 1, extensions };
    const pending = await createTokenClient().request(asked);
    const { privateKey, publicKey } = await libraryKeys();
    const mode = publicVerif.BlindRSAMode.PSS;
    const issuer = new publicVerif.IssuerWithMetadata(mode, "a.example", privateKey, publicKey);
    const request = publicVerif.ExtendedTokenRequest.deserialize(Uint8Array.from(pending.body));
    const body = (await issuer.issue(request)).serialize();
    const mediaType = MEDIA_TYPE_TOKEN_RESPONSE;
    const [token] = await pending.finalize({ status: 200, mediaType, body });
    const read = Token.deserialize(TOKEN_TYPES.PARTIALLY_BLIND_RSA, Uint8Array.from(token!));
    const verify = async (timestamp: bigint): Promise<boolean> =>
      new publicVerif.OriginWithMetadata(mode, libraryExtensions([expiring(timestamp)]), [
        "origin.example",
      ]).verify(read, publicKey);
    expect(await verify(START + 4n * BigInt(HOUR))).toBe(true);
    expect(await verify(START + 3n * BigInt(HOUR))).toBe(false);
  });

  it("redeems what the issuer of privacypass-ts gives", async () => {
    const { challenge, redeemer, tokenKey } = bench();
    const extensions = [expiring(START + BigInt(HOUR))];
    const { body, client } = await libraryRequest(challenge, tokenKey, extensions);
    const { privateKey, publicKey } = await libraryKeys();
    const issuer = new publicVerif.IssuerWithMetadata(
      publicVerif.BlindRSAMode.PSS,
      "issuer.example",
      privateKey,
      publicKey,
    );
    const response = await issuer.issue(
      publicVerif.ExtendedTokenRequest.deserialize(Uint8Array.from(body)),
    );
    const token = (await client.finalize(response)).serialize();
    const redemption = { token, extensions: encodeExtensions(extensions), scope };
    expect(await redeemer.redeem(redemption)).toMatchObject({ outcome: "fresh" });
  });

  it("rejects metadata that is no single expiration on the grid, before it signs", async () => {
    const own = bench();
    const { body } = await libraryRequest(own.challenge, own.tokenKey, [expiring(START)]);
    const { request } = parseExtendedTokenRequest(body);
    const hour = BigInt(HOUR);
    const good = expiring(START + hour);
    const refused: readonly (readonly Extension[])[] = [
      [],
      [good, good],
      [{ ...good, extensionType: 0 }, good],
      [good, { extensionType: 2, extensionData: new Uint8Array(0) }],
      [{ ...good, extensionType: 2 }],
      [{ ...good, extensionData: good.extensionData.subarray(1) }],
      [{ ...good, extensionData: concatBytes([good.extensionData, Uint8Array.of(0)]) }],
      [expiring(START)],
      [expiring(START - hour)],
      [expiring(0n)],
      [expiring(START + hour + 1n)],
      [expiring(START + 5n * hour)],
      [expiring(0xffff_ffff_ffff_f000n)],
      [expiring(START + hour, 1n)],
      [expiring(START + hour, 0n)],
      [expiring(START + 2n * hour, 2n * hour)],
    ];
    for (const extensions of refused) {
      const bytes = encodeExtendedTokenRequest(request, encodeExtensions(extensions));
      const examine = (): unknown => own.issuer.examine(MEDIA_TYPE_TOKEN_REQUEST, bytes);
      expect(codeOf(examine)).toBe("TOKEN_METADATA_REFUSED");
      expect(await codeOfAsync(() => own.issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, bytes))).toBe(
        "TOKEN_METADATA_REFUSED",
      );
    }
    expect(own.signer.calls).toBe(0);
    // As many as the grid has, at any time: the size of what metadata can tell of a client.
    for (const advance of [0, 1_000, HOUR * 1_000 - 1_001]) {
      own.clock.advance(advance);
      const taken = Array.from({ length: 20 }, (_, i) => expiring(START + BigInt(i - 5) * hour))
        .map((one) => encodeExtendedTokenRequest(request, encodeExtensions([one])))
        .filter(
          (one) =>
            codeOf(() => own.issuer.examine(MEDIA_TYPE_TOKEN_REQUEST, one)) ===
            "nothing was thrown",
        );
      expect(taken).toHaveLength(4);
    }
  });

  it("rejects malformed requests, other keys, elements that are none, and any batch", async () => {
    const own = bench();
    const extensions = [expiring(START + BigInt(HOUR))];
    const { body } = await libraryRequest(own.challenge, own.tokenKey, extensions);
    const { request } = parseExtendedTokenRequest(body);
    const encoded = encodeExtensions(extensions);
    const otherKey = { ...request, truncatedTokenKeyId: request.truncatedTokenKeyId ^ 1 };
    const zero = { ...request, blindedMessage: new Uint8Array(256) };
    for (const [bytes, code] of [
      [body.subarray(0, 259), "TOKEN_REQUEST_INVALID"],
      [concatBytes([body, Uint8Array.of(0)]), "TOKEN_REQUEST_INVALID"],
      [body.subarray(0, 1), "TOKEN_REQUEST_INVALID"],
      [encodeExtendedTokenRequest(otherKey, encoded), "TOKEN_KEY_UNKNOWN"],
      [encodeExtendedTokenRequest(zero, encoded), "TOKEN_REQUEST_INVALID"],
      [concatBytes([Uint8Array.of(0, 2), body.subarray(2)]), "TOKEN_REQUEST_INVALID"],
      [concatBytes([Uint8Array.of(0, 2), body.subarray(2, 259)]), "TOKEN_TYPE_UNSUPPORTED"],
    ] as const) {
      const issue = (): unknown => own.issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, bytes);
      expect(await codeOfAsync(async () => issue())).toBe(code);
      expect(codeOf(() => own.issuer.examine(MEDIA_TYPE_TOKEN_REQUEST, bytes))).toBe(code);
    }
    const batch = concatBytes([Uint8Array.of(0x41, 3), body.subarray(0, 259)]);
    const issue = (): unknown => own.issuer.issue(MEDIA_TYPE_GENERIC_BATCH_REQUEST, batch);
    expect(await codeOfAsync(async () => issue())).toBe("TOKEN_TYPE_UNSUPPORTED");
    expect(own.signer.calls).toBe(0);
  });

  it("rejects the type where no policy is set", async () => {
    const [own, without] = [bench(), bench({ policy: "none" })];
    const extensions = [expiring(START + BigInt(HOUR))];
    const { body } = await libraryRequest(own.challenge, own.tokenKey, extensions);
    const issue = (): unknown => without.issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, body);
    expect(await codeOfAsync(async () => issue())).toBe("TOKEN_TYPE_UNSUPPORTED");
    const token = await tokenOf(own, extensions);
    const redemption = { token, extensions: encodeExtensions(extensions), scope };
    expect(await codeOfAsync(() => without.redeemer.redeem(redemption))).toBe(
      "TOKEN_TYPE_UNSUPPORTED",
    );
    expect(without.signer.calls + without.store.requests.length).toBe(0);
  });

  it("rejects a token without its extensions, with others, and one that is expired, unspent", async () => {
    let verified = 0;
    const counting: TokenCrypto = {
      ...crypto,
      verifyTypeDa7a: (...args) => {
        verified += 1;
        return crypto.verifyTypeDa7a(...args);
      },
    };
    const own = bench({ crypto: counting });
    const hour = BigInt(HOUR);
    const good = [expiring(START + hour)];
    const token = await tokenOf(own, good);
    const unknown = { extensionType: 2, extensionData: new Uint8Array(0) };
    const tampered = Uint8Array.from(token);
    tampered[353] = (tampered[353] ?? 0) ^ 1;
    const encoded = encodeExtensions(good);
    const cases: readonly (readonly [string, Uint8Array | undefined, Uint8Array])[] = [
      ["TOKEN_METADATA_REFUSED", undefined, token],
      ["TOKEN_METADATA_REFUSED", encodeExtensions([]), token],
      ["TOKEN_METADATA_REFUSED", encodeExtensions([...good, unknown]), token],
      ["TOKEN_METADATA_REFUSED", encodeExtensions([...good, ...good]), token],
      ["TOKEN_EXPIRED", encodeExtensions([expiring(START)]), token],
      ["WIRE_TRAILING_BYTES", concatBytes([encoded, Uint8Array.of(0)]), token],
      ["WIRE_TOO_SHORT", encoded.subarray(0, -1), token],
      ["TOKEN_AUTHENTICATOR_INVALID", encodeExtensions([expiring(START + 2n * hour)]), token],
      ["TOKEN_AUTHENTICATOR_INVALID", encodeExtensions([expiring(START + hour, 1n)]), token],
      ["TOKEN_AUTHENTICATOR_INVALID", encoded, tampered],
    ];
    for (const [code, extensions, bytes] of cases) {
      const presented = extensions === undefined ? {} : { extensions };
      const redeem = (): unknown => own.redeemer.redeem({ token: bytes, scope, ...presented });
      expect(await codeOfAsync(async () => redeem())).toBe(code);
    }
    // Faults together give the code of the earlier check: key, challenge, metadata, signature.
    const late = encodeExtensions([expiring(START)]);
    const elsewhere = Uint8Array.from(tampered).fill(1, 34, 66);
    const unknownKey = Uint8Array.from(elsewhere).fill(1, 66, 98);
    for (const [code, bytes] of [
      ["TOKEN_EXPIRED", tampered],
      ["TOKEN_CHALLENGE_MISMATCH", elsewhere],
      ["TOKEN_KEY_UNKNOWN", unknownKey],
    ] as const) {
      const redeem = (): unknown => own.redeemer.redeem({ token: bytes, scope, extensions: late });
      expect(await codeOfAsync(async () => redeem())).toBe(code);
    }
    // Only what could be good costs a signature's time.
    expect(verified).toBe(3);
    expect(own.store.requests).toHaveLength(0);
    const redemption = { token, extensions: encoded, scope };
    expect(await own.redeemer.redeem(redemption)).toMatchObject({ outcome: "fresh" });
    expect(parseToken(token).tokenType).toBe(0xda7a);
    own.clock.advance(2 * DAY_MS);
    expect(await codeOfAsync(() => own.redeemer.redeem(redemption))).toBe("TOKEN_KEY_UNKNOWN");
  });
});

it("rejects a grid without an expiration at some time, or with too many", () => {
  for (const [precisionSeconds, maxLifetimeSeconds] of [
    [0, 10],
    [1.5, 3],
    [10, 9],
    [10, 170],
    [10, Number.NaN],
  ] as const) {
    expect(() => checkExpirationGrid({ precisionSeconds, maxLifetimeSeconds })).toThrow(RangeError);
  }
  checkExpirationGrid({ precisionSeconds: 10, maxLifetimeSeconds: 160 });
});
