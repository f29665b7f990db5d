/**
 * `tpm` (WebAuthn Level 3 §8.3; checklist F3, D2, D3, B1): the credential key was certified by an AIK.
 *
 * A statement is verified when all of this holds, checked in this order:
 *  1. it has the members of §8.3, and ver is "2.0";
 *  2. the AIK's signature verifies over certInfo as received, before anything inside is read (D1);
 *  3. certInfo is one TPMS_ATTEST that a TPM generated, of type certify, with nothing left over, and
 *     each of its fields is a legal one, `safe` too (D2, D7, D10);
 *  4. extraData is H(authenticatorData || clientDataHash) in full, with the hash of alg (D3);
 *  5. the attested Name is that of pubArea, and pubArea is the credential key, made in this TPM and
 *     unable to leave it (D9, B1);
 *  6. the AIK certificate is one of §8.3.1 (A7).
 * clockInfo, firmwareVersion and qualifiedSigner are not judged: §8.3 ignores them, and a relying
 * party has nothing to compare them with.
 */
import { concatBytes, constantTimeEqual, StileError } from "../../../wire/index.ts";
import type { SignatureScheme } from "../../crypto.ts";
import type { ParsedCertificate } from "../../ek/certificate.ts";
import { readExtKeyUsage } from "../../ek/extensions.ts";
import { readTpmIdentity, type TpmIdentity } from "../../ek/tpm-identity.ts";
import { parseTpmsAttestCertify } from "../../structures/attest.ts";
import {
  TPM_ALG_ECDSA,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
  TPMA_OBJECT_FIXEDPARENT,
  TPMA_OBJECT_FIXEDTPM,
  TPMA_OBJECT_RESTRICTED,
  TPMA_OBJECT_SENSITIVEDATAORIGIN,
  TPMA_OBJECT_SIGN_ENCRYPT,
} from "../../structures/constants.ts";
import { computeName } from "../../structures/name.ts";
import { parseTpmtPublic, type TpmtPublic } from "../../structures/public.ts";
import { parseTpmtSignature } from "../../structures/signature.ts";
import { encodeSpki, leftPadded } from "../../structures/spki.ts";
import { checkAttestationLeaf, parseAttestationCertificate, readX5c } from "../certificate.ts";
import { type CoseAlgorithm, coseAlgorithm } from "../cose-key.ts";
import {
  algorithmNotAllowed,
  asAttestationCertificate,
  certificateInvalid,
  keyMismatch,
  signatureInvalid,
  statementInvalid,
} from "../errors.ts";
import { isSignedWith, isSignedWithRaw } from "../signature.ts";
import {
  attestedBytes,
  bytesOf,
  type CertifiedStatement,
  checkAaguidExtension,
  expectMembers,
  type StatementInput,
} from "../statement.ts";

/** TCG EK Credential Profile: tcg-kp-AIKCertificate. */
const TCG_KP_AIK_CERTIFICATE = "2.23.133.8.3";

/**
 * @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_SIGNATURE_INVALID`,
 * `ATTEST_MAGIC_MISMATCH`, `ATTEST_TYPE_MISMATCH`, `ATTEST_NONCE_MISMATCH`, `ATTEST_NAME_MISMATCH`,
 * `ATTEST_WEBAUTHN_KEY_MISMATCH`, `ATTEST_KEY_ATTRIBUTES_INVALID`, `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`, `WIRE_*`
 */
export async function verifyTpmStatement(input: StatementInput): Promise<CertifiedStatement> {
  const { statement, policy } = input;
  expectMembers(statement, ["alg", "sig", "ver", "x5c", "pubArea", "certInfo"]);
  if (statement.get("ver") !== "2.0") throw statementInvalid('expected ver "2.0"');
  const algorithm = coseAlgorithm(
    statement.get("alg"),
    policy.acceptSha1.includes("tpm-attestation"),
  );
  const [der, ...issuers] = readX5c(statement.get("x5c"));
  const aik = parseAttestationCertificate(der, ["unregistered-manufacturer"]);
  const certInfo = bytesOf(statement, "certInfo");
  if (!(await isSignedByAik(aik, algorithm, certInfo, bytesOf(statement, "sig"), input))) {
    throw signatureInvalid("certInfo");
  }
  const certified = parseTpmsAttestCertify(certInfo);
  const expected = input.crypto.hash(algorithm.hash, attestedBytes(input));
  if (!constantTimeEqual(certified.extraData, expected)) {
    throw new StileError("ATTEST_NONCE_MISMATCH", "certInfo.extraData: is for another ceremony");
  }
  const area = parseTpmtPublic(bytesOf(statement, "pubArea"));
  checkCredentialArea(area, certified.name, input);
  const tpm = checkAikCertificate(aik, input);
  return { kind: "certified", leaf: aik, issuers, purpose: TCG_KP_AIK_CERTIFICATE, tpm };
}

/** TPMI_ALG_SIG_SCHEME of each scheme that an AIK has. */
const SIG_ALG: Readonly<Record<SignatureScheme, number | undefined>> = {
  ECDSA: TPM_ALG_ECDSA,
  "RSASSA-PKCS1-v1_5": TPM_ALG_RSASSA,
  "RSASSA-PSS": TPM_ALG_RSAPSS,
  Ed25519: undefined,
};

/**
 * §8.3 says that sig is a TPMT_SIGNATURE; Windows sends the bare signature. A TPMT_SIGNATURE starts with
 * its algorithm, so no bytes are both. Its header is hostile and has to agree with alg.
 */
async function isSignedByAik(
  aik: ParsedCertificate,
  algorithm: CoseAlgorithm,
  certInfo: Uint8Array,
  sig: Uint8Array,
  { crypto }: StatementInput,
): Promise<boolean> {
  const sigAlg = SIG_ALG[algorithm.scheme];
  const isTpmt = sig.length >= 2 && ((sig[0] ?? 0) << 8) + (sig[1] ?? 0) === sigAlg;
  // A bare RSA signature may begin with any bytes, but it is as long as the modulus.
  const isBareRsa = sigAlg !== TPM_ALG_ECDSA && sig.length % 64 === 0;
  if (!isTpmt || isBareRsa) return isSignedWith(aik, algorithm, certInfo, sig, crypto);
  const signature = parseTpmtSignature(sig);
  if (signature.hash.name !== algorithm.hash) return false;
  const raw = (width: number): Uint8Array | undefined => {
    if (signature.sigAlg !== TPM_ALG_ECDSA) return signature.sig;
    const { signatureR: r, signatureS: s } = signature;
    if (r.length > width || s.length > width) return undefined;
    return concatBytes([leftPadded(r, width), leftPadded(s, width)]);
  };
  return isSignedWithRaw(aik, algorithm, certInfo, raw, crypto);
}

/** Made in this TPM and unable to leave it; decrypt as well is what Windows makes. */
const REQUIRED_ATTRIBUTES =
  TPMA_OBJECT_FIXEDTPM |
  TPMA_OBJECT_FIXEDPARENT |
  TPMA_OBJECT_SENSITIVEDATAORIGIN |
  TPMA_OBJECT_SIGN_ENCRYPT;

function checkCredentialArea(area: TpmtPublic, name: Uint8Array, input: StatementInput): void {
  if (area.nameAlg.name === "sha1" && !input.policy.acceptSha1.includes("tpm-name")) {
    throw algorithmNotAllowed("SHA-1 is not allowed as nameAlg");
  }
  if (!constantTimeEqual(name, computeName(area, input.crypto))) {
    throw new StileError("ATTEST_NAME_MISMATCH", "certInfo.name: is not that of pubArea");
  }
  const { publicKey } = input.authenticatorData.attested;
  if (!constantTimeEqual(encodeSpki(area), publicKey.spki)) throw keyMismatch();
  const required = area.objectAttributes & (REQUIRED_ATTRIBUTES | TPMA_OBJECT_RESTRICTED);
  // A restricted key could not sign what a relying party asks for.
  if (required !== REQUIRED_ATTRIBUTES) {
    const message = "pubArea: expected the attributes of a signing key that stays in its TPM";
    throw new StileError("ATTEST_KEY_ATTRIBUTES_INVALID", message);
  }
}

/** §8.3.1. The version is 3 already: the parser takes no other. */
function checkAikCertificate(aik: ParsedCertificate, input: StatementInput): TpmIdentity {
  checkAttestationLeaf(aik);
  const identity = asAttestationCertificate(() => {
    if (!aik.subjectIsEmpty) throw certificateInvalid("an AIK certificate has an empty subject");
    if (readExtKeyUsage(aik)?.has(TCG_KP_AIK_CERTIFICATE) !== true) {
      throw certificateInvalid("its extKeyUsage is not that of an AIK certificate");
    }
    return readTpmIdentity(aik);
  });
  const { unregisteredTpmVendors } = input.policy;
  const isUnregistered = aik.rows.met.has("unregistered-manufacturer");
  if (isUnregistered && !unregisteredTpmVendors.includes(identity.manufacturer)) {
    throw certificateInvalid("its tpmManufacturer is not in the TCG Vendor ID Registry");
  }
  checkAaguidExtension(aik, input.authenticatorData.attested.aaguid);
  return identity;
}
