/** Checks of an origin's challenge, RFC 9577 §2.1. */
import { encodeHex } from "../../wire/index.ts";
import {
  challengeItems,
  challengesOf,
  firstOriginAnswer,
  originOf,
  paramOf,
  privateTokenItems,
} from "./challenge-view.ts";
import { directoryOf, issuerOf } from "./directory-view.ts";
import { normalHost } from "../edge/host.ts";
import { isOriginInfo, isServerName } from "../../tokens/index.ts";
import { type Check, expectThat, quoted, skip } from "./model.ts";

const CHALLENGE_SECTION = "RFC 9577 §2.1.1";
const HEADER_SECTION = "RFC 9577 §2.1.2";
const PADDED = /^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$/;

const headerChecks: readonly Check[] = [
  {
    id: "challenge.status",
    section: "RFC 9577 §2.1, RFC 9110 §11.3",
    level: "MUST",
    title: "A request without a token is answered 401",
    run: async (context) => {
      const { status } = await firstOriginAnswer(context);
      expectThat(status === 401, `expected status 401, got ${status}`);
    },
  },
  {
    id: "challenge.header",
    section: HEADER_SECTION,
    level: "MUST",
    title: "WWW-Authenticate holds a PrivateToken challenge",
    run: async (context) => {
      const answer = await firstOriginAnswer(context);
      if (answer.status !== 401) skip(`the origin answered ${answer.status}`);
      expectThat(privateTokenItems(answer).length > 0, "no challenge of the scheme PrivateToken");
    },
  },
  {
    id: "challenge.padding",
    section: HEADER_SECTION,
    level: "MUST",
    title: "challenge and token-key are base64url with padding",
    run: async (context) => {
      for (const item of await challengeItems(context)) {
        const challenge = paramOf(item, "challenge") ?? "";
        expectThat(challenge !== "" && PADDED.test(challenge), "challenge: expected padding");
        const tokenKey = paramOf(item, "token-key") ?? "";
        expectThat(PADDED.test(tokenKey), "token-key: expected padding");
      }
    },
  },
  {
    id: "challenge.max-age",
    section: HEADER_SECTION,
    level: "MUST",
    title: "max-age, where it is given, is whole seconds",
    run: async (context) => {
      const ages = (await challengeItems(context)).flatMap(
        (item) => paramOf(item, "max-age") ?? [],
      );
      if (ages.length === 0) skip("no max-age is given");
      for (const age of ages)
        expectThat(/^[0-9]+$/.test(age), `expected seconds, got ${quoted(age)}`);
    },
  },
];

const structureChecks: readonly Check[] = [
  {
    id: "challenge.structure",
    section: CHALLENGE_SECTION,
    level: "MUST",
    title: "The challenge is a TokenChallenge to its last byte",
    run: async (context) => {
      expectThat((await challengesOf(context)).length > 0, "expected a challenge");
    },
  },
  {
    id: "challenge.issuer-name",
    section: CHALLENGE_SECTION,
    level: "MUST",
    title: "issuer_name is a server name",
    run: async (context) => {
      for (const { issuerName } of await challengesOf(context)) {
        expectThat(isServerName(issuerName), `expected host[:port], got ${quoted(issuerName)}`);
      }
    },
  },
  {
    id: "challenge.issuer",
    section: CHALLENGE_SECTION,
    level: "MUST",
    title: "issuer_name leads to the issuer that was given",
    run: async (context) => {
      const host = normalHost(issuerOf(context).host);
      const names = (await challengesOf(context)).map(({ issuerName }) => normalHost(issuerName));
      expectThat(names.includes(host), `expected ${quoted(host)}, got ${quoted(names[0])}`);
    },
  },
  {
    id: "challenge.origin-info",
    section: CHALLENGE_SECTION,
    level: "MUST",
    title: "origin_info is empty, or server names with the origin's own among them",
    run: async (context) => {
      const { host, hostname } = originOf(context);
      const own = [host, hostname].map((name) => normalHost(name));
      for (const { originInfo } of await challengesOf(context)) {
        expectThat(isOriginInfo(originInfo), `expected server names, got ${quoted(originInfo)}`);
        const names = originInfo.split(",").map((name) => normalHost(name));
        const isOwn = originInfo === "" || names.some((name) => own.includes(name));
        expectThat(isOwn, `expected ${quoted(host)} among ${quoted(originInfo)}`);
      }
    },
  },
  {
    id: "challenge.redemption-context",
    section: CHALLENGE_SECTION,
    level: "MUST",
    title: "redemption_context is 0 or 32 bytes",
    run: async (context) => {
      for (const { redemptionContext } of await challengesOf(context)) {
        const { length } = redemptionContext;
        expectThat(length === 0 || length === 32, `expected 0 or 32 bytes, got ${length}`);
      }
    },
  },
  {
    id: "challenge.token-key",
    section: HEADER_SECTION,
    level: "MUST",
    title: "token-key, where it is given, is a key of the type in the issuer's directory",
    run: async (context) => {
      const host = normalHost(issuerOf(context).host);
      const given = (await challengesOf(context)).filter(
        ({ issuerName, tokenKey }) => tokenKey !== undefined && normalHost(issuerName) === host,
      );
      if (given.length === 0) skip("no token-key of this issuer is given");
      const { keys } = await directoryOf(context);
      const listed = new Set(keys.map((key) => `${key.tokenType}/${encodeHex(key.tokenKey)}`));
      for (const { tokenKey = new Uint8Array(0), tokenType } of given) {
        const isListed = listed.has(`${tokenType}/${encodeHex(tokenKey)}`);
        expectThat(isListed, `the token-key of type ${tokenType} is not in the directory`);
      }
    },
  },
];

export const CHALLENGE_CHECKS: readonly Check[] = [...headerChecks, ...structureChecks];
