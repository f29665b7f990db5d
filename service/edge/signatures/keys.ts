/**
 * Keys of agents (JWK, RFC 7517) and what verifies with them (RFC 9421 §3.3). The key's type decides the
 * algorithm, never the message. A file with a private key in it is refused: it lies where it must not.
 */
import { constants, createHash, createPublicKey, type KeyObject, verify } from "node:crypto";

export type SignatureAlgorithm = "ed25519" | "ecdsa-p256-sha256" | "rsa-pss-sha512";

export interface AgentKey {
  readonly algorithm: SignatureAlgorithm;
  /** What a signature may name it by: its thumbprint (RFC 7638), and the JWK's kid. */
  readonly ids: readonly string[];
  readonly verify: (base: Uint8Array, signature: Uint8Array) => boolean;
}

const MAX_KEYS = 64;
const MIN_RSA_BITS = 2_048;
/** A larger one costs its verifier more than its signer. */
const MAX_RSA_BITS = 4_096;
const P256_SIGNATURE_BYTES = 64;
/** RFC 9421 §3.3.1. */
const PSS_SALT_BYTES = 64;
const MEMBERS: Readonly<Record<string, readonly string[]>> = {
  EC: ["crv", "kty", "x", "y"],
  OKP: ["crv", "kty", "x"],
  RSA: ["e", "kty", "n"],
};
const JWK_ALGORITHMS: Readonly<Record<SignatureAlgorithm, readonly string[]>> = {
  ed25519: ["EdDSA", "Ed25519"],
  "ecdsa-p256-sha256": ["ES256"],
  "rsa-pss-sha512": ["PS512"],
};
/** Thumbprints of the keys in RFC 9421 appendix B.1: everybody has their private halves. */
const PUBLISHED: ReadonlySet<string> = new Set([
  "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U",
  "oD0HwocPBSfpNy5W3bpJeyFGY_IQ_YpqxSjQ3Yd-CLA",
  "BHj8s0GPnMEQtkaULIM-PLgEhLBbuGUQ1vMxmBWZzEo",
  "ydQXMtvbsOsZyFir-Y7A8t7fKEM1gbKPvyFkdpu4fvI",
]);

/** @param text JWK set. @throws Error that says what is wrong, and nothing of the file's content */
export function readAgentKeys(text: string): readonly AgentKey[] {
  const set: unknown = JSON.parse(text);
  const keys: unknown = isRecord(set) ? set["keys"] : undefined;
  if (!Array.isArray(keys) || keys.length === 0 || keys.length > MAX_KEYS) {
    throw new Error(`expected a JWK set with 1 to ${MAX_KEYS} keys`);
  }
  const read = keys.map((jwk: unknown) => readAgentKey(jwk));
  if (read.some(({ ids }) => ids.some((id) => PUBLISHED.has(id)))) {
    throw new Error("a key is one of RFC 9421's examples");
  }
  return read;
}

/** @throws Error */
export function readAgentKey(jwk: unknown): AgentKey {
  if (!isRecord(jwk) || "d" in jwk || "k" in jwk) throw new Error("a key is not a public JWK");
  if (jwk["use"] !== undefined && jwk["use"] !== "sig")
    throw new Error("a key is not for signatures");
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const algorithm = algorithmOf(key);
  const { alg, kid } = jwk;
  const isNamed = typeof alg === "string" && JWK_ALGORITHMS[algorithm].includes(alg);
  if (alg !== undefined && !isNamed) {
    throw new Error("a key has another algorithm than its type");
  }
  const ids = [thumbprintOf(key), ...(typeof kid === "string" ? [kid] : [])];
  return {
    algorithm,
    ids: [...new Set(ids)],
    verify: (base, signature) => VERIFY[algorithm](key, base, signature),
  };
}

function algorithmOf({ asymmetricKeyDetails, asymmetricKeyType }: KeyObject): SignatureAlgorithm {
  if (asymmetricKeyType === "ed25519") return "ed25519";
  const { modulusLength = 0, namedCurve, publicExponent = 0n } = asymmetricKeyDetails ?? {};
  if (asymmetricKeyType === "ec" && namedCurve === "prime256v1") return "ecdsa-p256-sha256";
  const isSized = modulusLength >= MIN_RSA_BITS && modulusLength <= MAX_RSA_BITS;
  // Under 1 everything is its own signature.
  if (asymmetricKeyType === "rsa" && isSized && publicExponent >= 65_537n) return "rsa-pss-sha512";
  throw new Error("a key is not Ed25519, P-256 or RSA of 2048 to 4096 bits");
}

type Verify = (key: KeyObject, base: Uint8Array, signature: Uint8Array) => boolean;

const VERIFY: Readonly<Record<SignatureAlgorithm, Verify>> = {
  ed25519: (key, base, signature) => verify(null, base, key, signature),
  "ecdsa-p256-sha256": (key, base, signature) =>
    signature.length === P256_SIGNATURE_BYTES &&
    verify("sha256", base, { key, dsaEncoding: "ieee-p1363" }, signature),
  "rsa-pss-sha512": (key, base, signature) => {
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    return verify("sha512", base, { key, padding, saltLength: PSS_SALT_BYTES }, signature);
  },
};

/** RFC 7638: the required members in their order. */
function thumbprintOf(key: KeyObject): string {
  const jwk = new Map(Object.entries(key.export({ format: "jwk" })));
  const names = MEMBERS[String(jwk.get("kty"))] ?? [];
  const members = names.map((name) => [name, jwk.get(name)] as const);
  return createHash("sha256")
    .update(JSON.stringify(Object.fromEntries(members)))
    .digest("base64url");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
