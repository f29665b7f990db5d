/**
 * What every attestation statement format has in common (WebAuthn Level 3 §6.5.4): its input, what it
 * shows when it verifies, and the checks that several formats share. A verified statement says that a
 * key signed; whose key it is, the path and the policy find out.
 */
import { concatBytes, constantTimeEqual, decodeHex } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { certifiedKey } from "./signature.ts";
import type { ParsedCertificate } from "../ek/certificate.ts";
import { parseDer, TAG } from "../ek/der.ts";
import type { RegistrationAuthenticatorData } from "./authenticator-data.ts";
import type { CborMap } from "./cbor.ts";
import {
  asAttestationCertificate,
  certificateInvalid,
  keyMismatch,
  statementInvalid,
} from "./errors.ts";
import type { AndroidSecurityLevel, WebAuthnPolicy } from "./policy.ts";

export interface StatementInput {
  /** attStmt; hostile. */
  readonly statement: CborMap;
  readonly authenticatorData: RegistrationAuthenticatorData;
  /** SHA-256 of clientDataJSON. */
  readonly clientDataHash: Uint8Array;
  readonly policy: WebAuthnPolicy;
  readonly crypto: AttestCrypto;
}

/** Of which maker and kind, as the attestation certificate says. */
export interface AttestationDetail {
  readonly tpm?: {
    readonly manufacturer: string;
    readonly model: string;
    readonly version: string;
  };
  readonly android?: { readonly securityLevel: AndroidSecurityLevel };
}

/** The statement is signed by the key of `leaf`, for this credential and ceremony. */
export interface CertifiedStatement extends AttestationDetail {
  readonly kind: "certified";
  readonly leaf: ParsedCertificate;
  /** DER; not looked at yet. */
  readonly issuers: readonly Uint8Array[];
  /** Key purpose that issuers with an extKeyUsage must have. */
  readonly purpose?: string;
}

export type Statement = CertifiedStatement | { readonly kind: "self" } | { readonly kind: "none" };

/** authenticatorData || clientDataHash: what `packed`, `tpm`, `android-key` and `apple` attest to. */
export function attestedBytes(input: StatementInput): Uint8Array {
  return concatBytes([input.authenticatorData.raw, input.clientDataHash]);
}

/** Exactly these members: an unknown one could change what the statement means. @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID` */
export function expectMembers(statement: CborMap, names: readonly string[]): void {
  const isExact = statement.size === names.length && names.every((name) => statement.has(name));
  if (!isExact) throw statementInvalid(`expected the members ${names.join(", ")}`);
}

/** @throws `ATTEST_WEBAUTHN_STATEMENT_INVALID` */
export function bytesOf(statement: CborMap, name: string): Uint8Array {
  const value = statement.get(name);
  if (!(value instanceof Uint8Array)) throw statementInvalid(`expected ${name} as a byte string`);
  return value;
}

/** The certificate is for the credential key itself. @throws `ATTEST_WEBAUTHN_KEY_MISMATCH` */
export function checkCredentialKey(leaf: ParsedCertificate, input: StatementInput): void {
  const { spki } = certifiedKey(leaf);
  if (!constantTimeEqual(spki, input.authenticatorData.attested.publicKey.spki))
    throw keyMismatch();
}

/** id-fido-gen-ce-aaguid (WebAuthn §8.2.1). */
const ID_FIDO_GEN_CE_AAGUID = "1.3.6.1.4.1.45724.1.1.4";

/** Where the certificate names a model, it is that of authenticatorData. @throws `ATTEST_WEBAUTHN_CERTIFICATE_INVALID` */
export function checkAaguidExtension(leaf: ParsedCertificate, aaguid: string): void {
  const extension = leaf.extensions.get(ID_FIDO_GEN_CE_AAGUID);
  if (extension === undefined) return;
  const { content } = asAttestationCertificate(() => parseDer(extension.value, TAG.OCTET_STRING));
  const claimed = decodeHex(aaguid.replaceAll("-", ""));
  if (extension.critical || !constantTimeEqual(content, claimed)) {
    throw certificateInvalid("the aaguid extension is critical or of another model");
  }
}
