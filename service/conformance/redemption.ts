/**
 * Checks of redemption, RFC 9577 §2.2. Every check has tokens of its own. That something is refused is
 * a finding only where a good token is admitted, so a refusal is tried after that has been seen.
 */
import { createHash } from "node:crypto";
import {
  encodeTokenChallenge,
  encodeToken,
  formatAuthorization,
  GREASED_TOKEN_TYPES,
  parseTokenChallenge,
  type TokenChallengeFields,
  tokenTypeEntry,
} from "../../tokens/index.ts";
import { concatBytes, isStileError } from "../../wire/index.ts";
import type { ExchangeAnswer } from "../agent/exchange.ts";
import { askForTokens, blindToken, needIssuance, tokensOf } from "./ask-tokens.ts";
import {
  askOrigin,
  challengeItems,
  challengesOf,
  type ChallengeView,
  originOf,
  privateTokenItems,
  viewOf,
} from "./challenge-view.ts";
import { directoryOf, issuerOf, usableKey } from "./directory-view.ts";
import { normalHost } from "../edge/host.ts";
import { type Check, type Context, expectThat, fail, skip, Verdict } from "./model.ts";

const SECTION = "RFC 9577 §2.2";
/** Types that this suite has a client for, preferred first. */
const CLIENT_TYPES: readonly number[] = [2, 1];
const REFUSALS: readonly number[] = [400, 401, 403];
/** Reserved by RFC 2606 §2: no origin under test has it. */
const OTHER_ORIGIN = "other.invalid";
/** Offsets in a Token (RFC 9577 §2.2): token_type, nonce, challenge_digest, token_key_id, authenticator. */
const KEY_ID_AT = 2 + 32 + 32;
const AUTHENTICATOR_AT = KEY_ID_AT + 32;

const admissionChecks: readonly Check[] = [
  {
    id: "redemption.valid",
    section: SECTION,
    level: "MUST",
    title: "A valid token is admitted",
    run: async (context) => {
      const { answer } = await firstRedemption(context);
      expectThat(isAdmitted(answer), `the origin answered ${answer.status} to a valid token`);
    },
  },
  {
    id: "redemption.unknown-params",
    section: "RFC 9577 §2.2.2",
    level: "MUST",
    title: "Unknown parameters beside the token are ignored",
    run: async (context) => {
      const params = `x-unknown="1", y-unknown=2`;
      const credentials = await goodCredentials(context);
      const answer = await askOrigin(context, `${credentials}, ${params}`);
      expectThat(isAdmitted(answer), `the origin answered ${answer.status}`);
    },
  },
  {
    id: "redemption.scheme-case",
    section: "RFC 9110 §11.1",
    level: "MUST",
    title: "The scheme's name is read without case",
    run: async (context) => {
      const credentials = await goodCredentials(context);
      const spelt = credentials.replace(/^PrivateToken/, "privatetoken");
      const answer = await askOrigin(context, spelt);
      expectThat(isAdmitted(answer), `the origin answered ${answer.status}`);
    },
  },
];

const refusalChecks: readonly Check[] = [
  {
    id: "redemption.replay",
    section: "RFC 9577 §2.1.1.2, §2.2.2",
    level: "SHOULD",
    title: "A token is admitted once",
    run: async (context) => {
      await needAdmission(context);
      const { authorization } = await firstRedemption(context);
      refused(await askOrigin(context, authorization));
    },
  },
  ...tamperedChecks(),
  {
    id: "redemption.other-challenge",
    section: SECTION,
    level: "MUST",
    title: "A well-signed token for another challenge is refused",
    run: async (context) => {
      await needAdmission(context);
      const redemptionContext = new Uint8Array(32).fill(0x5a);
      const token = await tokenFor(context, (raw) => changed(raw, { redemptionContext }));
      refused(await askOrigin(context, formatAuthorization(token)));
    },
  },
  {
    id: "redemption.other-origin",
    section: "RFC 9577 §2.1.1, §2.2",
    level: "MUST",
    title: "A well-signed token for another origin is refused",
    run: async (context) => {
      await needAdmission(context);
      const token = await tokenFor(context, (raw) => changed(raw, { originInfo: OTHER_ORIGIN }));
      refused(await askOrigin(context, formatAuthorization(token)));
    },
  },
  {
    id: "redemption.forged",
    section: "RFC 9578 §5.4, §6.4",
    level: "MUST",
    title: "A token of the right challenge and key whose authenticator is random is refused",
    run: async (context) => refused(await askOrigin(context, await forged(context))),
  },
  {
    id: "redemption.malformed",
    section: "RFC 9110 §15.5",
    level: "MUST",
    title: "Malformed credentials are refused, and never the server's error",
    run: async (context) => {
      await challengeItems(context);
      for (const credentials of malformed(context)) {
        const { status } = await askOrigin(context, credentials);
        expectThat(status === 400 || status === 401, `expected 401 or 400, got ${status}`);
      }
    },
  },
  {
    id: "redemption.fresh-challenge",
    section: "RFC 9110 §15.5.2",
    level: "MUST",
    title: "A refused credential is answered with a challenge again",
    run: async (context) => {
      await challengeItems(context);
      const answers = [];
      // An origin may answer what it cannot read in one place, and what does not verify in another.
      const forgery = await forged(context).then((one) => [one], skippedAsNone);
      for (const credentials of [...malformed(context), ...forgery]) {
        answers.push(await askOrigin(context, credentials));
      }
      const challenges = answers.filter(({ status }) => status === 401);
      if (challenges.length === 0) skip("no malformed credential was answered 401");
      for (const answer of challenges) {
        expectThat(privateTokenItems(answer).length > 0, "a 401 without a PrivateToken challenge");
      }
    },
  },
];

/** A token with one part changed. */
function tamperedChecks(): readonly Check[] {
  const check = (
    name: string,
    title: string,
    change: (token: Uint8Array) => Uint8Array,
    section = SECTION,
  ): Check => ({
    id: `redemption.${name}`,
    section,
    level: "MUST",
    title,
    run: async (context) => {
      await needAdmission(context);
      const token = change(await tokenFor(context));
      refused(await askOrigin(context, formatAuthorization(token)));
    },
  });
  const [, greased = 0] = GREASED_TOKEN_TYPES;
  const flip = (at: number) => (token: Uint8Array) => token.with(at, (token[at] ?? 0) ^ 1);
  return [
    check(
      "authenticator",
      "A token with one bit of its authenticator changed is refused",
      (token) => flip(token.length - 1)(token),
      "RFC 9578 §5.4, §6.4",
    ),
    check("nonce", "A token with another nonce is refused", flip(2), "RFC 9578 §5.4, §6.4"),
    check("token-type", "A token of a type that was not asked for is refused", (token) =>
      token.with(0, greased >> 8).with(1, greased & 0xff),
    ),
    check("key-id", "A token whose token_key_id is of no key is refused", (token) =>
      Uint8Array.from(token).fill(0, KEY_ID_AT, AUTHENTICATOR_AT),
    ),
    check("trailing-byte", "A token with a byte too many is refused", (token) =>
      concatBytes([token, new Uint8Array(1)]),
    ),
  ];
}

export const REDEMPTION_CHECKS: readonly Check[] = [...admissionChecks, ...refusalChecks];

/** No token among them. */
function malformed({ random }: Context): readonly string[] {
  return [
    'PrivateToken token=""',
    'PrivateToken token="!!!"',
    'PrivateToken token="AAI="',
    "PrivateToken",
    'PrivateToken nothing="AAI="',
    formatAuthorization(random(2 + 32 * 3 + 256)),
  ];
}

/**
 * Credentials with everything of a token that is public, which needs no issuer.
 * @throws Verdict skipped where the challenge leaves the key out
 */
async function forged(context: Context): Promise<string> {
  const views = await challengesOf(context);
  const view = views.find(({ tokenKey }) => tokenKey !== undefined);
  if (view?.tokenKey === undefined) return skip("no challenge has a token-key");
  const { raw, tokenKey, tokenType } = view;
  const token = encodeToken({
    tokenType,
    nonce: context.random(32),
    challengeDigest: sha256(raw),
    tokenKeyId: sha256(tokenKey),
    authenticator: context.random(tokenTypeEntry(tokenType)?.Nk ?? 0),
  });
  return formatAuthorization(token);
}

function skippedAsNone(error: unknown): readonly string[] {
  if (error instanceof Verdict && error.outcome === "skipped") return [];
  throw error;
}

function sha256(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(bytes).digest());
}

/** By any of {@link REFUSALS}: which one, RFC 9577 leaves open. @throws Verdict */
function refused({ status }: ExchangeAnswer): void {
  if (status === 429) skip("the origin asks to come later");
  expectThat(REFUSALS.includes(status), `expected 401, got ${status}`);
}

/** What is behind the origin may answer as it likes, but as a refusal. */
function isAdmitted({ status }: ExchangeAnswer): boolean {
  return !REFUSALS.includes(status) && status !== 429 && status < 500;
}

interface Redemption {
  readonly authorization: string;
  readonly answer: ExchangeAnswer;
}

function firstRedemption(context: Context): Promise<Redemption> {
  return context.once("redemption", async () => {
    const authorization = formatAuthorization(await tokenFor(context));
    return { authorization, answer: await askOrigin(context, authorization) };
  });
}

async function goodCredentials(context: Context): Promise<string> {
  await needAdmission(context);
  return formatAuthorization(await tokenFor(context));
}

/** @throws Verdict skipped where the origin has not admitted a good token */
async function needAdmission(context: Context): Promise<void> {
  const { answer } = await firstRedemption(context);
  if (!isAdmitted(answer)) skip("a valid token is not admitted either");
}

/** A token for a challenge that the origin makes now. @throws Verdict */
async function tokenFor(
  context: Context,
  change: (challenge: Uint8Array) => Uint8Array = (challenge) => challenge,
): Promise<Uint8Array> {
  originOf(context);
  issuerOf(context);
  await challengesOf(context);
  await needIssuance(context);
  const { raw, tokenKey, tokenType } = await answerable(context);
  const listed = usableKey(await directoryOf(context), tokenType, context.clock())?.tokenKey;
  const key = tokenKey ?? listed ?? skip(`no key of type ${tokenType} is listed`);
  const request = await blindToken(change(raw), tokenType, key);
  const [token] = await tokensOf(request, await askForTokens(context, request)).catch(asSkipped);
  return token ?? skip("the issuer gave no token");
}

/** That issuance fails is a finding of its own check. */
function asSkipped(error: unknown): never {
  if (error instanceof Verdict) return skip(`no token to redeem: ${error.message}`);
  throw error;
}

/** Of the challenges of this moment, one that there is a client for. */
async function answerable(context: Context): Promise<ChallengeView> {
  const host = normalHost(issuerOf(context).host);
  const views = privateTokenItems(await askOrigin(context))
    .flatMap((item) => viewOf(item) ?? [])
    .filter(({ issuerName }) => normalHost(issuerName) === host);
  for (const type of CLIENT_TYPES) {
    const view = views.find(({ tokenType }) => tokenType === type);
    if (view !== undefined) return view;
  }
  return skip("the origin asks for no token that this suite can get");
}

/** The same challenge but for these fields: one that this origin has not made. @throws Verdict */
function changed(challenge: Uint8Array, fields: Partial<TokenChallengeFields>): Uint8Array {
  try {
    return encodeTokenChallenge({ ...parseTokenChallenge(challenge), ...fields });
  } catch (error) {
    if (isStileError(error)) return fail(error.message);
    throw error;
  }
}
