/** The account at an ACME server (RFC 8555 §7.3): made once, found again by its key, bound to another account if asked. */
import { calculateJwkThumbprint, exportJWK, FlattenedSign, type JWK } from "jose";
import { encodeUtf8 } from "../../wire/index.ts";
import type { Es256Key } from "../secrets.ts";
import type { AcmeSession } from "./session.ts";

export interface AccountOptions {
  readonly session: AcmeSession;
  readonly key: Es256Key;
  readonly contact: readonly string[];
  /** §7.3.4. */
  readonly external?: { readonly keyId: string; readonly hmacKey: Uint8Array } | undefined;
}

export interface AcmeAccount {
  readonly session: AcmeSession;
  /** The account's URL, which signs for it from now on. */
  readonly kid: string;
  /** RFC 7638, base64url: the second part of key authorizations. */
  readonly thumbprint: string;
}

/**
 * Finds the account of this key, or makes it: the server answers both alike.
 * @throws `SERVICE_ACME_UNAVAILABLE`, `SERVICE_ACME_REFUSED`
 */
export async function openAccount(options: AccountOptions): Promise<AcmeAccount> {
  const { contact, external, key, session } = options;
  const jwk = await exportJWK(key.publicKey);
  const url = await session.resource("newAccount");
  const answer = await session.post(
    url,
    { jwk },
    {
      termsOfServiceAgreed: true,
      ...(contact.length === 0 ? {} : { contact }),
      ...(external === undefined
        ? {}
        : { externalAccountBinding: await binding(external, jwk, url) }),
    },
  );
  const thumbprint = await calculateJwkThumbprint(jwk, "sha256");
  return { session, kid: session.urlIn(answer.headers.location), thumbprint };
}

async function binding(
  { hmacKey, keyId }: NonNullable<AccountOptions["external"]>,
  jwk: JWK,
  url: string,
): Promise<object> {
  return new FlattenedSign(encodeUtf8(JSON.stringify(jwk)))
    .setProtectedHeader({ alg: "HS256", kid: keyId, url })
    .sign(hmacKey);
}
