/** A sidecar that serves type 0xDA7A: settings, directory, challenge, issuance to a device, redemption, expiry. */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { checkConfig } from "../../service/config/index.ts";
import {
  encodeExtendedTokenRequest,
  encodeExtensions,
  expirationExtension,
  type Extension,
  formatAuthorization,
  MEDIA_TYPE_TOKEN_REQUEST,
  parseExtendedTokenRequest,
  parseIssuerDirectory,
  parseWwwAuthenticate,
  type ReceivedChallenge,
} from "../../tokens/index.ts";
import { encodeBase64Url, isStileError } from "../../wire/index.ts";
import { type AttestedDevice, openAttestedDevice } from "../support/attested-device.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { sharedMissing } from "../support/shared.ts";
import { storeMetadataKey } from "../support/metadata-key.ts";
import { libraryRequest } from "../tokens/metadata-fixtures.ts";

const TYPE = 0xda7a;
const HOUR = 3_600;
/** One for each request that is tried: a refused one costs none. */
const ALLOWANCE = 4;

describe.skipIf(sharedMissing)("a sidecar with public metadata", () => {
  let target: TestSidecar;
  let device: AttestedDevice;

  beforeAll(async () => {
    target = await startTestSidecar({
      prepare: async (dir) => {
        const passphrase = Buffer.from(randomBytes(32).toString("base64url"));
        writeFileSync(join(dir, "passphrase"), passphrase);
        await storeMetadataKey(join(dir, "state"), passphrase);
      },
      attester: { allowance: { tokens: ALLOWANCE, windowSeconds: 86_400 } },
      edge: { redemptionContext: "none", clearanceSeconds: 0 },
      issuer: {
        tokenTypes: [2, TYPE],
        publicMetadata: { expirationPrecisionSeconds: HOUR, maxLifetimeSeconds: 2 * HOUR },
      },
    });
    // The middle of an hour, so that none ends on the way.
    const hourMs = HOUR * 1_000;
    target.clock.offsetMs = (1.5 * hourMs - (Date.now() % hourMs)) % hourMs;
    device = await openAttestedDevice(target);
  });

  const now = (): number => Date.now() + target.clock.offsetMs;

  afterAll(async () => {
    await device.close();
    await target.stop();
  });

  const post = (body: Uint8Array): Promise<ExchangeAnswer> =>
    device.request(MEDIA_TYPE_TOKEN_REQUEST, body);

  async function challenged(): Promise<ReceivedChallenge> {
    const answer = await target.get("/");
    const received = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
    expect(received.map(({ tokenChallenge }) => tokenChallenge.tokenType)).toEqual([2, TYPE]);
    return received[1]!;
  }

  /** The next instants of the grid. */
  function expiring(steps: number): Extension {
    const hour = Math.floor(now() / 1_000 / HOUR);
    const timestamp = BigInt((hour + steps) * HOUR);
    return expirationExtension({ timestamp, timestampPrecision: BigInt(HOUR) });
  }

  async function tokenWith(extension: Extension): Promise<Uint8Array> {
    const { challenge, tokenKey } = await challenged();
    const { body, client } = await libraryRequest(challenge, tokenKey!, [extension]);
    const answer = await post(body);
    expect([answer.status, answer.headers["content-type"]]).toEqual([
      200,
      "application/private-token-response",
    ]);
    const response = client.deserializeTokenResponse(Uint8Array.from(answer.body));
    return (await client.finalize(response)).serialize();
  }

  const ask = (token: Uint8Array, extensions?: Uint8Array): Promise<ExchangeAnswer> =>
    target.get("/", { authorization: formatAuthorization(token, extensions) });

  it("lists a key of its own, in the directory and in the challenge", async () => {
    const { tokenKey } = await challenged();
    const directory = parseIssuerDirectory(
      (await target.get("/.well-known/private-token-issuer-directory")).body,
    );
    const listed = directory.tokenKeys.filter((key) => key.tokenType === TYPE);
    expect(listed.map((key) => key.tokenKey)).toEqual([tokenKey]);
    expect(directory.tokenKeys.filter((key) => key.tokenType === 2)).toHaveLength(1);
  });

  it("refuses metadata that is not on its grid, at no cost", async () => {
    const { challenge, tokenKey } = await challenged();
    const good = expiring(1);
    const { body } = await libraryRequest(challenge, tokenKey!, [good]);
    const { request } = parseExtendedTokenRequest(body);
    const unknown = { extensionType: 7, extensionData: Uint8Array.of(1) };
    for (const [extensions, type] of [
      [[], "token-metadata-refused"],
      [[good, unknown], "token-metadata-refused"],
      [[good, good], "token-metadata-refused"],
      [[expiring(0)], "token-metadata-refused"],
      [[expiring(3)], "token-metadata-refused"],
    ] as const) {
      const answer = await post(encodeExtendedTokenRequest(request, encodeExtensions(extensions)));
      expect([answer.status, problemIn(answer).type]).toEqual([422, `urn:stile:problem:${type}`]);
    }
    const plain = await post(body.subarray(0, 259));
    expect([plain.status, problemIn(plain).type]).toEqual([
      422,
      "urn:stile:problem:token-request-invalid",
    ]);
  });

  it("admits once with a token and its extensions, and with nothing else", async () => {
    const extension = expiring(2);
    const extensions = encodeExtensions([extension]);
    const token = await tokenWith(extension);
    const before = target.upstream.hits();
    for (const others of [undefined, encodeExtensions([]), encodeExtensions([expiring(1)])]) {
      const answer = await ask(token, others);
      expect([answer.status, problemIn(answer).type]).toEqual([
        401,
        "urn:stile:problem:token-authenticator-invalid",
      ]);
    }
    expect(target.upstream.hits()).toBe(before);
    expect((await ask(token, extensions)).status).toBe(200);
    expect((await ask(token, extensions)).status).toBe(401);
    expect(target.upstream.hits()).toBe(before + 1);
  });

  it("redeems for an edge node that sends the extensions along", async () => {
    const extension = expiring(2);
    const token = encodeBase64Url(await tokenWith(extension));
    const redeem = async (more: object): Promise<number> => {
      const body = JSON.stringify({ token, host: new URL(target.url).host, ...more });
      const headers = { "content-type": "application/json" };
      return (await target.post("/.stile/redeem", body, headers)).status;
    };
    expect(await redeem({})).toBe(401);
    expect(await redeem({ extensions: "?" })).toBe(400);
    const extensions = encodeBase64Url(encodeExtensions([extension]));
    expect(await redeem({ extensions })).toBe(200);
  });

  it("charges a token like any other, and refuses one that has expired", async () => {
    const extension = expiring(1);
    const extensions = encodeExtensions([extension]);
    const token = await tokenWith(extension);
    await tokenWith(extension);
    const { challenge, tokenKey } = await challenged();
    const { body } = await libraryRequest(challenge, tokenKey!, [extension]);
    // the fifth, of four
    expect(problemIn(await post(body)).type).toBe("urn:stile:problem:attest-allowance-exceeded");
    target.clock.offsetMs += HOUR * 1_000;
    const late = await ask(token, extensions);
    expect([late.status, problemIn(late).type]).toEqual([401, "urn:stile:problem:token-expired"]);
    const text = target.lines.join("\n");
    expect(text).not.toContain(encodeBase64Url(token).slice(8, 40));
  });
});

describe("the settings of public metadata", () => {
  const config = (issuer: object): string => {
    const edge = { hosts: ["a.example"], issuerName: "a.example", upstream: "http://127.0.0.1:1" };
    const base = {
      publicUrl: "https://a.example",
      passphraseFile: "/x",
      tls: { certificateFile: "/x", keyFile: "/x" },
      attester: { manufacturerRootsFile: "/x" },
    };
    try {
      checkConfig({ ...base, edge, issuer });
      return "";
    } catch (error) {
      if (isStileError(error, "SERVICE_CONFIG_INVALID")) return error.message;
      throw error;
    }
  };

  it("are for the type and for nothing else, and leave metadata few values", () => {
    const grid = (expirationPrecisionSeconds: number, maxLifetimeSeconds: number): object => ({
      tokenTypes: [TYPE],
      publicMetadata: { expirationPrecisionSeconds, maxLifetimeSeconds },
    });
    expect(config({})).toBe("");
    expect(config({ tokenTypes: [2, TYPE], publicMetadata: {} })).toBe("");
    expect(config(grid(60, 960))).toBe("");
    for (const [issuer, reason] of [
      [{ tokenTypes: [TYPE] }, "missing setting issuer.publicMetadata"],
      [{ publicMetadata: {} }, "issuer.publicMetadata is only for 55930 in issuer.tokenTypes"],
      [grid(60, 1_020), "issuer.publicMetadata.maxLifetimeSeconds"],
      [grid(3_600, 600), "issuer.publicMetadata.maxLifetimeSeconds"],
      [grid(59, 600), "issuer.publicMetadata.expirationPrecisionSeconds"],
      [{ ...grid(3_600, 7_200), redeemableSeconds: 3_600 }, "issuer.redeemableSeconds"],
      [{ tokenTypes: [2], publicMetadata: { precision: 1 } }, "issuer.publicMetadata.precision"],
    ] as const) {
      expect(config(issuer)).toContain(reason);
    }
  });
});
