/**
 * `packed` (WebAuthn Level 3 §8.2; checklist F4): signed over authenticatorData || clientDataHash with
 * an attestation key that x5c certifies, or with the credential key itself (self attestation).
 * ECDAA is gone from Level 3 and refused.
 */
import type { ParsedCertificate } from "../../ek/certificate.ts";
import { children, expectTag, parseDer, readOid, TAG } from "../../ek/der.ts";
import { checkAttestationLeaf, parseAttestationCertificate, readX5c } from "../certificate.ts";
import { coseAlgorithm } from "../cose-key.ts";
import { asAttestationCertificate, certificateInvalid, signatureInvalid } from "../errors.ts";
import { isSignedByCredential, isSignedWith } from "../signature.ts";
import {
  attestedBytes,
  bytesOf,
  checkAaguidExtension,
  expectMembers,
  type Statement,
  type StatementInput,
} from "../statement.ts";
import { algorithmNotAllowed } from "../errors.ts";

/**
 * @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_SIGNATURE_INVALID`,
 * `ATTEST_WEBAUTHN_CERTIFICATE_INVALID`
 */
export async function verifyPackedStatement(input: StatementInput): Promise<Statement> {
  const { statement, crypto, authenticatorData } = input;
  if (!statement.has("x5c")) return verifySelf(input);
  expectMembers(statement, ["alg", "sig", "x5c"]);
  const algorithm = coseAlgorithm(statement.get("alg"), false);
  const [der, ...issuers] = readX5c(statement.get("x5c"));
  const leaf = parseAttestationCertificate(der);
  const sig = bytesOf(statement, "sig");
  if (!(await isSignedWith(leaf, algorithm, attestedBytes(input), sig, crypto))) {
    throw signatureInvalid("packed attestation");
  }
  checkAttestationLeaf(leaf);
  checkSubject(leaf);
  checkAaguidExtension(leaf, authenticatorData.attested.aaguid);
  return { kind: "certified", leaf, issuers };
}

async function verifySelf(input: StatementInput): Promise<Statement> {
  const { statement, crypto } = input;
  expectMembers(statement, ["alg", "sig"]);
  const { publicKey } = input.authenticatorData.attested;
  if (statement.get("alg") !== publicKey.algorithm.alg) {
    throw algorithmNotAllowed("self attestation with another algorithm than the credential's");
  }
  const sig = bytesOf(statement, "sig");
  if (!(await isSignedByCredential(publicKey, attestedBytes(input), sig, crypto))) {
    throw signatureInvalid("self attestation");
  }
  return { kind: "self" };
}

/** X.520: countryName, organizationName, organizationalUnitName, commonName. */
const NAME = { c: "2.5.4.6", o: "2.5.4.10", ou: "2.5.4.11", cn: "2.5.4.3" } as const;
const PRINTABLE_STRING = 0x13;

/** §8.2.1: C as ISO 3166, O, OU exactly "Authenticator Attestation", CN. */
function checkSubject(leaf: ParsedCertificate): void {
  const names = asAttestationCertificate(() => readSubject(leaf));
  const isFit =
    /^[A-Z]{2}$/.test(names.get(NAME.c) ?? "") &&
    (names.get(NAME.o) ?? "") !== "" &&
    names.get(NAME.ou) === "Authenticator Attestation" &&
    (names.get(NAME.cn) ?? "") !== "";
  if (!isFit) throw certificateInvalid("its subject is not that of an authenticator");
}

function readSubject(leaf: ParsedCertificate): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const rdn of children(parseDer(leaf.subject, TAG.SEQUENCE))) {
    for (const attribute of children(expectTag(rdn, TAG.SET))) {
      const [type, value] = children(expectTag(attribute, TAG.SEQUENCE));
      const oid = readOid(expectTag(type, TAG.OBJECT_IDENTIFIER));
      if (names.has(oid)) throw certificateInvalid("a name of its subject twice");
      const isText = value?.tag === TAG.UTF8_STRING || value?.tag === PRINTABLE_STRING;
      // Text that is not ASCII cannot equal what is asked for, and is not reported either.
      names.set(oid, isText ? String.fromCharCode(...value.content.subarray(0, 128)) : "");
    }
  }
  return names;
}
