/** Stile's endpoints, as a page asks them. */
import { Failure, failureOf } from "./failure.ts";

/** Where they are: the page's own origin, unless an application says otherwise. */
export const endpoint: { origin: string } = { origin: location.origin };

export interface Ceremony {
  readonly session: string;
  readonly publicKey: PublicKeyCredentialCreationOptionsJSON &
    PublicKeyCredentialRequestOptionsJSON;
}

export interface AttestationAnswer {
  readonly attestationResult: string;
  readonly expiresIn: number;
}

/** @throws Failure `offline` where there is no answer */
export async function ask(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(endpoint.origin + path, { ...init, cache: "no-store", redirect: "error" });
  } catch {
    throw new Failure("offline");
  }
}

export async function askJson<T>(path: string, body: unknown): Promise<T> {
  const answer = await ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw await failureOf(answer);
  return (await answer.json()) as T;
}

/** @returns whether the token was taken; false where another one may do. */
export async function redeem(token: PresentedToken): Promise<boolean> {
  const answer = await ask("/.stile/clearance", {
    method: "POST",
    headers: { authorization: tokenAuthorization(token) },
  });
  if (answer.ok) return true;
  if (answer.status === 401) return false;
  throw await failureOf(answer);
}

/** A token, and what goes with one that has an expiration. */
interface PresentedToken {
  readonly token: Uint8Array;
  readonly extensions?: Uint8Array | undefined;
}

/** As RFC 9577 §2.2.1 spells it: base64url, with padding. */
export function tokenAuthorization({ extensions, token }: PresentedToken): string {
  const credentials = `PrivateToken token="${toBase64(token)}"`;
  return extensions === undefined
    ? credentials
    : `${credentials}, extensions="${toBase64(extensions)}"`;
}

export function toBase64Url(bytes: Uint8Array): string {
  return toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function fromBase64Url(text: string): Uint8Array<ArrayBuffer> {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Base64url, with padding. */
function toBase64(bytes: Uint8Array): string {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll("+", "-").replaceAll("/", "_");
}
