/** Greased challenges: reserved types among the real ones, which clients of the RFC pass over. */
import { describe, expect, it } from "vitest";
import {
  formatWwwAuthenticate,
  GREASED_TOKEN_TYPES,
  parseWwwAuthenticate,
  type PrivateTokenChallenge,
  withGrease,
} from "../../tokens/index.ts";
import { decodeBase64Url, Reader } from "../../wire/index.ts";
import { seededRandom } from "../support/attester.ts";
import { startTestSidecar } from "../support/sidecar.ts";

describe("grease", () => {
  it("is one more challenge, of any reserved type and at any place", () => {
    const random = seededRandom("grease");
    const real: PrivateTokenChallenge[] = [1, 2].map((byte) => ({
      challenge: new Uint8Array([0, 2, byte]),
    }));
    const types = new Set<number>();
    const places = new Set<number>();
    for (let i = 0; i < 600; i += 1) {
      const all = withGrease(real, random);
      const at = all.findIndex((item) => !real.includes(item));
      types.add(new Reader(all[at]?.challenge ?? new Uint8Array(2), "challenge").u16("type"));
      places.add(at);
      expect(all.filter((item) => real.includes(item))).toEqual(real);
    }
    expect([...types].toSorted((a, b) => a - b)).toEqual(
      GREASED_TOKEN_TYPES.toSorted((a, b) => a - b),
    );
    expect(places).toEqual(new Set([0, 1, 2]));
  });

  it("leaves a header that clients of the RFC can read", () => {
    const random = seededRandom("header");
    const [known] = parseWwwAuthenticate(formatWwwAuthenticate([{ challenge: CHALLENGE }]));
    expect(known).toBeDefined();
    for (let i = 0; i < 200; i += 1) {
      const header = formatWwwAuthenticate(withGrease([{ challenge: CHALLENGE }], random));
      expect(parseWwwAuthenticate(header)).toEqual([known]);
    }
  });

  it("is sent by an edge that is told to", async () => {
    const target = await startTestSidecar({ edge: { grease: true } });
    try {
      const seen = new Set<string>();
      for (let i = 0; i < 10; i += 1) {
        const header = (await target.get("/")).headers["www-authenticate"] ?? "";
        expect(header.match(/PrivateToken /g)).toHaveLength(2);
        expect(parseWwwAuthenticate(header)).toHaveLength(1);
        seen.add(header);
      }
      expect(seen.size).toBe(10);
      const authorization = await target.mint();
      expect((await target.get("/", { authorization })).status).toBe(200);
    } finally {
      await target.stop();
    }
  });
});

/** Type 0x0002, issuer "a", no context, no origin. */
const CHALLENGE = decodeBase64Url("AAIAAWEAAAA");
