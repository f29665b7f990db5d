/** What a client lets into its tokens: the expiration that every client has at that time, and nothing else. */
import { describe, expect, it } from "vitest";
import { createTokenClient } from "../../tokens/client/index.ts";
import {
  createClientMetadata,
  DEFAULT_EXPIRATION_GRID,
  encodeExtensions,
  encodeExtensionSet,
  encodeTokenChallenge,
  expirationExtension,
  type Extension,
  type ExtensionEntry,
  formatWwwAuthenticate,
  latestExpiration,
  parseExpirationTimestamp,
  parseExtensions,
  parseExtensionSet,
  parseWwwAuthenticate,
  type ReceivedChallenge,
} from "../../tokens/index.ts";
import { encodeBase64Url } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { metadataKey } from "./metadata-fixtures.ts";

const DAY_MS = 86_400_000;
const GRID = DEFAULT_EXPIRATION_GRID;
/** Noon, UTC. */
const NOON_MS = 20_000.5 * DAY_MS;
const UNKNOWN: Extension = { extensionType: 7, extensionData: Uint8Array.of(1) };

const ruleAt = (nowMs: number): ReturnType<typeof createClientMetadata> =>
  createClientMetadata({ ...GRID, clock: () => nowMs });

function expiring(timestampMs: number, precisionSeconds = GRID.precisionSeconds): Extension {
  const timestamp = BigInt(timestampMs / 1_000);
  return expirationExtension({ timestamp, timestampPrecision: BigInt(precisionSeconds) });
}

function timestampMsOf(encoded: Uint8Array): number {
  const [extension] = parseExtensions(encoded).extensions;
  if (extension === undefined) throw new Error("no extension");
  return Number(parseExpirationTimestamp(extension.extensionData).timestamp) * 1_000;
}

const challenge = (tokenType: number): Uint8Array =>
  encodeTokenChallenge({
    tokenType,
    issuerName: "issuer.example",
    redemptionContext: new Uint8Array(),
    originInfo: "origin.example",
  });

/** As it came in a header. */
function received(params: string, tokenType = 0xda7a): ReceivedChallenge | undefined {
  const header = formatWwwAuthenticate([{ challenge: challenge(tokenType) }]);
  return parseWwwAuthenticate(header + params)[0];
}

const suggesting = (...extensions: readonly Extension[]): string =>
  `, extensions="${encodeBase64Url(encodeExtensions(extensions), "padded")}"`;
const asking = (...entries: readonly ExtensionEntry[]): string =>
  `, extension-set="${encodeBase64Url(encodeExtensionSet(entries), "padded")}"`;
const entry = (extensionType: number, isRequired: boolean): ExtensionEntry => ({
  extensionType,
  isRequired,
});

describe("the metadata of a client", () => {
  it("is the midnight after the next one, for all clients and all day", () => {
    const midnight = 20_000 * DAY_MS;
    const times = Array.from({ length: 25 }, (_, hour) => midnight + 300_000 + hour * 3_600_000);
    const values = times.map((time) => timestampMsOf(ruleAt(time).extensionsFor({})));
    expect(values.slice(0, 24)).toEqual(Array.from({ length: 24 }, () => midnight + 2 * DAY_MS));
    expect(values[24]).toBe(midnight + 3 * DAY_MS);
  });

  it("is to be had also where the client's clock is five minutes ahead, and has not expired where it is behind", () => {
    for (const offsetMs of [-300_000, -1_000, 0, 1_000, 299_000]) {
      for (const issuerMs of [NOON_MS, 20_000 * DAY_MS, 20_000 * DAY_MS - 1_000]) {
        const expirationMs = timestampMsOf(ruleAt(issuerMs + offsetMs).extensionsFor({}));
        expect(expirationMs).toBeGreaterThan(issuerMs);
        expect(expirationMs).toBeLessThanOrEqual(issuerMs + 2 * DAY_MS);
      }
    }
  });

  it("is not what an origin would rather have", () => {
    const rule = ruleAt(NOON_MS);
    const ours = rule.extensionsFor({});
    const midnight = 20_002 * DAY_MS;
    for (const params of [
      suggesting(expiring(midnight - DAY_MS)),
      suggesting(expiring(midnight + DAY_MS)),
      suggesting(expiring(midnight, 3_600)),
      suggesting(expiring(midnight), UNKNOWN),
      suggesting(expiring(midnight), expiring(midnight)),
      suggesting(UNKNOWN),
      suggesting(),
      asking(entry(1, true), entry(7, true)),
      asking(entry(7, false)),
      asking(),
    ]) {
      const asked = received(params);
      expect(asked).toBeDefined();
      expect(codeOf(() => rule.extensionsFor(asked!))).toBe("TOKEN_METADATA_REFUSED");
    }
    for (const params of [
      "",
      suggesting(expiring(midnight)),
      asking(entry(1, true)),
      // What is optional is not sent.
      asking(entry(1, false), entry(7, false)) + suggesting(expiring(midnight)),
    ]) {
      expect(rule.extensionsFor(received(params)!)).toEqual(ours);
    }
  });

  it("agrees with an origin whose clock is on the other side of a midnight, and takes its own value", () => {
    const midnight = 20_000 * DAY_MS;
    for (const [ownMs, originMs] of [
      [midnight - 60_000, midnight + 60_000],
      [midnight + 60_000, midnight - 60_000],
    ] as const) {
      const extensions = latestExpiration(GRID, originMs);
      const taken = ruleAt(ownMs).extensionsFor({ extensions });
      expect(taken).toEqual(ruleAt(ownMs).extensionsFor({}));
    }
  });

  it("rejects a grid that is too fine to be shared, or has one step", () => {
    for (const [precisionSeconds, maxLifetimeSeconds] of [
      [3_599, 7_200],
      [60, 960],
      [3_600, 7_199],
      [86_400, 86_400],
      [3_600, 3_600 * 17],
    ] as const) {
      const grid = { precisionSeconds, maxLifetimeSeconds };
      expect(() => createClientMetadata({ ...grid, clock: () => 0 })).toThrow(RangeError);
    }
  });

  it("is read from challenges of its type alone, and left out where it is malformed", () => {
    const wanted = suggesting(UNKNOWN) + asking(entry(1, true));
    expect(received(wanted)).toMatchObject({ extensionSet: [entry(1, true)] });
    expect(received(wanted, 2)).not.toHaveProperty("extensions");
    for (const params of [
      ', extension-set="AAE="',
      `, extension-set="${encodeBase64Url(Uint8Array.of(0, 3, 2, 0, 1), "padded")}"`,
      asking(entry(1, true)) + asking(entry(1, true)),
      suggesting() + suggesting(UNKNOWN),
    ]) {
      expect(received(params)).toBeUndefined();
      expect(received(params, 2)).toBeDefined();
    }
    const bytes = encodeExtensionSet([entry(1, true), entry(0xffff, false)]);
    expect(encodeExtensionSet(parseExtensionSet(bytes))).toEqual(bytes);
    expect([...bytes]).toEqual([0, 6, 1, 0, 1, 0, 0xff, 0xff]);
    for (const cut of [1, 4, 7]) {
      expect(codeOf(() => parseExtensionSet(bytes.subarray(0, cut)))).toMatch(/^WIRE_/);
    }
  });

  it.skipIf(sharedMissing)(
    "is refused by the token client where it is fine or unknown",
    async () => {
      const client = createTokenClient();
      const tokenKey = metadataKey().record.publicKeySpki;
      const midnight = 20_002 * DAY_MS;
      const asked = { challenge: challenge(0xda7a), tokenKey, count: 1 };
      for (const extensions of [
        [],
        [UNKNOWN],
        [expiring(midnight), UNKNOWN],
        [expiring(midnight, 60)],
        [expiring(midnight, 0)],
        [expiring(midnight + 1_000)],
      ]) {
        const request = { ...asked, extensions: encodeExtensions(extensions) };
        expect(await codeOfAsync(() => client.request(request))).toBe("TOKEN_METADATA_REFUSED");
      }
    },
  );
});
