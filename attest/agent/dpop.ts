/**
 * A DPoP proof (RFC 9449 §4.2) signed by the device key in the TPM. Verifying one is the attester's
 * work and not done here.
 */
import { createHash } from "node:crypto";
import { encodeBase64Url, encodeUtf8 } from "../../wire/index.ts";
import type { Device } from "./device.ts";

const JTI_BYTES = 16;

export interface DpopProofOptions {
  readonly device: Pick<Device, "signEs256" | "deviceKeyJwk">;
  /** The HTTP method, upper case. */
  readonly method: string;
  /** The URI of the request; query and fragment are left out of the proof (§4.2). */
  readonly uri: string;
  /** The token that is sent along, for `ath`. */
  readonly accessToken?: string;
  /** What the server asked for with `DPoP-Nonce` (§8). */
  readonly nonce?: string | undefined;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly random: (length: number) => Uint8Array;
}

/** The value of the `DPoP` header. @throws `ATTEST_TSS_FAILED` */
export async function createDpopProof(options: DpopProofOptions): Promise<string> {
  const uri = new URL(options.uri);
  const header = { typ: "dpop+jwt", alg: "ES256", jwk: options.device.deviceKeyJwk };
  const payload = {
    jti: encodeBase64Url(options.random(JTI_BYTES)),
    htm: options.method,
    htu: `${uri.origin}${uri.pathname}`,
    iat: Math.floor(options.clock() / 1000),
    ...(options.accessToken === undefined ? {} : { ath: hashOf(options.accessToken) }),
    ...(options.nonce === undefined ? {} : { nonce: options.nonce }),
  };
  const signed = `${encodeJson(header)}.${encodeJson(payload)}`;
  const signature = await options.device.signEs256(encodeUtf8(signed));
  return `${signed}.${encodeBase64Url(signature)}`;
}

function encodeJson(value: object): string {
  return encodeBase64Url(encodeUtf8(JSON.stringify(value)));
}

function hashOf(token: string): string {
  return encodeBase64Url(createHash("sha256").update(token, "ascii").digest());
}
