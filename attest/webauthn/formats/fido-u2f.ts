/**
 * `fido-u2f` (WebAuthn Level 3 §8.6; checklist F6): the registration response of a U2F device, signed
 * over U2F's own message in place of authenticatorData. Flags, counter and AAGUID are therefore not
 * signed: the browser made them, so an AAGUID other than zero is a lie, and user verification is never
 * more than a claim.
 */
import { concatBytes } from "../../../wire/index.ts";
import { ZERO_AAGUID } from "../authenticator-data.ts";
import { checkAttestationLeaf, parseAttestationCertificate, readX5c } from "../certificate.ts";
import { coseAlgorithm } from "../cose-key.ts";
import { algorithmNotAllowed, signatureInvalid, statementInvalid } from "../errors.ts";
import { certifiedKey, isSignedWith } from "../signature.ts";
import {
  bytesOf,
  type CertifiedStatement,
  expectMembers,
  type StatementInput,
} from "../statement.ts";

const ES256 = -7;
/** SubjectPublicKeyInfo of a P-256 key: 26 bytes before the 65 of the point. */
const P256_SPKI_BYTES = 91;

/**
 * @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_SIGNATURE_INVALID`,
 * `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`
 */
export async function verifyFidoU2fStatement(input: StatementInput): Promise<CertifiedStatement> {
  const { statement, crypto, authenticatorData, clientDataHash } = input;
  const { attested, rpIdHash } = authenticatorData;
  expectMembers(statement, ["sig", "x5c"]);
  if (attested.aaguid !== ZERO_AAGUID) throw statementInvalid("expected a zero AAGUID");
  const [der, ...issuers] = readX5c(statement.get("x5c"));
  if (issuers.length > 0) throw statementInvalid("expected x5c of one certificate");
  const leaf = parseAttestationCertificate(der);
  const { point, algorithm } = attested.publicKey;
  const isP256 = algorithm.alg === ES256 && certifiedKey(leaf).spki.length === P256_SPKI_BYTES;
  if (point === undefined || !isP256) throw algorithmNotAllowed("expected P-256 keys");
  // publicKeyU2F = 0x04 || x || y
  const publicKey = concatBytes([Uint8Array.of(0x04), point.x, point.y]);
  const verificationData = concatBytes([
    Uint8Array.of(0x00),
    rpIdHash,
    clientDataHash,
    attested.credentialId,
    publicKey,
  ]);
  const sig = bytesOf(statement, "sig");
  if (!(await isSignedWith(leaf, coseAlgorithm(ES256, false), verificationData, sig, crypto))) {
    throw signatureInvalid("fido-u2f attestation");
  }
  checkAttestationLeaf(leaf);
  return { kind: "certified", leaf, issuers };
}
