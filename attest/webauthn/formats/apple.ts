/**
 * `apple` anonymous attestation (WebAuthn Level 3 §8.8; checklist F6): Apple's CA issues one certificate
 * per credential, whose extension holds the nonce of the ceremony. There is no signature by the
 * credential key: the certificate is the statement.
 */
import { concatBytes, constantTimeEqual, StileError } from "../../../wire/index.ts";
import type { ParsedCertificate } from "../../ek/certificate.ts";
import { children, contextTag, expectTag, parseDer, TAG } from "../../ek/der.ts";
import { checkAttestationLeaf, parseAttestationCertificate, readX5c } from "../certificate.ts";
import { asAttestationCertificate, certificateInvalid } from "../errors.ts";
import {
  attestedBytes,
  type CertifiedStatement,
  checkCredentialKey,
  expectMembers,
  type StatementInput,
} from "../statement.ts";

/** AppleAnonymousAttestation ::= SEQUENCE { nonce [1] OCTET STRING } */
const NONCE_EXTENSION = "1.2.840.113635.100.8.2";

/** @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID`, `ATTEST_NONCE_MISMATCH`, `ATTEST_WEBAUTHN_KEY_MISMATCH`, `ATTEST_WEBAUTHN_CERTIFICATE_INVALID` */
export function verifyAppleStatement(input: StatementInput): CertifiedStatement {
  const { statement } = input;
  // Apple's first devices sent an alg, which nothing depends on.
  expectMembers(statement, statement.has("alg") ? ["alg", "x5c"] : ["x5c"]);
  const [der, ...issuers] = readX5c(statement.get("x5c"));
  const leaf = parseAttestationCertificate(der);
  const nonce = input.crypto.hash("sha256", attestedBytes(input));
  if (!constantTimeEqual(readNonce(leaf), nonce)) {
    throw new StileError("ATTEST_NONCE_MISMATCH", "apple nonce: is for another ceremony");
  }
  checkCredentialKey(leaf, input);
  checkAttestationLeaf(leaf);
  return { kind: "certified", leaf, issuers };
}

function readNonce(leaf: ParsedCertificate): Uint8Array {
  const extension = leaf.extensions.get(NONCE_EXTENSION);
  if (extension === undefined) throw certificateInvalid("no nonce extension");
  return asAttestationCertificate(() => {
    const [field, ...rest] = children(parseDer(extension.value, TAG.SEQUENCE));
    const [nonce, ...more] = children(expectTag(field, contextTag(1)));
    const { content } = expectTag(nonce, TAG.OCTET_STRING);
    if (rest.length > 0 || more.length > 0) throw certificateInvalid("malformed nonce extension");
    return concatBytes([content]);
  });
}
