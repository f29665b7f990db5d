/** The device agent with tokens of type 0xDA7A, over a running sidecar: fetched, kept, spent, and past their end. */
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Agent, openAgent } from "../../service/agent/agent.ts";
import { openManufacturerCa, startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import { openWallet } from "../../tokens/client/index.ts";
import {
  encodeExtensions,
  encodeExtensionSet,
  expirationExtension,
  type ExpirationGrid,
  formatWwwAuthenticate,
  latestExpiration,
  parseToken,
  parseWwwAuthenticate,
} from "../../tokens/index.ts";
import { encodeBase64Url } from "../../wire/index.ts";
import { storeMetadataKey } from "../support/metadata-key.ts";
import { codeOfAsync } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const TYPE = 0xda7a;
const DAY = 86_400;
const GRID = { precisionSeconds: DAY, maxLifetimeSeconds: 2 * DAY };

describe.skipIf(sharedMissing)("an agent with public metadata", () => {
  let target: TestSidecar;
  let tpm: Swtpm;
  let agent: Agent | undefined;
  let evil: Server;

  beforeAll(async () => {
    target = await startTestSidecar({
      prepare: async (dir) => {
        const passphrase = Buffer.from(randomBytes(32).toString("base64url"));
        writeFileSync(join(dir, "passphrase"), passphrase);
        await storeMetadataKey(join(dir, "state"), passphrase);
      },
      attester: { allowance: { tokens: 14, windowSeconds: 86_400 } },
      edge: { redemptionContext: "none", clearanceSeconds: 0, challengeMaxAgeSeconds: 3 * DAY },
      issuer: {
        tokenTypes: [TYPE, 2],
        publicMetadata: { expirationPrecisionSeconds: DAY, maxLifetimeSeconds: 2 * DAY },
      },
    });
    // Noon, so that no day ends on the way.
    const dayMs = DAY * 1_000;
    target.clock.offsetMs = (1.5 * dayMs - (Date.now() % dayMs)) % dayMs;
    const ca = await openManufacturerCa({ clock: now, folder: join(target.dir, "manufacturer") });
    tpm = await startSwtpm({ ca, ekAlgorithms: ["ecc"] });
    evil = createServer({
      cert: readFileSync(target.config.tls.certificateFile ?? ""),
      key: readFileSync(target.config.tls.keyFile ?? ""),
    });
    await new Promise<void>((resolve) => {
      evil.listen(0, "localhost", resolve);
    });
  });

  afterAll(async () => {
    evil.close();
    evil.closeAllConnections();
    await agent?.close();
    await tpm.stop();
    await target.stop();
  });

  const now = (): number => Date.now() + target.clock.offsetMs;

  /** One at a time: an agent holds its wallet alone. */
  async function open(wallet: string, expirationGrid?: ExpirationGrid): Promise<Agent> {
    await agent?.close();
    agent = await openAgent({
      attester: target.url,
      ca: target.ca,
      tcti: tpm.tcti,
      ekAlgorithm: "ecc",
      walletDir: join(target.dir, wallet),
      expirationGrid,
      clock: now,
      random: (length) => Uint8Array.from(randomBytes(length)),
    });
    return agent;
  }

  /** What `openAgent` left on disk. */
  async function kept(wallet: string, digest: Uint8Array): Promise<Uint8Array[]> {
    await agent?.close();
    agent = undefined;
    const opened = await openWallet({ dir: join(target.dir, wallet), clock: now });
    const extensions: Uint8Array[] = [];
    while (opened.count(digest) > 0) {
      extensions.push((await opened.take(digest)).extensions ?? new Uint8Array());
    }
    await opened.close();
    return extensions;
  }

  it("has another grid than its issuer: nothing is issued, and nothing is charged", async () => {
    const other = await open("other", { precisionSeconds: DAY / 2, maxLifetimeSeconds: DAY });
    const challenge = await other.challengeOf(`${target.url}/`);
    expect(await codeOfAsync(() => other.obtainTokens(challenge, 3))).toBe(
      "TOKEN_ISSUANCE_REFUSED",
    );
    expect(await codeOfAsync(() => other.fetch(`${target.url}/`))).toBe("TOKEN_ISSUANCE_REFUSED");
    expect(other.count(challenge)).toBe(0);
  });

  it("answers the first challenge with a token of its type, and keeps the others for later", async () => {
    const before = target.upstream.hits();
    const one = await open("wallet");
    const challenge = await one.challengeOf(`${target.url}/`);
    expect(challenge.tokenChallenge.tokenType).toBe(TYPE);
    const answer = await one.fetch(`${target.url}/`);
    expect([answer.status, parseToken(answer.token!).tokenType]).toEqual([200, TYPE]);
    expect(target.upstream.hits()).toBe(before + 1);
    // Ten were fetched, in as many requests; none more for the second visit, after a restart.
    expect(one.count(challenge)).toBe(9);
    const two = await open("wallet");
    expect((await two.fetch(`${target.url}/`)).status).toBe(200);
    expect(two.count(challenge)).toBe(8);
  });

  it("drops what has expired, and gets as many anew as its allowance has", async () => {
    const one = await open("wallet");
    const challenge = await one.challengeOf(`${target.url}/`);
    expect(one.count(challenge)).toBe(8);
    // Two minutes before and after the midnight after the next one.
    target.clock.offsetMs += 1.5 * DAY * 1_000 - 120_000;
    expect(one.count(challenge)).toBe(8);
    target.clock.offsetMs += 240_000;
    expect(one.count(challenge)).toBe(0);
    const answer = await one.fetch(`${target.url}/`);
    expect([answer.status, parseToken(answer.token!).tokenType]).toEqual([200, TYPE]);
    const { challengeDigest } = parseToken(answer.token!);
    const extensions = await kept("wallet", challengeDigest);
    // By the rule of all clients, not by what the issuer would have signed at most.
    expect(extensions.length).toBeGreaterThan(2);
    const expected = latestExpiration(GRID, now() - 300_000);
    expect(new Set(extensions.map((one) => encodeBase64Url(one)))).toEqual(
      new Set([encodeBase64Url(expected)]),
    );
  });

  it("gives no token to an origin that wants metadata of its own choice", async () => {
    target.clock.offsetMs += 0.25 * DAY * 1_000;
    const one = await open("evil");
    const header = (await target.get("/")).headers["www-authenticate"] ?? "";
    const [wanted, blind] = parseWwwAuthenticate(header);
    const midnight = BigInt((Math.floor(now() / 1_000 / DAY) + 1) * DAY);
    const marked = encodeExtensions([
      expirationExtension({ timestamp: midnight, timestampPrecision: BigInt(DAY) }),
    ]);
    const unknown = encodeExtensionSet([
      { isRequired: true, extensionType: 1 },
      { isRequired: true, extensionType: 0xbeef },
    ]);
    const requests: string[] = [];
    let challenges = "";
    evil.on("request", (request, response) => {
      requests.push(request.headers.authorization ?? "");
      response.writeHead(401, { "www-authenticate": challenges }).end();
    });
    const url = `https://localhost:${(evil.address() as AddressInfo).port}/`;
    const issued = target.lines.filter((line) => line.includes("issu")).length;
    for (const param of [
      `extensions="${encodeBase64Url(marked, "padded")}"`,
      `extension-set="${encodeBase64Url(unknown, "padded")}"`,
    ]) {
      challenges = `${formatWwwAuthenticate([wanted!])}, ${param}`;
      expect(await codeOfAsync(() => one.fetch(url))).toBe("TOKEN_METADATA_REFUSED");
      // Where there is another challenge, that one is answered.
      challenges += `, ${formatWwwAuthenticate([blind!])}`;
      expect((await one.challengeOf(url)).tokenChallenge.tokenType).toBe(2);
    }
    expect(requests.every((authorization) => authorization === "")).toBe(true);
    expect(target.lines.filter((line) => line.includes("issu"))).toHaveLength(issued);
  });

  it("refuses to start with a grid that would tell its owner from others", async () => {
    const fine = { precisionSeconds: 60, maxLifetimeSeconds: 120 };
    await expect(open("fine", fine)).rejects.toThrow(RangeError);
    agent = undefined;
  });
});
