/**
 * Clearance: after one redemption the client carries a short-lived signed cookie, so that a reload does
 * not spend a second token. A JWT (RFC 7519, ES256) so that HAProxy, Envoy and others can check it with
 * the JWKS alone. It says which host, from when until when, and nothing else: no subject, no identifier.
 */
import { type KeyObject, sign } from "node:crypto";
import { jwtVerify } from "jose";
import { encodeBase64Url, encodeUtf8 } from "../../wire/index.ts";
import type { ClearanceKeyring } from "./clearance-keyring.ts";

/** `__Host-` makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis §4.1.3.2). */
export const CLEARANCE_COOKIE = "__Host-stile";
/**
 * Verified cookies that are remembered, so that a keep-alive client costs one signature check and not one
 * a request. Bounded; the oldest goes first. About 600 bytes each.
 */
const MAX_REMEMBERED = 10_000;
/** A clearance is about 300 characters: longer ones are not ours and are not hashed or parsed. */
const MAX_COOKIE_CHARS = 1_024;
const TYPE = "stile-clearance+jwt";

export interface ClearanceOptions {
  readonly keys: Pick<ClearanceKeyring, "signing" | "find" | "onChange">;
  /** `iss` of the JWT: the public URL of this service. */
  readonly issuer: string;
  /** Lifetime from the redemption on, in seconds; 0 gives no clearance at all. */
  readonly lifetimeSeconds: number;
  readonly clock: () => number;
}

export interface GrantedClearance {
  readonly jwt: string;
  readonly setCookie: string;
  readonly expiresInSeconds: number;
}

export interface Clearance {
  /**
   * The clearance of a redemption. It ends a lifetime after `redeemedAtMs`, so that a repeated answer
   * to one redemption never lengthens it. Undefined where it would have ended, lifetimes are 0 or no key signs.
   */
  readonly grant: (host: string, redeemedAtMs: number) => Promise<GrantedClearance | undefined>;
  /** The same as `isValid`, of those that were verified before; false where that would have to be done. */
  readonly isKnown: (host: string, cookieHeader: string | undefined) => boolean;
  /** Whether the Cookie header holds a valid clearance for the host. Never throws: hostile input. */
  readonly isValid: (host: string, cookieHeader: string | undefined) => Promise<boolean>;
}

export function createClearance(options: ClearanceOptions): Clearance {
  return {
    grant: async (host, redeemedAtMs) => grantClearance(options, host, redeemedAtMs),
    ...createVerifier(options),
  };
}

function grantClearance(
  options: ClearanceOptions,
  host: string,
  redeemedAtMs: number,
): GrantedClearance | undefined {
  const iat = Math.floor(redeemedAtMs / 1_000);
  const exp = iat + options.lifetimeSeconds;
  const expiresInSeconds = Math.floor(exp - options.clock() / 1_000);
  const signing = options.keys.signing();
  if (expiresInSeconds <= 0 || signing === undefined) return undefined;
  const header = jsonPart({ alg: "ES256", typ: TYPE, kid: signing.kid });
  const input = `${header}.${jsonPart({ iss: options.issuer, aud: host, iat, exp })}`;
  // RFC 7515 §7.1, RFC 7518 §3.4: R and S, not DER. In place, since it takes less than asking another thread.
  const key = { key: signing.privateKey, dsaEncoding: "ieee-p1363" } as const;
  const jwt = `${input}.${encodeBase64Url(sign("sha256", encodeUtf8(input), key))}`;
  const attributes = `Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=${expiresInSeconds}`;
  return { jwt, setCookie: `${CLEARANCE_COOKIE}=${jwt}; ${attributes}`, expiresInSeconds };
}

function jsonPart(value: Readonly<Record<string, unknown>>): string {
  return encodeBase64Url(encodeUtf8(JSON.stringify(value)));
}

function createVerifier(options: ClearanceOptions): Pick<Clearance, "isKnown" | "isValid"> {
  const { clock, keys } = options;
  const remembered = new Map<string, number>();
  // Of a key that was revoked nothing may be remembered; changes are rare.
  keys.onChange(() => remembered.clear());

  function remember(key: string, expiresAtMs: number): void {
    const oldest = remembered.keys().next();
    if (remembered.size >= MAX_REMEMBERED && !oldest.done) remembered.delete(oldest.value);
    remembered.set(key, expiresAtMs);
  }

  function isRemembered(key: string): boolean {
    const expiresAtMs = remembered.get(key);
    if (expiresAtMs === undefined) return false;
    if (expiresAtMs > clock()) return true;
    remembered.delete(key);
    return false;
  }

  return {
    isKnown: (host, cookieHeader) => {
      const jwt = readClearanceCookie(cookieHeader);
      return jwt !== undefined && isRemembered(`${host} ${jwt}`);
    },
    isValid: async (host, cookieHeader) => {
      const jwt = readClearanceCookie(cookieHeader);
      if (jwt === undefined) return false;
      const key = `${host} ${jwt}`;
      if (isRemembered(key)) return true;
      const verified = await verify(options, host, jwt);
      // Once more: its key may have been revoked while the signature was looked at.
      const signer = verified && keys.find(verified.kid);
      if (verified === undefined || signer === undefined) return false;
      remember(key, Math.min(verified.expiresAtMs, signer.record.destroyAtMs));
      return true;
    },
  };
}

interface Verified {
  readonly kid: string;
  /** Unix milliseconds. */
  readonly expiresAtMs: number;
}

/** Undefined for anything but a valid clearance. */
async function verify(
  options: ClearanceOptions,
  host: string,
  jwt: string,
): Promise<Verified | undefined> {
  try {
    const keyOf = ({ kid = "" }: { readonly kid?: string }): KeyObject => {
      const key = options.keys.find(kid);
      if (key === undefined) throw new RangeError("no such key");
      return key.publicKey;
    };
    const { payload, protectedHeader } = await jwtVerify(jwt, keyOf, {
      algorithms: ["ES256"],
      typ: TYPE,
      issuer: options.issuer,
      audience: host,
      currentDate: new Date(options.clock()),
      requiredClaims: ["exp", "iat"],
    });
    const { kid } = protectedHeader;
    if (kid === undefined || payload.exp === undefined) return undefined;
    return { kid, expiresAtMs: payload.exp * 1_000 };
  } catch {
    return undefined;
  }
}

/** The first cookie of that name, or undefined. */
export function readClearanceCookie(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  for (const pair of header.split(";")) {
    const trimmed = pair.trim();
    if (trimmed.startsWith(`${CLEARANCE_COOKIE}=`)) {
      const value = trimmed.slice(CLEARANCE_COOKIE.length + 1);
      return value.length > 0 && value.length <= MAX_COOKIE_CHARS ? value : undefined;
    }
  }
  return undefined;
}

/** The Cookie header without the clearance: the upstream has no use for it and could only leak it. */
export function withoutClearanceCookie(header: string): string | undefined {
  const kept = header
    .split(";")
    .map((pair) => pair.trim())
    .filter((pair) => pair !== "" && !pair.startsWith(`${CLEARANCE_COOKIE}=`));
  return kept.length === 0 ? undefined : kept.join("; ");
}
