/** What an origin can do wrong, one thing each, and the checks that have to find it. */
import { createHash } from "node:crypto";
import {
  formatWwwAuthenticate,
  parseAuthorization,
  parseToken,
  parseWwwAuthenticate,
  type Token,
  type TokenChallenge,
} from "../../tokens/index.ts";
import { concatBytes, encodeHex, isStileError, Writer } from "../../wire/index.ts";
import type { Fault, ProxiedAnswer, ProxiedRequest } from "../support/fault-proxy.ts";
import type { NamedFault } from "./issuer-faults.ts";

/** What tells a token that has been changed from one that has not. */
const REDEMPTION = [
  "redemption.replay",
  "redemption.authenticator",
  "redemption.nonce",
  "redemption.token-type",
  "redemption.key-id",
  "redemption.trailing-byte",
  "redemption.other-challenge",
  "redemption.other-origin",
  "redemption.forged",
] as const;

const EMPTY = new Uint8Array(0);
const admitted = (): ProxiedAnswer => ({ status: 200, headers: {}, body: EMPTY });

const onChallenge = (change: (answer: ProxiedAnswer) => void): Fault => ({
  after: (answer) => {
    if (answer.status === 401) change(answer);
  },
});

/** The first challenge with other fields; what is written may be no TokenChallenge at all. */
const rewritten = (change: (challenge: TokenChallenge) => Uint8Array): Fault =>
  onChallenge((answer) => {
    const [first] = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
    if (first === undefined) throw new Error("expected a challenge");
    const challenge = change(first.tokenChallenge);
    answer.headers["www-authenticate"] = formatWwwAuthenticate([{ ...first, challenge }]);
  });

const encoded = (
  { issuerName, originInfo, redemptionContext, tokenType }: TokenChallenge,
  fields: Partial<TokenChallenge>,
): Uint8Array =>
  new Writer()
    .u16(tokenType)
    .vec16(Buffer.from(fields.issuerName ?? issuerName))
    .vec8(fields.redemptionContext ?? redemptionContext)
    .vec16(Buffer.from(fields.originInfo ?? originInfo))
    .finish();

function tokenBytes({ headers }: ProxiedRequest): Uint8Array | undefined {
  try {
    return parseAuthorization(headers["authorization"] ?? "")?.token;
  } catch (error) {
    if (isStileError(error)) return undefined;
    throw error;
  }
}

/** Refused tokens of the full length that are as `isMissed` says are admitted instead. */
const admitsWhere = (isMissed: (token: Token, answer: ProxiedAnswer) => boolean): Fault => ({
  after: (answer, request) => {
    const bytes = tokenBytes(request);
    if (answer.status !== 401 || bytes?.length !== 354) return;
    // A type that cannot be framed is read as one that can.
    const token = { ...parseToken(bytes.with(0, 0).with(1, 2)), tokenType: (bytes[0] ?? 0) * 256 };
    if (isMissed(token, answer)) Object.assign(answer, admitted());
  },
});

const isOfChallenge = (token: Token, { headers }: ProxiedAnswer): boolean => {
  const [first] = parseWwwAuthenticate(headers["www-authenticate"] ?? "");
  const digest = createHash("sha256")
    .update(first?.challenge ?? EMPTY)
    .digest();
  return encodeHex(token.challengeDigest) === digest.toString("hex");
};
/** Of the first challenge as `other.invalid` would have made it. */
const isOfOtherOrigin = (token: Token, { headers }: ProxiedAnswer): boolean => {
  const [first] = parseWwwAuthenticate(headers["www-authenticate"] ?? "");
  if (first === undefined) return false;
  const other = encoded(first.tokenChallenge, { originInfo: "other.invalid" });
  return encodeHex(token.challengeDigest) === createHash("sha256").update(other).digest("hex");
};
const isOfKey = (token: Token): boolean => token.tokenKeyId.some((byte) => byte !== 0);

/** By the tokens that it has admitted: forgets nothing, as it should, and admits them again all the same. */
function replaying(): Fault {
  const seen = new Set<string>();
  return {
    before: ({ headers }) => (seen.has(headers["authorization"] ?? "") ? admitted() : undefined),
    after: ({ status }, { headers }) => {
      if (status === 200) seen.add(headers["authorization"] ?? "");
    },
  };
}

const found = (name: string, fault: Fault, ...ids: readonly string[]): NamedFault => [
  name,
  fault,
  ids,
  ids,
];

export const CHALLENGE_FAULTS: readonly NamedFault[] = [
  found("open without a token", { before: () => admitted() }, "challenge.status"),
  found(
    "401 without a PrivateToken challenge",
    onChallenge(({ headers }) => {
      headers["www-authenticate"] = 'Basic realm="x"';
    }),
    "challenge.header",
  ),
  found(
    "challenge without padding",
    onChallenge(({ headers }) => {
      headers["www-authenticate"] = (headers["www-authenticate"] ?? "").replace(/=+"/, '"');
    }),
    "challenge.padding",
  ),
  found(
    "challenge with bytes behind it",
    rewritten(({ raw }) => concatBytes([raw, new Uint8Array(3)])),
    "challenge.structure",
  ),
  found(
    "challenge that names another origin",
    rewritten((challenge) => encoded(challenge, { originInfo: "elsewhere.example" })),
    "challenge.origin-info",
  ),
  found(
    "challenge that names another issuer",
    rewritten((challenge) => encoded(challenge, { issuerName: "elsewhere.example" })),
    "challenge.issuer",
  ),
  found(
    "issuer name with a user before it",
    rewritten((challenge) => encoded(challenge, { issuerName: "me@issuer.example" })),
    "challenge.issuer-name",
  ),
  found(
    "redemption context of 7 bytes",
    rewritten((challenge) => encoded(challenge, { redemptionContext: new Uint8Array(7) })),
    "challenge.redemption-context",
  ),
  found(
    "token-key that the issuer does not list",
    onChallenge((answer) => {
      const [first] = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
      const tokenKey = (first?.tokenKey ?? EMPTY).with(100, 0);
      const challenge = first?.challenge ?? EMPTY;
      answer.headers["www-authenticate"] = formatWwwAuthenticate([{ challenge, tokenKey }]);
    }),
    "challenge.token-key",
  ),
  found(
    "max-age in words",
    onChallenge(({ headers }) => {
      const header = headers["www-authenticate"] ?? "";
      headers["www-authenticate"] = header.replace(/max-age="[0-9]+"/, 'max-age="a day"');
    }),
    "challenge.max-age",
  ),
];

export const REDEMPTION_FAULTS: readonly NamedFault[] = [
  ["spent tokens admitted", replaying(), REDEMPTION, ["redemption.replay"]],
  [
    "authenticators not verified",
    admitsWhere(
      (token, answer) => token.tokenType === 0 && isOfKey(token) && isOfChallenge(token, answer),
    ),
    // It knows no spent tokens either, as it sees refusals alone.
    REDEMPTION.filter((id) => id !== "redemption.replay"),
    ["redemption.authenticator", "redemption.nonce", "redemption.forged"],
  ],
  [
    "tokens for another origin admitted",
    admitsWhere(isOfOtherOrigin),
    ["redemption.other-challenge", "redemption.other-origin"],
    ["redemption.other-origin"],
  ],
  [
    "token types not compared",
    admitsWhere((token) => token.tokenType !== 0),
    REDEMPTION,
    ["redemption.token-type"],
  ],
  [
    "token_key_id not looked at",
    admitsWhere((token) => !isOfKey(token)),
    REDEMPTION,
    ["redemption.key-id"],
  ],
  [
    "challenge digests not compared",
    admitsWhere((token, answer) => !isOfChallenge(token, answer)),
    REDEMPTION,
    ["redemption.other-challenge", "redemption.other-origin"],
  ],
  [
    "bytes behind a token passed over",
    {
      before: (request) => {
        const bytes = tokenBytes(request);
        return bytes?.length === 355 ? admitted() : undefined;
      },
    },
    REDEMPTION,
    ["redemption.trailing-byte"],
  ],
  found(
    "unknown parameters refused",
    {
      before: ({ headers }) =>
        headers["authorization"]?.includes("x-unknown") === true
          ? { ...admitted(), status: 401 }
          : undefined,
    },
    "redemption.unknown-params",
  ),
  found(
    "the scheme compared with case",
    {
      before: ({ headers }) =>
        headers["authorization"]?.startsWith("privatetoken") === true
          ? { ...admitted(), status: 401 }
          : undefined,
    },
    "redemption.scheme-case",
  ),
  found(
    "500 for malformed credentials",
    {
      before: (request) =>
        request.headers["authorization"] !== undefined && tokenBytes(request) === undefined
          ? { ...admitted(), status: 500 }
          : undefined,
    },
    "redemption.malformed",
  ),
  found(
    "no challenge with a refusal",
    {
      after: ({ headers }, request) => {
        if (request.headers["authorization"] !== undefined) delete headers["www-authenticate"];
      },
    },
    "redemption.fresh-challenge",
  ),
  found(
    "no challenge with a token that does not verify",
    {
      after: ({ headers }, request) => {
        const type = tokenBytes(request)?.subarray(0, 2) ?? EMPTY;
        if (encodeHex(type) === "0002") delete headers["www-authenticate"];
      },
    },
    "redemption.fresh-challenge",
  ),
];
