/**
 * Clearance: after one redemption the client carries a short-lived signed cookie, so that a reload does
 * not spend a second token. A JWT (RFC 7519, ES256) so that HAProxy, Envoy and others can check it with
 * the JWKS alone. It says which host, from when until when, and nothing else: no subject, no identifier.
 */
import { type KeyObject, sign } from "node:crypto";
import { exportJWK, type JWK, jwtVerify } from "jose";
import { encodeBase64Url, encodeUtf8 } from "../../wire/index.ts";

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
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly keyId: string;
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
   * to one redemption never lengthens it. Undefined where it would have ended or lifetimes are 0.
   */
  readonly grant: (host: string, redeemedAtMs: number) => Promise<GrantedClearance | undefined>;
  /** Whether the Cookie header holds a valid clearance for the host. Never throws: hostile input. */
  readonly isValid: (host: string, cookieHeader: string | undefined) => Promise<boolean>;
  readonly publicJwk: () => Promise<JWK>;
  /** SubjectPublicKeyInfo as PEM (RFC 7468 §13), for verifiers that read no JWKS. */
  readonly publicPem: string;
}

export function createClearance(options: ClearanceOptions): Clearance {
  const { keyId } = options;
  const header = jsonPart({ alg: "ES256", typ: TYPE, kid: keyId });
  return {
    grant: async (host, redeemedAtMs) => grantClearance(options, header, host, redeemedAtMs),
    isValid: createVerifier(options),
    publicPem: options.publicKey.export({ format: "pem", type: "spki" }),
    publicJwk: async () => ({
      ...(await exportJWK(options.publicKey)),
      kid: keyId,
      alg: "ES256",
      use: "sig",
    }),
  };
}

function grantClearance(
  options: ClearanceOptions,
  header: string,
  host: string,
  redeemedAtMs: number,
): GrantedClearance | undefined {
  const iat = Math.floor(redeemedAtMs / 1_000);
  const exp = iat + options.lifetimeSeconds;
  const expiresInSeconds = Math.floor(exp - options.clock() / 1_000);
  if (expiresInSeconds <= 0) return undefined;
  const input = `${header}.${jsonPart({ iss: options.issuer, aud: host, iat, exp })}`;
  // RFC 7515 §7.1, RFC 7518 §3.4: R and S, not DER. In place, since it takes less than asking another thread.
  const key = { key: options.privateKey, dsaEncoding: "ieee-p1363" } as const;
  const jwt = `${input}.${encodeBase64Url(sign("sha256", encodeUtf8(input), key))}`;
  const attributes = `Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=${expiresInSeconds}`;
  return { jwt, setCookie: `${CLEARANCE_COOKIE}=${jwt}; ${attributes}`, expiresInSeconds };
}

function jsonPart(value: Readonly<Record<string, unknown>>): string {
  return encodeBase64Url(encodeUtf8(JSON.stringify(value)));
}

function createVerifier(options: ClearanceOptions): Clearance["isValid"] {
  const { clock } = options;
  const remembered = new Map<string, number>();

  function remember(key: string, expiresAtMs: number): void {
    const oldest = remembered.keys().next();
    if (remembered.size >= MAX_REMEMBERED && !oldest.done) remembered.delete(oldest.value);
    remembered.set(key, expiresAtMs);
  }

  return async (host, cookieHeader) => {
    const jwt = readClearanceCookie(cookieHeader);
    if (jwt === undefined) return false;
    const key = `${host} ${jwt}`;
    const known = remembered.get(key);
    if (known !== undefined) {
      if (known > clock()) return true;
      remembered.delete(key);
      return false;
    }
    const expiresAtMs = await expiryOf(options, host, jwt);
    if (expiresAtMs === undefined) return false;
    remember(key, expiresAtMs);
    return true;
  };
}

/** When a valid clearance ends (Unix milliseconds), or undefined for anything else. */
async function expiryOf(
  options: ClearanceOptions,
  host: string,
  jwt: string,
): Promise<number | undefined> {
  try {
    const { payload } = await jwtVerify(jwt, options.publicKey, {
      algorithms: ["ES256"],
      typ: TYPE,
      issuer: options.issuer,
      audience: host,
      currentDate: new Date(options.clock()),
      requiredClaims: ["exp", "iat"],
    });
    return payload.exp === undefined ? undefined : payload.exp * 1_000;
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
