/**
 * The PrivateToken authentication scheme, RFC 9577 §2.1.2 and §2.2.1: writing and reading
 * `WWW-Authenticate`, reading and writing `Authorization`. We write what the RFC asks for (quoted,
 * padded, one header); we read what deployed clients send, as long as it means one thing only.
 */
import { decodeBase64Url, encodeBase64Url, isStileError, StileError } from "../../wire/index.ts";
import { type ExtensionEntry, parseExtensionSet } from "../structures/extension-set.ts";
import {
  parseTokenChallenge,
  peekTokenType,
  type TokenChallenge,
} from "../structures/token-challenge.ts";
import { hasPublicMetadata, tokenTypeEntry } from "../structures/token-types.ts";
import { type AuthItem, MAX_AUTH_HEADER_LENGTH, parseAuthItems } from "./http-auth.ts";

const SCHEME = "PrivateToken";
/** Ten digits: no honest lifetime is longer, and the number stays exact. */
const DELTA_SECONDS = /^[0-9]{1,10}$/;

/** One challenge of a `WWW-Authenticate` header. */
export interface PrivateTokenChallenge {
  /** The encoded TokenChallenge. */
  readonly challenge: Uint8Array;
  /** The issuer's public key as the directory spells it; may be left out (RFC 9577 §2.1.2). */
  readonly tokenKey?: Uint8Array;
  /** Seconds for which a token of this challenge is accepted. */
  readonly maxAgeSeconds?: number;
}

/** A challenge that was read from a header: hostile until its issuer is known to be trusted. */
export interface ReceivedChallenge extends PrivateTokenChallenge {
  readonly tokenChallenge: TokenChallenge;
  /** Of a type with public metadata: the encoded Extensions that the origin would like to see. */
  readonly extensions?: Uint8Array;
  /** Of such a type: the extensions that the origin asks for. */
  readonly extensionSet?: readonly ExtensionEntry[];
}

/**
 * The value of one `WWW-Authenticate` header; several challenges, preferred first, are joined into it
 * because some clients read one header only.
 */
export function formatWwwAuthenticate(challenges: readonly PrivateTokenChallenge[]): string {
  if (challenges.length === 0) throw new RangeError("expected a challenge");
  return challenges.map(formatChallenge).join(", ");
}

function formatChallenge(item: PrivateTokenChallenge): string {
  const params = [`challenge="${encodeBase64Url(item.challenge, "padded")}"`];
  if (item.tokenKey !== undefined) {
    params.push(`token-key="${encodeBase64Url(item.tokenKey, "padded")}"`);
  }
  if (item.maxAgeSeconds !== undefined) {
    if (!DELTA_SECONDS.test(String(item.maxAgeSeconds))) {
      throw new RangeError("max-age: expected whole seconds");
    }
    params.push(`max-age="${item.maxAgeSeconds}"`);
  }
  return `${SCHEME} ${params.join(", ")}`;
}

/**
 * The PrivateToken challenges of a header whose type can be framed here, in order. Other schemes,
 * unknown or greased token types (RFC 9577 §2.1.3, whatever their structure) and challenges that are
 * malformed or ambiguous in themselves are left out.
 * @param header hostile; several header lines joined by ", "
 * @throws `TOKEN_CHALLENGE_INVALID` when the header is too long or no list of challenges
 */
export function parseWwwAuthenticate(header: string): readonly ReceivedChallenge[] {
  const items = header.length <= MAX_AUTH_HEADER_LENGTH ? parseAuthItems(header) : undefined;
  if (items === undefined) {
    throw new StileError("TOKEN_CHALLENGE_INVALID", "WWW-Authenticate: expected challenges");
  }
  return items.filter(isPrivateToken).flatMap((item) => readChallenge(item) ?? []);
}

function readChallenge(item: AuthItem): ReceivedChallenge | undefined {
  try {
    const challengeText = onlyParam(item, "challenge");
    if (challengeText === undefined) return undefined;
    const challenge = decodeBase64Url(challengeText, "challenge");
    if (tokenTypeEntry(peekTokenType(challenge)) === undefined) return undefined;
    const tokenChallenge = parseTokenChallenge(challenge);
    const keyText = onlyParam(item, "token-key");
    const ageText = onlyParam(item, "max-age");
    if (ageText !== undefined && !DELTA_SECONDS.test(ageText)) return undefined;
    return {
      challenge,
      tokenChallenge,
      ...(keyText === undefined ? {} : { tokenKey: decodeBase64Url(keyText, "token-key") }),
      ...(ageText === undefined ? {} : { maxAgeSeconds: Number(ageText) }),
      ...(hasPublicMetadata(tokenChallenge.tokenType) ? readWishes(item) : {}),
    };
  } catch (error) {
    if (isStileError(error)) return undefined;
    throw error;
  }
}

/** draft-ietf-privacypass-auth-scheme-extensions; for another type they are unknown parameters. @throws `WIRE_*` */
function readWishes(item: AuthItem): Pick<ReceivedChallenge, "extensions" | "extensionSet"> {
  const extensions = onlyParam(item, "extensions");
  const extensionSet = onlyParam(item, "extension-set");
  return {
    ...(extensions === undefined ? {} : { extensions: decodeBase64Url(extensions, "extensions") }),
    ...(extensionSet === undefined
      ? {}
      : { extensionSet: parseExtensionSet(decodeBase64Url(extensionSet, "extension-set")) }),
  };
}

/** What an `Authorization` header presents: hostile where it was received. */
export interface PresentedToken {
  readonly token: Uint8Array;
  /** Of a token with public metadata: encoded Extensions (draft-ietf-privacypass-auth-scheme-extensions). */
  readonly extensions?: Uint8Array;
}

/**
 * The value of an `Authorization` header with this token.
 * @param extensions encoded, of a token with public metadata
 */
export function formatAuthorization(token: Uint8Array, extensions?: Uint8Array): string {
  const credentials = `${SCHEME} token="${encodeBase64Url(token, "padded")}"`;
  if (extensions === undefined) return credentials;
  return `${credentials}, extensions="${encodeBase64Url(extensions, "padded")}"`;
}

/**
 * What an `Authorization` header presents; `undefined` when it holds no PrivateToken
 * credentials. Other parameters are ignored (RFC 9577 §2.2.2). Nothing is verified.
 * @param header hostile
 * @throws `WIRE_LENGTH_OUT_OF_BOUNDS` above 16 KiB, `WIRE_BAD_ENCODING` for text that is no list of
 * credentials or no base64url, `WIRE_VALUE_NOT_ALLOWED` where there is not exactly one token, or where a token
 * with metadata has its extensions twice
 */
export function parseAuthorization(header: string): PresentedToken | undefined {
  // Most requests carry other credentials or none, of any size and form: they are not ours to judge.
  if (!header.toLowerCase().includes("privatetoken")) return undefined;
  if (header.length > MAX_AUTH_HEADER_LENGTH) {
    const message = `Authorization: expected at most ${MAX_AUTH_HEADER_LENGTH} characters`;
    throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", message);
  }
  const items = parseAuthItems(header);
  if (items === undefined) {
    throw new StileError("WIRE_BAD_ENCODING", "Authorization: expected credentials");
  }
  const [credentials, ...others] = items.filter(isPrivateToken);
  if (credentials === undefined) return undefined;
  const text = onlyParam(credentials, "token");
  if (others.length > 0 || text === undefined) {
    throw new StileError("WIRE_VALUE_NOT_ALLOWED", "Authorization: expected one token");
  }
  const token = decodeBase64Url(text, "token");
  // Of a token without metadata it is an unknown parameter.
  const isExtended = token.length >= 2 && hasPublicMetadata(peekTokenType(token));
  const extensions = isExtended ? onlyParam(credentials, "extensions") : undefined;
  if (extensions === undefined) return { token };
  return { token, extensions: decodeBase64Url(extensions, "extensions") };
}

/**
 * The credentials of an `Authorization` header that are none of PrivateToken, as they were received; undefined
 * where there are none, or where it cannot be told which are.
 * @param header hostile
 */
export function otherCredentials(header: string): string | undefined {
  if (!header.toLowerCase().includes("privatetoken")) return header;
  const items = header.length <= MAX_AUTH_HEADER_LENGTH ? parseAuthItems(header) : undefined;
  if (items === undefined) return undefined;
  const others = items.filter((item) => !isPrivateToken(item));
  if (others.length === items.length) return header;
  return others.length === 0 ? undefined : others.map(({ text }) => text).join(", ");
}

function isPrivateToken(item: AuthItem): boolean {
  return item.scheme.toLowerCase() === "privatetoken";
}

/** Two values of one name could be read as two things by two readers. @throws `WIRE_VALUE_NOT_ALLOWED` */
function onlyParam(item: AuthItem, name: string): string | undefined {
  const values = item.params.filter(([paramName]) => paramName === name);
  if (values.length > 1) {
    throw new StileError("WIRE_VALUE_NOT_ALLOWED", `${name}: expected one parameter of this name`);
  }
  return values[0]?.[1];
}
