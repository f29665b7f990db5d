/**
 * Credential public keys as COSE_Key (RFC 9052 §7, RFC 9053 §7, WebAuthn Level 3 §5.8.5 and §6.5.1.1).
 * One form per key: the members of its type and no others, in the canonical order of CTAP 2.1 §8.
 * Whether an EC point is on its curve is found out by the engine that imports it (B4).
 */
import { StileError } from "../../wire/index.ts";
import type { SignatureScheme } from "../crypto.ts";
import { hasRocaFingerprint } from "../keys/roca.ts";
import type { HashName } from "../structures/constants.ts";
import { encodeEcSpki, encodeEd25519Spki, encodeRsaSpki } from "../structures/spki.ts";
import { bytesMember, type CborMap, cborInvalid } from "./cbor.ts";
import { algorithmNotAllowed } from "./errors.ts";

const COSE_KEY = "credentialPublicKey";

/** A COSEAlgorithmIdentifier of a signature: what it means and which keys it goes with. */
export interface CoseAlgorithm {
  readonly alg: number;
  readonly scheme: SignatureScheme;
  readonly hash: HashName;
  /** WebAuthn §5.8.5 fixes the curve of each ECDSA algorithm in a credential key. */
  readonly curve?: "P-256" | "P-384";
}

/** IANA COSE Algorithms. SHA-1 is read so that a policy can name it. */
const COSE_ALGORITHMS: readonly CoseAlgorithm[] = [
  { alg: -7, scheme: "ECDSA", hash: "sha256", curve: "P-256" },
  { alg: -35, scheme: "ECDSA", hash: "sha384", curve: "P-384" },
  { alg: -8, scheme: "Ed25519", hash: "sha512" },
  { alg: -257, scheme: "RSASSA-PKCS1-v1_5", hash: "sha256" },
  { alg: -258, scheme: "RSASSA-PKCS1-v1_5", hash: "sha384" },
  { alg: -259, scheme: "RSASSA-PKCS1-v1_5", hash: "sha512" },
  { alg: -37, scheme: "RSASSA-PSS", hash: "sha256" },
  { alg: -65535, scheme: "RSASSA-PKCS1-v1_5", hash: "sha1" },
];

/** @throws `ATTEST_ALGORITHM_NOT_ALLOWED` also for SHA-1 unless it is named (D12) */
export function coseAlgorithm(alg: unknown, allowSha1: boolean): CoseAlgorithm {
  const row = COSE_ALGORITHMS.find((candidate) => candidate.alg === alg);
  if (row === undefined) throw algorithmNotAllowed("a COSE algorithm that is not on the list");
  if (row.hash === "sha1" && !allowSha1) throw algorithmNotAllowed("SHA-1 is not allowed");
  return row;
}

export interface CoseKey {
  readonly algorithm: CoseAlgorithm;
  readonly type: "ec2" | "rsa" | "okp";
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  /** EC2: the point. */
  readonly point?: { readonly x: Uint8Array; readonly y: Uint8Array };
}

/** RFC 9052 §7.1, RFC 9053 §7.1.1, RFC 8230 §4: labels. */
const LABEL = { kty: 1, alg: 3, crv: -1, x: -2, y: -3, n: -1, e: -2 } as const;
const KTY = { okp: 1, ec2: 2, rsa: 3 } as const;
const CRV = { "P-256": 1, "P-384": 2, Ed25519: 6 } as const;
const COORDINATE_BYTES = { "P-256": 32, "P-384": 48 } as const;
const MIN_RSA_BYTES = 256;
const MAX_RSA_BYTES = 512;
/** 65537: RFC 8230 §4 wants the shortest form. */
const RSA_EXPONENT = 65_537;

/** @throws `ATTEST_WEBAUTHN_CBOR_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_KEY_WEAK` */
export function readCoseKey(map: CborMap, allowSha1: boolean): CoseKey {
  const algorithm = coseAlgorithm(map.get(LABEL.alg), allowSha1);
  if (algorithm.scheme === "ECDSA") return readEc2(map, algorithm);
  if (algorithm.scheme === "Ed25519") return readOkp(map, algorithm);
  return readRsa(map, algorithm);
}

function readEc2(map: CborMap, algorithm: CoseAlgorithm): CoseKey {
  expectMembers(map, KTY.ec2, [LABEL.kty, LABEL.alg, LABEL.crv, LABEL.x, LABEL.y]);
  const { curve } = algorithm;
  if (curve === undefined || map.get(LABEL.crv) !== CRV[curve]) {
    throw algorithmNotAllowed("a curve that does not go with the algorithm");
  }
  const x = bytesMember(map, LABEL.x, COSE_KEY);
  const y = bytesMember(map, LABEL.y, COSE_KEY);
  const width = COORDINATE_BYTES[curve];
  if (x.length !== width || y.length !== width) throw cborInvalid(COSE_KEY, "coordinate length");
  return { algorithm, type: "ec2", spki: encodeEcSpki(curve, x, y), point: { x, y } };
}

function readOkp(map: CborMap, algorithm: CoseAlgorithm): CoseKey {
  expectMembers(map, KTY.okp, [LABEL.kty, LABEL.alg, LABEL.crv, LABEL.x]);
  if (map.get(LABEL.crv) !== CRV.Ed25519) throw algorithmNotAllowed("a curve other than Ed25519");
  const x = bytesMember(map, LABEL.x, COSE_KEY);
  if (x.length !== 32) throw cborInvalid(COSE_KEY, "key length");
  return { algorithm, type: "okp", spki: encodeEd25519Spki(x) };
}

function readRsa(map: CborMap, algorithm: CoseAlgorithm): CoseKey {
  expectMembers(map, KTY.rsa, [LABEL.kty, LABEL.alg, LABEL.n, LABEL.e]);
  const n = bytesMember(map, LABEL.n, COSE_KEY);
  const e = bytesMember(map, LABEL.e, COSE_KEY);
  // RFC 8230 §4: unsigned without leading zeros; an even modulus or another size is no RSA key of a device.
  const fits =
    n.length >= MIN_RSA_BYTES &&
    n.length <= MAX_RSA_BYTES &&
    (n[0] ?? 0) >= 0x80 &&
    ((n.at(-1) ?? 0) & 1) === 1;
  const isDefault = e.length === 3 && e[0] === 1 && e[1] === 0 && e[2] === 1;
  if (!fits || !isDefault) throw algorithmNotAllowed("an RSA key of an unfit size or exponent");
  // A10: Infineon's flawed generator was in TPMs and in U2F and FIDO2 devices alike.
  if (hasRocaFingerprint(n)) {
    throw new StileError("ATTEST_KEY_WEAK", "credentialPublicKey: has the ROCA fingerprint");
  }
  return { algorithm, type: "rsa", spki: encodeRsaSpki(n, RSA_EXPONENT) };
}

function expectMembers(map: CborMap, kty: number, labels: readonly number[]): void {
  if (map.get(LABEL.kty) !== kty) throw cborInvalid(COSE_KEY, "kty does not go with alg");
  const keys = [...map.keys()];
  const isExact = keys.length === labels.length && labels.every((label, i) => keys[i] === label);
  if (!isExact) throw cborInvalid(COSE_KEY, "expected the members of its type in canonical order");
}
