/** Reading the issuer's directory (RFC 9578 §4) once for all checks, as leniently as it can be read. */
import { createHash } from "node:crypto";
import {
  ISSUER_DIRECTORY_PATH,
  MEDIA_TYPE_ISSUER_DIRECTORY,
  parseBlindRsaTokenKey,
  TOKEN_TYPE_BLIND_RSA,
} from "../../tokens/index.ts";
import { createVoprfEngine, isVoprfTokenType } from "../../tokens/voprf/index.ts";
import { decodeBase64Url, isStileError } from "../../wire/index.ts";
import type { ExchangeAnswer } from "../agent/exchange.ts";
import type { AskedRequest } from "./http.ts";
import { type Context, type DirectoryView, type ListedKey, skip } from "./model.ts";

/** @throws Verdict where no issuer was given */
export function issuerOf({ issuer }: Context): URL {
  return issuer ?? skip("no issuer was given");
}

export function directoryUrl(context: Context): URL {
  return new URL(ISSUER_DIRECTORY_PATH, issuerOf(context));
}

/** @throws Verdict, `ATTEST_AGENT_REFUSED` */
export async function askDirectory(
  context: Context,
  { headers, method }: AskedRequest = {},
): Promise<ExchangeAnswer> {
  return context.http.ask(directoryUrl(context), {
    method: method ?? "GET",
    headers: { accept: MEDIA_TYPE_ISSUER_DIRECTORY, ...headers },
  });
}

/** The answer to the first GET, whatever it is. */
export function firstDirectoryAnswer(context: Context): Promise<ExchangeAnswer> {
  return context.once("directory-answer", () => askDirectory(context));
}

/** @throws Verdict where the directory is no JSON object with status 200 */
export async function directoryOf(context: Context): Promise<DirectoryView> {
  const answer = await firstDirectoryAnswer(context);
  if (answer.status !== 200) skip(`the directory was answered with status ${answer.status}`);
  const members = jsonObject(answer.body) ?? skip("the directory is no JSON object");
  const listed = members["token-keys"];
  const keys = Array.isArray(listed) ? listed.flatMap((one: unknown) => readKey(one) ?? []) : [];
  return { answer, members, keys };
}

/** The members of a JSON object; undefined for anything else. */
export function jsonObject(body: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(body);
    return objectOf(JSON.parse(text));
  } catch {
    return undefined;
  }
}

export function objectOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return { ...value };
}

function readKey(value: unknown): ListedKey | undefined {
  const key = objectOf(value);
  const tokenType = key?.["token-type"];
  const text = key?.["token-key"];
  if (typeof tokenType !== "number" || typeof text !== "string") return undefined;
  try {
    const tokenKey = decodeBase64Url(text);
    const tokenKeyId = Uint8Array.from(createHash("sha256").update(tokenKey).digest());
    return { tokenType, text, tokenKey, tokenKeyId, notBefore: key?.["not-before"] };
  } catch (error) {
    if (isStileError(error)) return undefined;
    throw error;
  }
}

/** Why a key is none of its type; undefined where it is one, or where the type is not known here. */
export function keyFault({ tokenKey, tokenType }: ListedKey): string | undefined {
  if (isVoprfTokenType(tokenType)) {
    const isElement = createVoprfEngine(tokenType, "any").isElement(tokenKey);
    return isElement ? undefined : "expected the encoding of an element of its group";
  }
  if (tokenType !== TOKEN_TYPE_BLIND_RSA) return undefined;
  try {
    parseBlindRsaTokenKey(tokenKey);
    return undefined;
  } catch (error) {
    if (isStileError(error)) return error.message;
    throw error;
  }
}

export function isKnownType(tokenType: number): boolean {
  return tokenType === TOKEN_TYPE_BLIND_RSA || isVoprfTokenType(tokenType);
}

/** What a client takes: the first key of the type that may be used by now (RFC 9578 §4). */
export function usableKey(
  { keys }: DirectoryView,
  tokenType: number,
  nowMs: number,
): ListedKey | undefined {
  return keys.find(
    (key) =>
      key.tokenType === tokenType &&
      keyFault(key) === undefined &&
      (key.notBefore === undefined || Number(key.notBefore) * 1_000 <= nowMs),
  );
}
