import fc from "fast-check";
import { WWWAuthenticateHeader } from "@cloudflare/privacypass-ts";
import { describe, expect, it } from "vitest";
import {
  encodeTokenChallenge,
  formatAuthorization,
  formatWwwAuthenticate,
  otherCredentials,
  parseAuthorization,
  parseWwwAuthenticate,
} from "../../tokens/index.ts";
import { encodeBase64Url, isStileError } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { bytesOf, readVectors } from "./vectors.ts";

const challenge = encodeTokenChallenge({
  tokenType: 2,
  issuerName: "issuer.example",
  redemptionContext: new Uint8Array(32).fill(9),
  originInfo: "origin.example",
});
const CHALLENGE = encodeBase64Url(challenge, "padded");
const tokenKey = new Uint8Array(342).fill(3);

describe.skipIf(sharedMissing)("WWW-Authenticate against RFC 9577 A.2", () => {
  it.each([
    "privacypass-ts/auth_scheme_header_v14.json",
    "privacypass-ts/auth_scheme_header_complicated.json",
  ])("%s", (path) => {
    for (const vector of readVectors(path)) {
      const header = vector["WWW-Authenticate"] ?? "";
      const count = Object.keys(vector).filter((name) => name.startsWith("token-type-")).length;
      const received = parseWwwAuthenticate(header);
      expect(received).toHaveLength(count);
      for (const [i, item] of received.entries()) {
        expect(item).toMatchObject({
          challenge: bytesOf(vector, `token-challenge-${i}`),
          tokenKey: bytesOf(vector, `token-key-${i}`),
          maxAgeSeconds: 10,
          tokenChallenge: { issuerName: "issuer.example", originInfo: "origin.example" },
        });
        expect(item.tokenChallenge.tokenType).toBe(Number(vector[`token-type-${i}`]));
      }
      const unknown = /, ?unknownChallengeAttribute="?ignore-me"?/g;
      const quoted = header.replaceAll(/=([A-Za-z][^",]+)(?=,|$)/g, '="$1"');
      const ours = quoted.replaceAll(unknown, "").replaceAll(/max-age=10$/g, 'max-age="10"');
      expect(formatWwwAuthenticate(received)).toBe(ours);
    }
  });
});

describe("formatWwwAuthenticate", () => {
  it("joins challenges into one header that privacypass-ts reads", () => {
    const header = formatWwwAuthenticate([
      { challenge, tokenKey, maxAgeSeconds: 0 },
      { challenge, tokenKey },
    ]);
    expect(header).toBe(
      `PrivateToken challenge="${CHALLENGE}", token-key="${encodeBase64Url(tokenKey)}", ` +
        `max-age="0", PrivateToken challenge="${CHALLENGE}", token-key="${encodeBase64Url(tokenKey)}"`,
    );
    const [first, second] = WWWAuthenticateHeader.parse(header);
    expect(first).toMatchObject({ maxAge: 0, challenge: { issuerName: "issuer.example" } });
    expect(second?.tokenKey).toEqual(tokenKey);
    expect(parseWwwAuthenticate(header)).toHaveLength(2);
  });

  it("rejects nothing to say, and ages that are no whole seconds", () => {
    expect(() => formatWwwAuthenticate([])).toThrow(RangeError);
    for (const maxAgeSeconds of [-1, 1.5, 1e21, Number.NaN]) {
      expect(() => formatWwwAuthenticate([{ challenge, maxAgeSeconds }])).toThrow(RangeError);
    }
  });
});

describe("parseWwwAuthenticate", () => {
  const count = (header: string): number => parseWwwAuthenticate(header).length;

  it("finds ours among other schemes, whatever their form and order", () => {
    const ours = `PrivateToken challenge="${CHALLENGE}"`;
    for (const header of [
      ours,
      ours.replace("PrivateToken", "pRIVATEtOKEN"),
      `Basic realm="a, PrivateToken challenge=\\"x\\"", ${ours}`,
      `${ours}, Basic realm="x"`,
      `Negotiate, ${ours}`,
      `Negotiate YWJj==, ${ours}, Bearer`,
      `, ,${ours} , ,`,
      `PrivateToken challenge=${CHALLENGE}`,
      `PrivateToken\tchallenge = "${CHALLENGE}"`,
      `PrivateToken challenge="${CHALLENGE.replaceAll("=", "")}"`,
      `PrivateToken future=1, challenge="${CHALLENGE}", rate-limit="10"`,
    ]) {
      const [received, ...more] = parseWwwAuthenticate(header);
      expect(received?.challenge).toEqual(challenge);
      expect(more).toEqual([]);
    }
    expect(parseWwwAuthenticate(ours)[0]).not.toHaveProperty("tokenKey");
    expect(count('Basic realm="x"')).toBe(0);
    expect(count("")).toBe(0);
  });

  it("leaves out greased types (RFC 9577 section 2.1.3) whatever follows their type", () => {
    const random = fc.uint8Array({ maxLength: 80 });
    const greased = fc.constantFrom(0x0000, 0x02aa, 0x1132, 0xf057, 0x0003, 0xe5ac);
    fc.assert(
      fc.property(greased, random, (type, body) => {
        const bytes = Uint8Array.of(type >> 8, type & 0xff, ...body);
        const grease = `PrivateToken challenge="${encodeBase64Url(bytes, "padded")}", token-key=""`;
        expect(count(`${grease}, PrivateToken challenge="${CHALLENGE}"`)).toBe(1);
        expect(count(`PrivateToken challenge="${CHALLENGE}", ${grease}`)).toBe(1);
      }),
      { seed: 20_261_123, numRuns: 100 },
    );
  });

  it("leaves out challenges that are malformed or ambiguous in themselves", () => {
    const bad = [
      "PrivateToken",
      "PrivateToken abc=",
      'PrivateToken token-key="AA=="',
      'PrivateToken challenge=""',
      'PrivateToken challenge="AA=="',
      'PrivateToken challenge="AAI="',
      `PrivateToken challenge="${CHALLENGE}*"`,
      `PrivateToken challenge="${CHALLENGE}", challenge="${CHALLENGE}"`,
      `PrivateToken challenge="${CHALLENGE}", token-key="AA==", Token-Key="AA=="`,
      `PrivateToken challenge="${CHALLENGE}", token-key="?"`,
      `PrivateToken challenge="${CHALLENGE}", max-age="-1"`,
      `PrivateToken challenge="${CHALLENGE}", max-age="99999999999"`,
    ];
    for (const item of bad) {
      expect(count(item)).toBe(0);
      expect(count(`${item}, PrivateToken challenge="${CHALLENGE}"`)).toBe(1);
    }
  });

  it("rejects text that is no list of challenges, and too much of it", () => {
    for (const header of [
      '"',
      "=",
      "a=b",
      'PrivateToken challenge="AA',
      'PrivateToken a="x"b',
      'PrivateToken a="x" b="y"',
      "Basic a b",
      "Basic a b=c",
      "PrivateToken \u0000",
      "a".repeat(16_385),
    ]) {
      expect(codeOf(() => parseWwwAuthenticate(header))).toBe("TOKEN_CHALLENGE_INVALID");
    }
  });
});

describe("parseAuthorization", () => {
  const token = Uint8Array.from({ length: 352 }, (_, i) => i % 256);
  const TEXT = encodeBase64Url(token, "padded");

  it("reads what it writes and what deployed clients send", () => {
    expect(formatAuthorization(token)).toBe(`PrivateToken token="${TEXT}"`);
    for (const header of [
      formatAuthorization(token),
      `PrivateToken token=${TEXT}`, // Silk
      `PrivateToken token=${TEXT.replaceAll("=", "")}`,
      `privatetoken TOKEN="${TEXT.replaceAll("=", "")}"`,
      `PrivateToken extensions="AAAA", token="${TEXT}", more=1`,
      `Basic YTpi, PrivateToken token="${TEXT}"`,
      `PrivateToken token="${TEXT}", Bearer abc`,
      `  PrivateToken   token = "${TEXT}" `,
    ]) {
      expect(parseAuthorization(header)).toEqual({ token });
    }
  });

  it("reads the extensions of a token with metadata, once", () => {
    const extended = Uint8Array.from({ length: 354 }, (_, i) => [0xda, 0x7a][i] ?? i % 256);
    const extensions = Uint8Array.of(0, 4, 0, 1, 0, 0);
    const header = formatAuthorization(extended, extensions);
    expect(header.endsWith(', extensions="AAQAAQAA"')).toBe(true);
    expect(parseAuthorization(header)).toEqual({ token: extended, extensions });
    expect(parseAuthorization(formatAuthorization(extended))).toEqual({ token: extended });
    for (const [more, code] of [
      [', extensions="AAAA"', "WIRE_VALUE_NOT_ALLOWED"],
      ["=", "WIRE_BAD_ENCODING"],
    ] as const) {
      const text = more.startsWith(",") ? header + more : header.slice(0, -1) + `${more}"`;
      expect(codeOf(() => parseAuthorization(text))).toBe(code);
    }
    // Of other tokens it is a parameter like any other that is not known, and is ignored.
    const ignored = `${formatAuthorization(token)}, extensions="?", extensions="AAAA"`;
    expect(parseAuthorization(ignored)).toEqual({ token });
  });

  it("leaves other credentials alone, whatever their size and form", () => {
    for (const header of ["", "Bearer abc", 'Bearer "', `Negotiate ${"A".repeat(60_000)}`]) {
      expect(parseAuthorization(header)).toBeUndefined();
    }
    expect(parseAuthorization("Bearer privatetoken")).toBeUndefined();
    expect(parseAuthorization('Digest username="PrivateToken token=AA"')).toBeUndefined();
  });

  it("is told apart from other credentials, which stay as they were received", () => {
    const ours = `PrivateToken token="${TEXT}"`;
    const digest = 'Digest  username="a, PrivateToken b", qop=auth';
    for (const [header, others] of [
      [ours, undefined],
      [`, ${ours}`, undefined],
      [`privatetoken token=${TEXT} ,`, undefined],
      ['PrivateToken token="', undefined],
      [`Basic YTpi, ${ours}`, "Basic YTpi"],
      [`${ours}, Bearer abc=`, "Bearer abc="],
      [`${digest} , ${ours}, Bearer  x`, `${digest}, Bearer  x`],
      [digest, digest],
      ["Bearer privatetoken", "Bearer privatetoken"],
      ['Bearer "', 'Bearer "'],
    ] as const) {
      expect(otherCredentials(header), header).toBe(others);
    }
  });

  it("rejects more or less than one token", () => {
    const one = `PrivateToken token="${TEXT}"`;
    for (const header of [
      "PrivateToken",
      "PrivateToken token=",
      `PrivateToken ${TEXT}`,
      'PrivateToken challenge="AA=="',
      `${one}, token="${TEXT}"`,
      `${one}, ${one}`,
      `${one}, PrivateToken`,
    ]) {
      expect(codeOf(() => parseAuthorization(header))).toBe("WIRE_VALUE_NOT_ALLOWED");
    }
  });

  it("rejects malformed credentials and encodings, and too long a header", () => {
    for (const header of [
      'PrivateToken token="',
      'PrivateToken token="AA=="x',
      'PrivateToken token="AB=="',
      'PrivateToken token="A+=="',
      "PrivateToken token=AA=",
      'PrivateToken token="A A="',
      "PrivateToken token=AA token=AA",
    ]) {
      expect(codeOf(() => parseAuthorization(header))).toBe("WIRE_BAD_ENCODING");
    }
    expect(codeOf(() => parseAuthorization(`PrivateToken token=${"A".repeat(16_384)}`))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
  });

  it("any text: an answer or our error, never another", () => {
    const piece = fc.constantFrom(
      "PrivateToken",
      " ",
      ",",
      "=",
      '"',
      "\\",
      "token",
      "AA==",
      "\t",
      "é",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        for (const parse of [parseAuthorization, parseWwwAuthenticate]) {
          try {
            parse(pieces.join(""));
          } catch (error) {
            if (!isStileError(error)) throw error;
          }
        }
      }),
      { seed: 20_261_123, numRuns: 2000 },
    );
  });

  it("takes time in proportion to the length: 50 hostile headers of 16 KiB in a second", () => {
    const units = [
      '"',
      "\\",
      "a",
      "=",
      "a=",
      ",",
      " ",
      "a ",
      'a="',
      '"a',
      "a,",
      "\\a",
      "a=b,",
      '="',
    ];
    const heads = ["PrivateToken ", 'PrivateToken a="', "PrivateToken a=", "PrivateToken a "];
    const before = process.cpuUsage();
    for (const head of heads) {
      for (const unit of units) {
        const header = head + unit.repeat(Math.floor((16_384 - head.length) / unit.length));
        codeOf(() => parseAuthorization(header));
      }
    }
    const { system, user } = process.cpuUsage(before);
    expect((system + user) / 1_000).toBeLessThan(1_000);
  });
});
