/**
 * Whether the model of a registered credential may still attest: what became known after its registration
 * (a denied AAGUID, a report of FIDO, a format or trust that is not accepted any more) holds at once. The
 * certificate path is not gone again: the attestation is not kept. An operator who drops an anchor denies
 * its models.
 */
import { checkEntry } from "../webauthn/mds-entries.ts";
import { checkFreshness } from "../webauthn/mds.ts";
import { checkAaguid, formatRefused, type WebAuthnPolicy } from "../webauthn/policy.ts";
import type { WebAuthnTrust } from "../webauthn/index.ts";
import type { StoredCredential } from "./credential-store.ts";

/**
 * @throws `ATTEST_WEBAUTHN_FORMAT_REFUSED`, `ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED`,
 * `ATTEST_WEBAUTHN_METADATA_STALE`
 */
export function checkModel(
  credential: Pick<StoredCredential, "aaguid" | "format" | "trust">,
  attester: {
    readonly policy: WebAuthnPolicy;
    readonly trust: WebAuthnTrust;
    readonly clock: () => number;
  },
): void {
  const { aaguid, format, trust } = credential;
  const { policy } = attester;
  if (!policy.formats.includes(format) || !isTrustAccepted(credential, policy)) {
    throw formatRefused("its format or trust is not accepted any more");
  }
  const { metadata } = attester.trust;
  if (metadata !== undefined) checkFreshness(metadata, attester.clock());
  // FIDO lists U2F devices by the key of their certificate, which is not kept.
  const entry = format === "fido-u2f" ? undefined : metadata?.entries.get(aaguid);
  if (entry !== undefined) checkEntry(entry, trust === "self" ? "self" : "certified");
  checkAaguid(aaguid, trust === "anchored", policy);
}

function isTrustAccepted(
  { format, trust }: Pick<StoredCredential, "format" | "trust">,
  policy: WebAuthnPolicy,
): boolean {
  if (trust === "unanchored") return policy.acceptUnanchored.includes(format);
  return trust === "self" ? policy.acceptSelfAttestation : true;
}
