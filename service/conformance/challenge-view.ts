/** Reading an origin's challenges (RFC 9577 §2.1) so leniently that each fault can be named by its own check. */
import {
  type AuthItem,
  MAX_AUTH_HEADER_LENGTH,
  parseAuthItems,
  tokenTypeEntry,
} from "../../tokens/index.ts";
import { decodeBase64Url, isStileError, Reader } from "../../wire/index.ts";
import type { ExchangeAnswer } from "../agent/exchange.ts";
import { type Context, expectThat, fail, skip } from "./model.ts";

/** A PrivateToken challenge of a type that is known here. Hostile. */
export interface ChallengeView {
  readonly raw: Uint8Array;
  readonly tokenType: number;
  readonly issuerName: string;
  readonly redemptionContext: Uint8Array;
  readonly originInfo: string;
  /** Of the parameter `token-key`, decoded. */
  readonly tokenKey: Uint8Array | undefined;
}

/** @throws Verdict where no origin was given */
export function originOf({ origin }: Context): URL {
  return origin ?? skip("no origin was given");
}

export function askOrigin(context: Context, authorization?: string): Promise<ExchangeAnswer> {
  const headers = { accept: "*/*", ...(authorization === undefined ? {} : { authorization }) };
  return context.http.ask(originOf(context), { headers });
}

/** The answer to the first request without a token, whatever it is. */
export function firstOriginAnswer(context: Context): Promise<ExchangeAnswer> {
  return context.once("origin-answer", () => askOrigin(context));
}

/** Node joins several header lines with a comma, as RFC 9110 §5.3 allows. @throws Verdict */
export function privateTokenItems({ headers }: ExchangeAnswer): readonly AuthItem[] {
  const header = headers["www-authenticate"];
  expectThat(header !== undefined, "no WWW-Authenticate");
  const items = header.length <= MAX_AUTH_HEADER_LENGTH ? parseAuthItems(header) : undefined;
  expectThat(items !== undefined, "WWW-Authenticate is no list of challenges");
  return items.filter(({ scheme }) => scheme.toLowerCase() === "privatetoken");
}

/** Of the first answer. @throws Verdict skipped where there is none to look at */
export async function challengeItems(context: Context): Promise<readonly AuthItem[]> {
  const answer = await firstOriginAnswer(context);
  if (answer.status !== 401) skip(`the origin answered ${answer.status} without a challenge`);
  const items = privateTokenItems(answer);
  return items.length > 0 ? items : skip("no PrivateToken challenge");
}

/** Those of known types, framed. @throws Verdict where one cannot be framed */
export async function challengesOf(context: Context): Promise<readonly ChallengeView[]> {
  const views = (await challengeItems(context)).flatMap((item) => viewOf(item) ?? []);
  return views.length > 0 ? views : skip("no challenge of types 0x0001, 0x0002, 0x0005");
}

export function paramOf({ params }: AuthItem, name: string): string | undefined {
  return params.find(([one]) => one === name)?.[1];
}

/** Undefined for a token type that is not known here: it may have any structure (RFC 9577 §2.1.3). */
export function viewOf(item: AuthItem): ChallengeView | undefined {
  try {
    const raw = decodeBase64Url(paramOf(item, "challenge") ?? "", "challenge");
    const reader = new Reader(raw, "TokenChallenge");
    const tokenType = reader.u16("token_type");
    if (tokenTypeEntry(tokenType) === undefined) return undefined;
    const issuerName = reader.vec16("issuer_name", 1, 0xffff);
    const redemptionContext = reader.vec8("redemption_context", 0, 0xff);
    const originInfo = reader.vec16("origin_info", 0, 0xffff);
    reader.end();
    const key = paramOf(item, "token-key");
    return {
      raw,
      tokenType,
      issuerName: latin1(issuerName),
      redemptionContext,
      originInfo: latin1(originInfo),
      tokenKey: key === undefined ? undefined : decodeBase64Url(key, "token-key"),
    };
  } catch (error) {
    if (isStileError(error)) return fail(error.message);
    throw error;
  }
}

/** A byte a character: what is not ASCII stays to be seen. */
function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}
