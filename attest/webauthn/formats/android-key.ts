/**
 * `android-key` (WebAuthn Level 3 §8.4; checklist F5): signed with the credential key itself, whose
 * certificate Android Keystore issued with a description of the key. The challenge in the description
 * ties the certificate to this ceremony; the key's own signature alone would show nothing about hardware.
 * A key that may also verify is accepted, since Android makes signing keys with both purposes.
 */
import { constantTimeEqual, StileError } from "../../../wire/index.ts";
import type { ParsedCertificate } from "../../ek/certificate.ts";
import { checkAttestationLeaf, parseAttestationCertificate, readX5c } from "../certificate.ts";
import { coseAlgorithm } from "../cose-key.ts";
import { asAttestationCertificate, certificateInvalid, signatureInvalid } from "../errors.ts";
import type { AndroidSecurityLevel, WebAuthnPolicy } from "../policy.ts";
import { isSignedWith } from "../signature.ts";
import {
  attestedBytes,
  bytesOf,
  type CertifiedStatement,
  checkCredentialKey,
  expectMembers,
  type StatementInput,
} from "../statement.ts";
import {
  type AuthorizationList,
  type KeyDescription,
  parseKeyDescription,
} from "./key-description.ts";

const KEY_ATTESTATION_EXTENSION = "1.3.6.1.4.1.11129.2.1.17";
const KM_PURPOSE_SIGN = 2;
const KM_PURPOSE_VERIFY = 3;
const KM_ORIGIN_GENERATED = 0;

/**
 * @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_SIGNATURE_INVALID`,
 * `ATTEST_WEBAUTHN_KEY_MISMATCH`, `ATTEST_NONCE_MISMATCH`, `ATTEST_KEY_ATTRIBUTES_INVALID`,
 * `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`, `ATTEST_POLICY_REFUSED`
 */
export async function verifyAndroidKeyStatement(
  input: StatementInput,
): Promise<CertifiedStatement> {
  const { statement, policy, crypto } = input;
  expectMembers(statement, ["alg", "sig", "x5c"]);
  const algorithm = coseAlgorithm(statement.get("alg"), false);
  const [der, ...issuers] = readX5c(statement.get("x5c"));
  const leaf = parseAttestationCertificate(der);
  const sig = bytesOf(statement, "sig");
  if (!(await isSignedWith(leaf, algorithm, attestedBytes(input), sig, crypto))) {
    throw signatureInvalid("android-key attestation");
  }
  checkCredentialKey(leaf, input);
  const description = readDescription(leaf);
  if (!constantTimeEqual(description.attestationChallenge, input.clientDataHash)) {
    const message = "attestationChallenge: is for another ceremony";
    throw new StileError("ATTEST_NONCE_MISMATCH", message);
  }
  checkAuthorizations(description, policy);
  const securityLevel = checkSecurityLevel(description, policy);
  checkAttestationLeaf(leaf);
  return { kind: "certified", leaf, issuers, android: { securityLevel } };
}

function readDescription(leaf: ParsedCertificate): KeyDescription {
  const extension = leaf.extensions.get(KEY_ATTESTATION_EXTENSION);
  if (extension === undefined) throw certificateInvalid("no key attestation extension");
  return asAttestationCertificate(() => parseKeyDescription(extension.value));
}

/** §8.4: not for all applications, generated, for signing; as the hardware enforces unless software will do. */
function checkAuthorizations(
  { softwareEnforced, teeEnforced }: KeyDescription,
  policy: WebAuthnPolicy,
): void {
  const isEither = policy.androidSecurityLevels.includes("software");
  const lists: AuthorizationList[] = isEither ? [teeEnforced, softwareEnforced] : [teeEnforced];
  const purposes = lists.flatMap(({ purpose }) => purpose ?? []);
  const origins = lists.flatMap(({ origin }) => origin ?? []);
  const isSigningKey =
    purposes.includes(KM_PURPOSE_SIGN) &&
    purposes.every((purpose) => purpose === KM_PURPOSE_SIGN || purpose === KM_PURPOSE_VERIFY);
  const isGenerated =
    origins.length > 0 && origins.every((origin) => origin === KM_ORIGIN_GENERATED);
  // A key of all applications could be used by any app that asks for it.
  const isShared = softwareEnforced.allApplications || teeEnforced.allApplications;
  if (!isSigningKey || !isGenerated || isShared) {
    const message = "android key: expected a signing key that was generated for one application";
    throw new StileError("ATTEST_KEY_ATTRIBUTES_INVALID", message);
  }
}

function checkSecurityLevel(
  description: KeyDescription,
  policy: WebAuthnPolicy,
): AndroidSecurityLevel {
  const { attestationSecurityLevel, keymasterSecurityLevel } = description;
  for (const level of [attestationSecurityLevel, keymasterSecurityLevel]) {
    if (!policy.androidSecurityLevels.includes(level)) {
      const message = "android key: expected another security level";
      throw new StileError("ATTEST_POLICY_REFUSED", message);
    }
  }
  return keymasterSecurityLevel;
}
