/**
 * What the page does, over the HTTP interface alone: a device key, the two steps, tokens with a DPoP proof.
 * The browser's part is whatever `answer` is: a software authenticator, one over a TPM, or Chromium.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { createDpopProof } from "../../attest/agent/index.ts";
import type { Es256PublicJwk } from "../../attest/index.ts";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { createTokenClient } from "../../tokens/client/index.ts";
import { formatAuthorization } from "../../tokens/index.ts";
import type { TestSidecar } from "./sidecar.ts";

export interface PageKey {
  readonly jwk: Es256PublicJwk;
  readonly privateKey: KeyObject;
}

export interface OpenedCeremony {
  readonly session: string;
  readonly expiresIn: number;
  readonly publicKey: { readonly challenge: string } & Readonly<Record<string, unknown>>;
}

export function newPageKey(): PageKey {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  return { jwk: { kty: "EC", crv: "P-256", x, y }, privateKey };
}

export function postJson(
  target: TestSidecar,
  path: string,
  body: unknown,
): Promise<ExchangeAnswer> {
  return target.post(path, JSON.stringify(body), { "content-type": "application/json" });
}

export function jsonOf(answer: ExchangeAnswer): unknown {
  return JSON.parse(Buffer.from(answer.body).toString());
}

/** Step 1. @param credentialId of an assertion */
export async function openCeremony(
  target: TestSidecar,
  key: PageKey,
  credentialId?: string,
): Promise<OpenedCeremony> {
  const purpose = credentialId === undefined ? "registration" : "assertion";
  const answer = await postJson(target, "/attest/webauthn/options", {
    deviceKey: key.jwk,
    purpose,
    ...(credentialId === undefined ? {} : { credentialId }),
  });
  if (answer.status !== 200) throw new Error(Buffer.from(answer.body).toString());
  return jsonOf(answer) as OpenedCeremony;
}

/** Step 2. */
export function sendEvidence(
  target: TestSidecar,
  session: string,
  credential: unknown,
): Promise<ExchangeAnswer> {
  return postJson(target, "/attest/webauthn/evidence", { session, credential });
}

/** Asks for tokens for the challenge of the site's front page; the answer, and what unblinds it. */
export async function requestTokens(
  target: TestSidecar,
  key: PageKey,
  accessToken: string,
  count = 1,
): Promise<{ readonly answer: ExchangeAnswer; readonly tokens: () => Promise<readonly string[]> }> {
  const { challenge, tokenKey } = await target.challenge();
  if (tokenKey === undefined) throw new Error("the challenge names no key");
  const pending = await createTokenClient().request({ challenge, tokenKey, count });
  const dpop = await createDpopProof({
    device: {
      deviceKeyJwk: key.jwk,
      signEs256: async (message) =>
        Uint8Array.from(
          sign("sha256", message, { key: key.privateKey, dsaEncoding: "ieee-p1363" }),
        ),
    },
    method: "POST",
    uri: `${target.url}/token-request`,
    accessToken,
    clock: () => Date.now() + target.clock.offsetMs,
    random: (length) => Uint8Array.from(randomBytes(length)),
  });
  const answer = await target.post("/token-request", pending.body, {
    authorization: `DPoP ${accessToken}`,
    dpop,
    "content-type": pending.mediaType,
    accept: pending.accept,
  });
  const { status, body } = answer;
  const mediaType = String(answer.headers["content-type"]);
  return {
    answer,
    tokens: async () =>
      (await pending.finalize({ status, mediaType, body })).map((token) =>
        formatAuthorization(token),
      ),
  };
}
