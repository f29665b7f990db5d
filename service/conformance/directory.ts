/** Checks of the issuer's directory, RFC 9578 §4, and of what HTTP asks of a resource that is cached. */
import { encodeHex } from "../../wire/index.ts";
import { MEDIA_TYPE_ISSUER_DIRECTORY } from "../../tokens/index.ts";
import type { ExchangeAnswer } from "../agent/exchange.ts";
import {
  askDirectory,
  directoryOf,
  directoryUrl,
  firstDirectoryAnswer,
  isKnownType,
  issuerOf,
  jsonObject,
  keyFault,
  objectOf,
} from "./directory-view.ts";
import { mediaTypeOf } from "./http.ts";
import { type Check, type Context, expectThat, quoted, skip } from "./model.ts";

const SECTION = "RFC 9578 §4";
const PADDED = /^[A-Za-z0-9_-]*={0,2}$/;
/** Fetches that have to give the same as the first, by clients that have nothing in common. */
const OTHER_CLIENTS: readonly Readonly<Record<string, string>>[] = [
  { "user-agent": "one/1.0", "accept-language": "de" },
  { "user-agent": "another/2.0", "accept-language": "ja", cookie: "visitor=1", accept: "*/*" },
];
/** Headers of which RFC 9110 §9.3.2 expects the same for HEAD. */
const REPRESENTATION_HEADERS = ["content-type", "etag", "cache-control"] as const;

const directoryFormChecks: readonly Check[] = [
  {
    id: "directory.status",
    section: SECTION,
    level: "MUST",
    title: "The directory is at its well-known path",
    run: async (context) => {
      const { status } = await firstDirectoryAnswer(context);
      expectThat(status === 200, `expected status 200, got ${status}`);
    },
  },
  {
    id: "directory.media-type",
    section: SECTION,
    level: "MUST",
    title: "The directory has its media type",
    run: async (context) => {
      const mediaType = mediaTypeOf((await directoryOf(context)).answer);
      const expected = MEDIA_TYPE_ISSUER_DIRECTORY;
      expectThat(mediaType === expected, `expected ${expected}, got ${quoted(mediaType)}`);
    },
  },
  {
    id: "directory.json",
    section: SECTION,
    level: "MUST",
    title: "The directory is a JSON object with issuer-request-uri and one or more token-keys",
    run: async (context) => {
      const answer = await firstDirectoryAnswer(context);
      if (answer.status !== 200) skip(`the directory was answered with status ${answer.status}`);
      const members = jsonObject(answer.body);
      expectThat(members !== undefined, "expected a JSON object");
      expectThat(typeof members["issuer-request-uri"] === "string", "no issuer-request-uri");
      const keys: unknown = members["token-keys"];
      expectThat(Array.isArray(keys) && keys.length > 0, "token-keys: expected one or more");
    },
  },
  {
    id: "directory.request-uri",
    section: SECTION,
    level: "MUST",
    title: "issuer-request-uri resolves against the directory's own URL",
    run: async (context) => {
      const uri = (await directoryOf(context)).members["issuer-request-uri"];
      const isUri = typeof uri === "string" && URL.canParse(uri, directoryUrl(context));
      expectThat(isUri, "expected an absolute or relative URI");
      const { protocol } = new URL(uri, directoryUrl(context));
      expectThat(protocol === "https:", `expected an https URI, got ${quoted(protocol)}`);
    },
  },
  {
    id: "directory.same-origin",
    section: SECTION,
    level: "SHOULD",
    title: "Directory and request endpoint are of one origin",
    run: async (context) => {
      const uri = (await directoryOf(context)).members["issuer-request-uri"];
      if (typeof uri !== "string" || !URL.canParse(uri, directoryUrl(context))) {
        skip("no issuer-request-uri");
      }
      const { origin } = new URL(uri, directoryUrl(context));
      expectThat(origin === issuerOf(context).origin, `the endpoint is at ${quoted(origin)}`);
    },
  },
];

const directoryKeyChecks: readonly Check[] = [
  {
    id: "directory.token-type",
    section: SECTION,
    level: "MUST",
    title: "Every token-type is a 16-bit integer",
    run: async (context) => {
      for (const key of await listedMembers(context)) {
        const type = key["token-type"];
        const isType = Number.isInteger(type) && Number(type) >= 0 && Number(type) <= 0xffff;
        expectThat(isType, "expected an integer from 0 to 65535");
      }
    },
  },
  {
    id: "directory.padded-keys",
    section: SECTION,
    level: "MUST",
    title: "Every token-key is base64url with padding",
    run: async (context) => {
      for (const [i, key] of (await listedMembers(context)).entries()) {
        const text = key["token-key"];
        const isPadded = typeof text === "string" && text.length % 4 === 0 && PADDED.test(text);
        expectThat(isPadded, `token-keys[${i}]: expected base64url with its padding`);
      }
    },
  },
  {
    id: "directory.not-before",
    section: SECTION,
    level: "MUST",
    title: "Every not-before is Unix seconds",
    run: async (context) => {
      for (const [i, key] of (await listedMembers(context)).entries()) {
        const value = key["not-before"];
        const isSeconds = Number.isSafeInteger(value) && Number(value) >= 0;
        expectThat(value === undefined || isSeconds, `token-keys[${i}]: expected whole seconds`);
      }
    },
  },
  {
    id: "directory.usable-key",
    section: SECTION,
    level: "SHOULD",
    title: "A key may be used now: without not-before, or with one in the past",
    run: async (context) => {
      const { keys } = await directoryOf(context);
      const now = context.clock();
      const isNow = (value: unknown): boolean =>
        value === undefined || Number(value) * 1_000 <= now;
      expectThat(
        keys.some(({ notBefore }) => isNow(notBefore)),
        "every key is for later",
      );
    },
  },
  {
    id: "directory.keys-parse",
    section: "RFC 9578 §5.5, §6.5",
    level: "MUST",
    title: "Every key of a known type is one: SPKI with id-RSASSA-PSS, or an element of its group",
    run: async (context) => {
      const keys = (await directoryOf(context)).keys.filter((key) => isKnownType(key.tokenType));
      if (keys.length === 0) skip("no key of types 0x0001, 0x0002, 0x0005");
      for (const key of keys) {
        const fault = keyFault(key);
        expectThat(fault === undefined, `a key of type ${key.tokenType}: ${fault ?? ""}`);
      }
    },
  },
  {
    id: "directory.truncated-ids",
    section: "RFC 9578 §5.5, §6.5",
    level: "SHOULD",
    title: "No two keys of a type share the last byte of their token_key_id",
    run: async (context) => {
      const seen = new Set<string>();
      for (const { tokenKeyId, tokenType } of (await directoryOf(context)).keys) {
        const id = `${tokenType}/${encodeHex(tokenKeyId.subarray(-1))}`;
        expectThat(!seen.has(id), `two keys of type ${tokenType} end alike`);
        seen.add(id);
      }
    },
  },
];

const directoryCacheChecks: readonly Check[] = [
  {
    id: "directory.same-bytes",
    section: "RFC 9576 §6.2",
    level: "SHOULD",
    title: "Every client is served the same bytes",
    run: async (context) => {
      const first = Buffer.from((await directoryOf(context)).answer.body);
      for (const headers of OTHER_CLIENTS) {
        const { body } = await askDirectory(context, { headers });
        expectThat(first.equals(body), "two fetches gave two directories");
      }
    },
  },
  {
    id: "directory.cache-control",
    section: SECTION,
    level: "SHOULD",
    title: "Cache directives say how long the directory may be kept",
    run: async (context) => {
      const value = (await directoryOf(context)).answer.headers["cache-control"];
      const isBounded = /\b(?:max-age=[1-9][0-9]*|s-maxage=[1-9][0-9]*)\b/i.test(value ?? "");
      expectThat(isBounded, `expected a max-age, got ${quoted(value)}`);
    },
  },
  {
    id: "directory.etag",
    section: "RFC 9110 §8.8.3",
    level: "SHOULD",
    title: "A strong ETag stays the same while the bytes do",
    run: async (context) => {
      const { answer } = await directoryOf(context);
      const { etag } = answer.headers;
      expectThat(etag !== undefined, "no ETag");
      expectThat(/^"[^"]*"$/.test(etag), `expected a strong ETag, got ${quoted(etag)}`);
      const again = await askDirectory(context);
      if (!Buffer.from(answer.body).equals(again.body)) skip("the bytes changed meanwhile");
      expectThat(again.headers.etag === etag, "two ETags for the same bytes");
    },
  },
  {
    id: "directory.not-modified",
    section: "RFC 9110 §13.1.2",
    level: "SHOULD",
    title: "If-None-Match with the present ETag gives 304, and with another one 200",
    run: async (context) => {
      const { etag } = (await directoryOf(context)).answer.headers;
      if (etag === undefined) skip("no ETag");
      const { body, status } = await askDirectory(context, { headers: { "if-none-match": etag } });
      expectThat(status === 304, `expected 304, got ${status}`);
      expectThat(body.length === 0, "a 304 with a body");
      const other = await askDirectory(context, { headers: { "if-none-match": '"another"' } });
      expectThat(other.status === 200, `for another ETag: expected 200, got ${other.status}`);
    },
  },
  {
    id: "directory.head",
    section: "RFC 9110 §9.3.2",
    level: "SHOULD",
    title: "HEAD is answered with the status and headers of GET",
    run: async (context) => {
      const { answer } = await directoryOf(context);
      const head = await askDirectory(context, { method: "HEAD" });
      expectThat(head.status === 200, `expected 200, got ${head.status}`);
      for (const name of REPRESENTATION_HEADERS) {
        expectThat(head.headers[name] === answer.headers[name], `${name} differs`);
      }
      expectThat(hasLength(head, answer.body.length), "content-length is not that of GET");
    },
  },
];

export const DIRECTORY_CHECKS: readonly Check[] = [
  ...directoryFormChecks,
  ...directoryKeyChecks,
  ...directoryCacheChecks,
];

/** It may be left out (RFC 9110 §8.6), and is another where the GET was compressed. */
function hasLength({ headers }: ExchangeAnswer, length: number): boolean {
  const text = headers["content-length"];
  return text === undefined || Number(text) === length;
}

/** @throws Verdict where token-keys is no list of objects */
async function listedMembers(
  context: Context,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const listed = (await directoryOf(context)).members["token-keys"];
  if (!Array.isArray(listed) || listed.length === 0) skip("no token-keys");
  return listed.map((one: unknown) => {
    const key = objectOf(one);
    expectThat(key !== undefined, "token-keys: expected objects");
    return key;
  });
}
