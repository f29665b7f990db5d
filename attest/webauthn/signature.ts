/**
 * Signatures of authenticators and of certificates: from the forms of WebAuthn Level 3 §6.5.5 and
 * X.509 to the one that the engine takes. An ECDSA signature is a DER Ecdsa-Sig-Value (RFC 3279 §2.2.3)
 * in one spelling; the algorithm comes from a list and must go with the key (checklist A5, D1).
 */
import { concatBytes } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { type CertifiedKey, readCertifiedKey } from "../ek/algorithms.ts";
import type { ParsedCertificate } from "../ek/certificate.ts";
import {
  children,
  type DerValue,
  expectTag,
  parseDer,
  readOid,
  readPositiveInteger,
  TAG,
} from "../ek/der.ts";
import type { HashName } from "../structures/constants.ts";
import { leftPadded } from "../structures/spki.ts";
import type { CoseAlgorithm, CoseKey } from "./cose-key.ts";
import { algorithmNotAllowed, asAttestationCertificate } from "./errors.ts";

/** Named curve to the bytes of a coordinate. */
const CURVE_BYTES: ReadonlyMap<string, number> = new Map([
  ["1.2.840.10045.3.1.7", 32],
  ["1.3.132.0.34", 48],
  ["1.3.132.0.35", 66],
]);

/** RFC 8017 appendix A, RFC 5758: what a certificate may be signed with. */
const CERTIFICATE_ALGORITHMS: ReadonlyMap<string, { type: "rsa" | "ecc"; hash: HashName }> =
  new Map([
    ["1.2.840.113549.1.1.11", { type: "rsa", hash: "sha256" }],
    ["1.2.840.113549.1.1.12", { type: "rsa", hash: "sha384" }],
    ["1.2.840.113549.1.1.13", { type: "rsa", hash: "sha512" }],
    ["1.2.840.10045.4.3.2", { type: "ecc", hash: "sha256" }],
    ["1.2.840.10045.4.3.3", { type: "ecc", hash: "sha384" }],
    ["1.2.840.10045.4.3.4", { type: "ecc", hash: "sha512" }],
  ]);

/** The key of a certificate, of a type and size on the list. @throws `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_WEBAUTHN_CERTIFICATE_INVALID` */
export function certifiedKey(certificate: ParsedCertificate): CertifiedKey {
  return asAttestationCertificate(() => readCertifiedKey(certificate.spki));
}

/**
 * Whether `signature` of the form of §6.5.5 verifies over `message` under the key of a certificate.
 * False, not an error, for a signature that is malformed.
 * @throws `ATTEST_ALGORITHM_NOT_ALLOWED` where the algorithm does not go with the key
 */
export function isSignedWith(
  certificate: ParsedCertificate,
  algorithm: CoseAlgorithm,
  message: Uint8Array,
  signature: Uint8Array,
  crypto: AttestCrypto,
): Promise<boolean> {
  const isEcdsa = algorithm.scheme === "ECDSA";
  const raw = (width: number): Uint8Array | undefined =>
    isEcdsa ? rawEcdsa(signature, width) : signature;
  return isSignedWithRaw(certificate, algorithm, message, raw, crypto);
}

/**
 * As {@link isSignedWith}, for another form of the signature.
 * @param raw the signature as the engine takes it, by the bytes of a coordinate of the key's curve
 */
export async function isSignedWithRaw(
  certificate: ParsedCertificate,
  { scheme, hash }: CoseAlgorithm,
  message: Uint8Array,
  raw: (width: number) => Uint8Array | undefined,
  crypto: AttestCrypto,
): Promise<boolean> {
  const { type, spki } = certifiedKey(certificate);
  const family = scheme === "ECDSA" ? "ecc" : scheme === "Ed25519" ? undefined : "rsa";
  if (type !== family) throw algorithmNotAllowed("an algorithm that does not go with the key");
  const signature = raw(type === "ecc" ? curveBytes(spki) : 0);
  if (signature === undefined) return false;
  return crypto.verifySignature({ spki, scheme, hash, message, signature });
}

/**
 * Whether a signature of the form of §6.5.5 verifies over `message` under a credential key.
 * False, not an error, for a signature that is malformed.
 */
export async function isSignedByCredential(
  key: CoseKey,
  message: Uint8Array,
  signature: Uint8Array,
  crypto: AttestCrypto,
): Promise<boolean> {
  const { spki, algorithm, point } = key;
  const raw = point === undefined ? signature : rawEcdsa(signature, point.x.length);
  if (raw === undefined) return false;
  const { scheme, hash } = algorithm;
  return crypto.verifySignature({ spki, scheme, hash, message, signature: raw });
}

/** Whether the key of `issuer` made the signature of `subject`. Fails closed. */
export async function isIssuedBy(
  subject: ParsedCertificate,
  issuer: ParsedCertificate,
  crypto: AttestCrypto,
): Promise<boolean> {
  const [oid] = children(subject.signatureAlgorithm);
  const algorithm = CERTIFICATE_ALGORITHMS.get(readOid(expectTag(oid, TAG.OBJECT_IDENTIFIER)));
  const { type, spki } = certifiedKey(issuer);
  if (algorithm === undefined || algorithm.type !== type) return false;
  const [tbsCertificate] = children(parseDer(subject.der, TAG.SEQUENCE));
  const message = expectTag(tbsCertificate, TAG.SEQUENCE).raw;
  const scheme = type === "ecc" ? "ECDSA" : "RSASSA-PKCS1-v1_5";
  const { signatureValue } = subject;
  const signature = type === "ecc" ? rawEcdsa(signatureValue, curveBytes(spki)) : signatureValue;
  if (signature === undefined) return false;
  const { hash } = algorithm;
  return crypto.verifySignature({ spki, scheme, hash, message, signature });
}

/**
 * R || S of a DER Ecdsa-Sig-Value, or undefined where it is not one.
 * @param width bytes of a coordinate of the key's curve
 */
export function rawEcdsa(signature: Uint8Array, width: number): Uint8Array | undefined {
  try {
    const numbers = children(parseDer(signature, TAG.SEQUENCE)).map((part: DerValue) =>
      leftPadded(readPositiveInteger(expectTag(part, TAG.INTEGER)), width),
    );
    return numbers.length === 2 ? concatBytes(numbers) : undefined;
  } catch {
    // A hostile signature that cannot be read verifies nothing.
    return undefined;
  }
}

/** @param spki of an EC key that {@link certifiedKey} accepted */
function curveBytes(spki: Uint8Array): number {
  const [identifier] = children(parseDer(spki, TAG.SEQUENCE));
  const [, curve] = children(expectTag(identifier, TAG.SEQUENCE));
  return CURVE_BYTES.get(readOid(expectTag(curve, TAG.OBJECT_IDENTIFIER))) ?? 0;
}
