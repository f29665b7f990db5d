/**
 * Whose attestation it is (WebAuthn Level 3 §7.1 steps 22 to 24; checklist F5, F7, A9): the path of a
 * verified statement's certificate to an anchor, and what the FIDO metadata knows of the model.
 */
import { StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { ParsedCertificate } from "../ek/certificate.ts";
import { verifyCertificatePath } from "./certificate.ts";
import { checkFreshness } from "./mds.ts";
import { checkEntry, entryAnchors, keyIdentifier, type MetadataEntry } from "./mds-entries.ts";
import { type AttestationFormat, formatRefused, type WebAuthnPolicy } from "./policy.ts";
import type { CertifiedStatement, Statement } from "./statement.ts";
import type { WebAuthnTrust } from "./trust.ts";

/**
 * - `anchored`: a maker that the operator or FIDO names certified the authenticator;
 * - `unanchored`: a certificate of unknown origin, accepted by a named policy setting;
 * - `self`: the credential key signed for itself; `none`: nothing was attested.
 */
export type AttestationTrust = "anchored" | "unanchored" | "self" | "none";

export interface TrustCheck {
  readonly statement: Statement;
  readonly format: AttestationFormat;
  readonly aaguid: string;
  readonly policy: WebAuthnPolicy;
  readonly trust: WebAuthnTrust;
  readonly crypto: AttestCrypto;
  readonly atMs: number;
}

/**
 * @throws `ATTEST_WEBAUTHN_CHAIN_UNTRUSTED`, `ATTEST_WEBAUTHN_CERTIFICATE_EXPIRED`,
 * `ATTEST_WEBAUTHN_CERTIFICATE_REVOKED`, `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`,
 * `ATTEST_WEBAUTHN_METADATA_STALE`, `ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED`, `ATTEST_WEBAUTHN_FORMAT_REFUSED`,
 * `ATTEST_REVOCATION_UNKNOWN`
 */
export async function verifyTrust(check: TrustCheck): Promise<AttestationTrust> {
  const { statement, policy } = check;
  const entry = findEntry(check);
  if (statement.kind === "none") return "none";
  if (entry !== undefined) checkEntry(entry, statement.kind);
  if (statement.kind === "self") {
    if (!policy.acceptSelfAttestation) throw formatRefused("self attestation is not accepted");
    return "self";
  }
  if (isUnanchored(entry, check)) return "unanchored";
  await verifyPath(statement, entry, check);
  return "anchored";
}

/** Only where there is nothing to lead to: a path that fails is never forgiven, nor a listed model without one. */
function isUnanchored(entry: MetadataEntry | undefined, check: TrustCheck): boolean {
  const { policy, trust, format } = check;
  return (
    entry === undefined &&
    trust.anchors[format] === undefined &&
    policy.acceptUnanchored.includes(format)
  );
}

/** @throws `ATTEST_WEBAUTHN_METADATA_STALE`, `ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED` */
function findEntry(check: TrustCheck): MetadataEntry | undefined {
  const { statement, policy, trust, crypto, aaguid } = check;
  const { metadata } = trust;
  if (metadata !== undefined) checkFreshness(metadata, check.atMs);
  const isU2f = check.format === "fido-u2f" && statement.kind === "certified";
  // A U2F device has no AAGUID: FIDO lists it by the key of its certificate.
  const key = isU2f ? keyIdentifier(statement.leaf, crypto) : aaguid;
  const entry = metadata?.entries.get(key);
  if (entry === undefined && policy.metadata === "required") {
    const message = "authenticator model: it is not in the metadata";
    throw new StileError("ATTEST_WEBAUTHN_AUTHENTICATOR_REFUSED", message);
  }
  return entry;
}

/**
 * A model that FIDO lists chains to its own anchors alone: another maker's genuine certificate does not
 * make a device that model.
 */
function anchorsFor(
  { trust, format }: TrustCheck,
  entry: MetadataEntry | undefined,
): readonly ParsedCertificate[] {
  if (entry !== undefined) return entryAnchors(entry);
  return trust.anchors[format]?.certificates ?? [];
}

async function verifyPath(
  { leaf, issuers, purpose }: CertifiedStatement,
  entry: MetadataEntry | undefined,
  check: TrustCheck,
): Promise<void> {
  const { crypto, atMs } = check;
  const revokedSerialNumbers =
    check.format === "android-key" ? androidRevocation(check) : undefined;
  await verifyCertificatePath({
    leaf,
    issuers,
    anchors: anchorsFor(check, entry),
    atMs,
    crypto,
    ...(purpose === undefined ? {} : { purpose }),
    ...(revokedSerialNumbers === undefined ? {} : { revokedSerialNumbers }),
  });
}

/** @throws `ATTEST_REVOCATION_UNKNOWN` where there is no list and the policy wants one (A9) */
function androidRevocation({ trust, policy }: TrustCheck): ReadonlySet<string> | undefined {
  if (trust.androidRevocationList === undefined && policy.androidRevocation === "required") {
    const message = "android-key: expected Android's revocation list";
    throw new StileError("ATTEST_REVOCATION_UNKNOWN", message);
  }
  return trust.androidRevocationList;
}
