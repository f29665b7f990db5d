/**
 * Attestation results: an EAR (draft-ietf-rats-ear) as a JWT (RFC 7519), ES256, with the AR4SI
 * trustworthiness vector (draft-ietf-rats-ar4si) and the device key as confirmation key (RFC 7800).
 * Short-lived, for one attester's own token endpoint; useless without the TPM that holds the key.
 */
import type { KeyObject } from "node:crypto";
import { exportJWK, type JWK, SignJWT } from "jose";
import { StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { isJwtType, isWithinTimes, type JsonObject, verifyEs256Jws } from "./es256-jws.ts";
import {
  encodeTrustworthinessVector,
  parseTrustworthinessVector,
  statusOf,
  type TrustworthinessVector,
} from "./trustworthiness.ts";

/** A P-256 public key (RFC 7518 §6.2.1). */
export interface Es256PublicJwk {
  readonly kty: "EC";
  readonly crv: "P-256";
  readonly x: string;
  readonly y: string;
}

/** What was attested: the name of the submodule (EAR §3, RFC 9711 §4.2.18). */
export type AttestedBy = "tpm" | "webauthn";

export interface AttestationResultClaims {
  /** Default "tpm". */
  readonly attestedBy?: AttestedBy;
  /** The device's pseudonym at this attester. */
  readonly subject: string;
  readonly deviceKey: Es256PublicJwk;
  readonly trustworthiness: TrustworthinessVector;
  readonly channelBinding: "tls-exporter" | "none";
  readonly appraisalPolicyId: string;
}

export interface AttestationResultSigner {
  readonly sign: (
    claims: AttestationResultClaims,
  ) => Promise<{ readonly jwt: string; readonly expiresAtMs: number }>;
  readonly publicJwk: () => Promise<JWK>;
}

export interface AttestationResultSignerOptions {
  /** P-256. */
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly keyId: string;
  /** URL of the attester. */
  readonly issuer: string;
  readonly audience: string;
  readonly lifetimeSeconds: number;
  /** Names this run of the attester in each result; see `DpopVerifierOptions`. Without it, none is named. */
  readonly run?: string;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly verifierId: { readonly developer: string; readonly build: string };
}

const ATTESTED_BY: readonly AttestedBy[] = ["tpm", "webauthn"];
const TYPE = "eat-ear+jwt";
const EAT_PROFILE = "tag:github.com,2023:veraison/ear";
/** Names of our own claims have a collision-resistant form (RFC 7519 §4.2). */
const CHANNEL_BINDING_CLAIM = "urn:stile:channel-binding";
const RUN_CLAIM = "urn:stile:run";
/** A result is about 1,100 characters. */
const MAX_JWT_CHARS = 4_096;
/** Base64url of 32 bytes. */
const COORDINATE = /^[A-Za-z0-9_-]{43}$/;

export function createAttestationResultSigner(
  options: AttestationResultSignerOptions,
): AttestationResultSigner {
  return {
    sign: async (claims) => {
      const issuedAt = Math.floor(options.clock() / 1_000);
      const expiresAt = issuedAt + options.lifetimeSeconds;
      const jwt = await new SignJWT(payloadOf(options, claims))
        .setProtectedHeader({ alg: "ES256", typ: TYPE, kid: options.keyId })
        .setIssuer(options.issuer)
        .setAudience(options.audience)
        .setSubject(claims.subject)
        .setIssuedAt(issuedAt)
        .setExpirationTime(expiresAt)
        .sign(options.privateKey);
      return { jwt, expiresAtMs: expiresAt * 1_000 };
    },
    publicJwk: async () => ({
      ...(await exportJWK(options.publicKey)),
      kid: options.keyId,
      alg: "ES256",
      use: "sig",
    }),
  };
}

function payloadOf(
  options: AttestationResultSignerOptions,
  claims: AttestationResultClaims,
): Record<string, unknown> {
  const vector = claims.trustworthiness;
  return {
    eat_profile: EAT_PROFILE,
    "ear.verifier-id": options.verifierId,
    cnf: { jwk: claims.deviceKey },
    [CHANNEL_BINDING_CLAIM]: claims.channelBinding,
    ...(options.run === undefined ? {} : { [RUN_CLAIM]: options.run }),
    submods: {
      [claims.attestedBy ?? "tpm"]: {
        "ear.status": statusOf(vector),
        "ear.appraisal-policy-id": claims.appraisalPolicyId,
        "ear.trustworthiness-vector": encodeTrustworthinessVector(vector),
      },
    },
  };
}

/** What the token endpoint may believe of a result. */
export interface VerifiedAttestationResult {
  readonly kind: "verified-attestation-result";
  readonly attestedBy: AttestedBy;
  readonly subject: string;
  readonly deviceKey: Es256PublicJwk;
  readonly channelBinding: "tls-exporter" | "none";
  readonly trustworthiness: TrustworthinessVector;
  /** The run of the attester that made it, where it says so. */
  readonly run?: string;
}

export interface AttestationResultVerifier {
  /** @throws `ATTEST_RESULT_INVALID`, whatever is wrong: why is nobody's business but ours */
  readonly verify: (jwt: string) => Promise<VerifiedAttestationResult>;
}

export interface AttestationResultVerifierOptions {
  readonly crypto: AttestCrypto;
  /** P-256. */
  readonly publicKey: KeyObject;
  readonly issuer: string;
  readonly audience: string;
  readonly clock: () => number;
}

interface Believed {
  readonly result: VerifiedAttestationResult;
  readonly expiresAtMs: number;
}

/** Results that are remembered, since a device uses one for many requests. About 3 kB each. */
const MAX_REMEMBERED = 4_096;

export function createAttestationResultVerifier(
  options: AttestationResultVerifierOptions,
): AttestationResultVerifier {
  const spki = Uint8Array.from(options.publicKey.export({ format: "der", type: "spki" }));
  /** Oldest first. Only what has verified is in it, by every letter of its text. */
  const remembered = new Map<string, Believed>();

  function remember(jwt: string, believed: Believed): void {
    const oldest = remembered.keys().next();
    if (remembered.size >= MAX_REMEMBERED && !oldest.done) remembered.delete(oldest.value);
    remembered.set(jwt, believed);
  }

  return {
    verify: async (jwt) => {
      if (jwt.length > MAX_JWT_CHARS) throw invalid();
      const known = remembered.get(jwt);
      if (known !== undefined && known.expiresAtMs > options.clock()) return known.result;
      remembered.delete(jwt);
      const payload = await verifiedPayload(options, spki, jwt);
      const believed = { result: resultOf(payload), expiresAtMs: Number(payload["exp"]) * 1_000 };
      remember(jwt, believed);
      return believed.result;
    },
  };
}

function resultOf(payload: JsonObject): VerifiedAttestationResult {
  const { cnf, submods, sub } = payload;
  const { [CHANNEL_BINDING_CLAIM]: channelBinding, [RUN_CLAIM]: run } = payload;
  const attestedBy = onlySubmodule(submods);
  const trustworthiness = affirmingVector(field(submods, attestedBy ?? ""));
  if (
    typeof sub !== "string" ||
    payload["eat_profile"] !== EAT_PROFILE ||
    attestedBy === undefined ||
    trustworthiness === undefined ||
    (channelBinding !== "tls-exporter" && channelBinding !== "none")
  ) {
    throw invalid();
  }
  return {
    kind: "verified-attestation-result",
    attestedBy,
    subject: sub,
    deviceKey: confirmationKey(cnf),
    channelBinding,
    trustworthiness,
    ...(typeof run === "string" ? { run } : {}),
  };
}

const REQUIRED_CLAIMS = ["sub", "exp", "iat", "cnf"] as const;

async function verifiedPayload(
  { audience, clock, crypto, issuer }: AttestationResultVerifierOptions,
  spki: Uint8Array,
  jwt: string,
): Promise<JsonObject> {
  try {
    const { header, payload } = await verifyEs256Jws(crypto, jwt, () => spki);
    if (!isJwtType(header["typ"], TYPE)) throw new Error("expected another type");
    if (payload["iss"] !== issuer) throw new Error("expected another issuer");
    if (payload["aud"] !== audience) throw new Error("expected another audience");
    if (REQUIRED_CLAIMS.some((claim) => payload[claim] === undefined)) {
      throw new Error("a claim is missing");
    }
    if (!isWithinTimes(payload, clock())) throw new Error("it has ended, or not begun");
    return payload;
  } catch (cause) {
    throw invalid(cause);
  }
}

/** One appraisal, of a kind that is known: of two, the better would have to be ignored. */
function onlySubmodule(submods: unknown): AttestedBy | undefined {
  if (typeof submods !== "object" || submods === null) return undefined;
  const [name, ...others] = Object.keys(submods);
  if (others.length > 0) return undefined;
  return ATTESTED_BY.find((known) => known === name);
}

/** The vector of an appraisal that affirms, by its status and by its claims; else undefined. */
function affirmingVector(appraisal: unknown): TrustworthinessVector | undefined {
  const vector = parseTrustworthinessVector(field(appraisal, "ear.trustworthiness-vector"));
  const affirms = vector !== undefined && statusOf(vector) === "affirming";
  return affirms && field(appraisal, "ear.status") === "affirming" ? vector : undefined;
}

function confirmationKey(cnf: unknown): Es256PublicJwk {
  const jwk = field(cnf, "jwk");
  const key = es256PublicJwk(jwk);
  if (key === undefined) throw invalid();
  return key;
}

/** The P-256 public key in a JWK of exactly its four members, or undefined. */
export function es256PublicJwk(jwk: unknown): Es256PublicJwk | undefined {
  if (typeof jwk !== "object" || jwk === null || Object.keys(jwk).length !== 4) return undefined;
  const [x, y] = [field(jwk, "x"), field(jwk, "y")];
  if (field(jwk, "kty") !== "EC" || field(jwk, "crv") !== "P-256") return undefined;
  if (typeof x !== "string" || typeof y !== "string") return undefined;
  if (!COORDINATE.test(x) || !COORDINATE.test(y)) return undefined;
  return { kty: "EC", crv: "P-256", x, y };
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Readonly<Record<string, unknown>>)[name];
}

function invalid(cause?: unknown): StileError {
  return new StileError("ATTEST_RESULT_INVALID", "the attestation result is not valid here", {
    cause,
  });
}
