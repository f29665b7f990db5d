/** Type 0xDA7A with edge, attester and issuer apart: the edge follows its keys and holds no secret of them. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openAgent } from "../../service/agent/agent.ts";
import { startSwtpm } from "../../swtpm/index.ts";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import {
  encodeExtendedTokenRequest,
  encodeExtensions,
  expirationExtension,
  type Extension,
  formatAuthorization,
  latestExpiration,
  MEDIA_TYPE_TOKEN_REQUEST,
  parseExtendedTokenRequest,
  parseExtensions,
  parseToken,
  parseWwwAuthenticate,
  type ReceivedChallenge,
} from "../../tokens/index.ts";
import { encodeUtf8 } from "../../wire/index.ts";
import { type AttestedDevice, openAttestedDevice } from "../support/attested-device.ts";
import { runSuite } from "../support/conformance.ts";
import { storeMetadataKey } from "../support/metadata-key.ts";
import { sharedMissing } from "../support/shared.ts";
import { problemIn } from "../support/sidecar.ts";
import { type Split, startSplit } from "../support/split.ts";
import { libraryRequest } from "../tokens/metadata-fixtures.ts";

const TYPE = 0xda7a;
const DAY = 86_400;
const TOKENS = {
  tokenTypes: [TYPE, 2],
  publicMetadata: { expirationPrecisionSeconds: DAY, maxLifetimeSeconds: 2 * DAY },
};
const GRID = { precisionSeconds: DAY, maxLifetimeSeconds: 2 * DAY };

describe.skipIf(sharedMissing)("three sidecars with public metadata", () => {
  let split: Split;
  let device: AttestedDevice;

  beforeAll(async () => {
    split = await startSplit(100, {
      tokens: TOKENS,
      prepare: (dir) => storeMetadataKey(join(dir, "issuer"), encodeUtf8("a passphrase for tests")),
    });
    const { ca, clock, dir } = split;
    const url = split.url("attester");
    const post = (
      path: string,
      body: string | Uint8Array,
      headers: Record<string, string> = {},
    ): Promise<ExchangeAnswer> =>
      exchange({ url: `${url}${path}`, method: "POST", headers, body: Buffer.from(body), ca });
    device = await openAttestedDevice({ ca, clock, dir, post, url });
  });
  afterAll(async () => {
    await device.close();
    await split.stop();
  });

  const atEdge = (headers: Record<string, string> = {}): Promise<ExchangeAnswer> =>
    exchange({ url: `${split.url("edge")}/`, method: "GET", headers, ca: split.ca });

  async function challenged(): Promise<ReceivedChallenge> {
    const answer = await atEdge();
    const received = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
    expect(received.map(({ tokenChallenge }) => tokenChallenge.tokenType)).toEqual([TYPE, 2]);
    return received[0]!;
  }

  async function authorization(extensions: Uint8Array): Promise<string> {
    const { challenge, tokenKey } = await challenged();
    const wanted = parseExtensions(extensions).extensions;
    const { body, client } = await libraryRequest(challenge, tokenKey!, wanted);
    const answer = await device.request(MEDIA_TYPE_TOKEN_REQUEST, body);
    expect(answer.status).toBe(200);
    const response = client.deserializeTokenResponse(Uint8Array.from(answer.body));
    return formatAuthorization((await client.finalize(response)).serialize(), extensions);
  }

  it("admit, and the edge goes on with the keys it has seen when the issuer is gone", async () => {
    const extensions = latestExpiration(GRID, Date.now());
    const [first, second] = [await authorization(extensions), await authorization(extensions)];
    expect((await atEdge({ authorization: first })).status).toBe(200);
    expect((await atEdge({ authorization: first })).status).toBe(401);
    await split.stopRole("edge");
    await split.stopRole("issuer");
    await split.startRole("edge");
    expect((await atEdge({ authorization: second })).status).toBe(200);
    await split.startRole("issuer");
  });

  it("admit the device agent, with tokens that it got ahead", async () => {
    const tpm = await startSwtpm({ ca: split.manufacturer, ekAlgorithms: ["ecc"] });
    const agent = await openAgent({
      attester: split.url("attester"),
      ca: split.ca,
      tcti: tpm.tcti,
      ekAlgorithm: "ecc",
      walletDir: join(split.dir, "wallet"),
      clock: () => Date.now() + split.clock.offsetMs,
      random: (length) => Uint8Array.from(randomBytes(length)),
    });
    const url = `${split.url("edge")}/`;
    const challenge = await agent.challengeOf(url);
    expect(await agent.obtainTokens(challenge, 2)).toBe(2);
    for (const left of [1, 0]) {
      const { status, token } = await agent.fetch(url);
      expect([status, parseToken(token!).tokenType, agent.count(challenge)]).toEqual([
        200,
        TYPE,
        left,
      ]);
    }
    await agent.close();
    await tpm.stop();
  });

  it("refuse metadata off the grid at the attester, and else at the issuer", async () => {
    const { challenge, tokenKey } = await challenged();
    const days = BigInt(Math.floor(Date.now() / 1_000 / DAY));
    // One day more than would do, in case one ends on the way.
    const timestamp = (days + 5n) * BigInt(DAY);
    const late: Extension = expirationExtension({ timestamp, timestampPrecision: BigInt(DAY) });
    const { body } = await libraryRequest(challenge, tokenKey!, [late]);
    const refused = async (): Promise<string> => {
      const answer = await device.request(MEDIA_TYPE_TOKEN_REQUEST, body);
      return `${answer.status} ${problemIn(answer).type}`;
    };
    const byPolicy = "422 urn:stile:problem:token-metadata-refused";
    await split.stopRole("issuer");
    expect(await refused()).toBe(byPolicy);
    await split.stopRole("attester");
    await split.startRole("attester", { issuer: {} });
    expect(await refused()).toBe("503 urn:stile:problem:token-issuer-unavailable");
    await split.startRole("issuer");
    expect(await refused()).toBe(byPolicy);
    const { request } = parseExtendedTokenRequest(body);
    const cut = encodeExtendedTokenRequest(request, encodeExtensions([late]).subarray(0, -1));
    expect((await device.request(MEDIA_TYPE_TOKEN_REQUEST, cut)).status).toBe(422);
  });

  it("are conformant in all that the suite knows, and it passes the type over", async () => {
    const urls = { issuer: split.url("issuer"), origin: split.url("edge") };
    const { exitCode, failed, passed } = await runSuite(split, urls);
    expect([exitCode, failed]).toEqual([0, {}]);
    expect(passed).toContain("issuance.valid-type-2");
  });
});
