/**
 * When the ACME server would have a certificate renewed (RFC 9773). It is asked so that a server which is about to
 * revoke can say so in time; what it says may make a renewal earlier, never later.
 */
import { X509Certificate } from "node:crypto";
import type { OctetString } from "asn1js";
import * as pkijs from "pkijs";
import { jsonOf, memberOf, retryAfterSeconds } from "./problem.ts";
import type { AcmeSession } from "./session.ts";

export interface RenewalInfo {
  /** In Unix milliseconds; some time between the two is meant. */
  readonly startMs: number;
  readonly endMs: number;
  /** How long the server is not to be asked again. */
  readonly retryAfterSeconds?: number;
}

/** The directory's name for it (§3). */
export const RENEWAL_INFO = "renewalInfo";
const AUTHORITY_KEY_IDENTIFIER = "2.5.29.35";

/**
 * §4.1: the identifier of the authority's key and the serial number, as they lie in the certificate.
 * @param pem the certificate first
 * @returns undefined for one that does not name its authority's key
 */
export function certificateId(pem: string): string | undefined {
  const certificate = pkijs.Certificate.fromBER(Uint8Array.from(new X509Certificate(pem).raw));
  const found = certificate.extensions?.find(({ extnID }) => extnID === AUTHORITY_KEY_IDENTIFIER);
  const authority: unknown = found?.parsedValue;
  if (!(authority instanceof pkijs.AuthorityKeyIdentifier)) return undefined;
  const keyIdentifier: OctetString | undefined = authority.keyIdentifier;
  if (keyIdentifier === undefined) return undefined;
  return [keyIdentifier, certificate.serialNumber]
    .map(({ valueBlock }) => Buffer.from(valueBlock.valueHexView).toString("base64url"))
    .join(".");
}

/**
 * @param pem of a certificate from this server
 * @returns undefined where the server offers no such information, or none that makes sense
 * @throws `SERVICE_ACME_UNAVAILABLE`, `SERVICE_ACME_REFUSED`
 */
export async function fetchRenewalInfo(
  session: AcmeSession,
  pem: string,
  nowMs: number,
): Promise<RenewalInfo | undefined> {
  const id = certificateId(pem);
  const resource = await session.find(RENEWAL_INFO);
  if (id === undefined || resource === undefined) return undefined;
  const answer = await session.get(`${resource}/${id}`);
  const window = memberOf(jsonOf(answer.body), "suggestedWindow");
  const [startMs, endMs] = ["start", "end"].map((name) =>
    Date.parse(String(memberOf(window, name))),
  );
  if (startMs === undefined || endMs === undefined || !(startMs < endMs)) return undefined;
  const wait = retryAfterSeconds(answer, nowMs);
  return { startMs, endMs, ...(wait === undefined ? {} : { retryAfterSeconds: wait }) };
}
