/**
 * DPoP proofs (RFC 9449): whoever uses an attestation result shows, for each request anew, that it has
 * the device key the result confirms. Checked by §4.3, step by step; ES256 only, as the key is. What keeps a
 * proof from being used twice is in `dpop-memory.ts`.
 */
import { decodeBase64Url, encodeBase64Url, encodeUtf8, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { encodeEcSpki } from "../structures/spki.ts";
import { createDpopMemory } from "./dpop-memory.ts";
import { type Es256PublicJwk, es256PublicJwk } from "./attestation-result.ts";
import { isJwtType, isWithinTimes, type JsonObject, verifyEs256Jws } from "./es256-jws.ts";

export interface DpopVerifierOptions {
  readonly crypto: AttestCrypto;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** Milliseconds of a clock that never jumps: what was used is remembered by it. */
  readonly monotonicMs: () => number;
  readonly random: (length: number) => Uint8Array;
  /** Names this run of the attester, as its results do: drawn at its start, never used again. */
  readonly run: string;
  /** How far `iat` may lie from now, both ways, in seconds. Default 60. */
  readonly maxAgeSeconds?: number;
  /** Proofs that are remembered; when full, new ones are refused rather than old ones forgotten. */
  readonly maxRemembered?: number;
}

export interface DpopCheck {
  /** The only `DPoP` header of the request; undefined where there is none or more than one. */
  readonly proof: string | undefined;
  /** The HTTP method, upper case. */
  readonly method: string;
  /** The URI of the request, without query and fragment. */
  readonly uri: string;
  /** The attestation result that came along. */
  readonly accessToken: string;
  /** The key that the result confirms. */
  readonly jwk: Es256PublicJwk;
  /** The run that made the result, by its claim. */
  readonly run: string | undefined;
}

export interface DpopVerifier {
  /** @throws `ATTEST_PROOF_INVALID`; `ATTEST_PROOF_NONCE_REQUIRED` where a proof with our nonce would do */
  readonly verify: (check: DpopCheck) => Promise<void>;
  /** RFC 9449 §8, for the next proof; good for `maxAgeSeconds` at least. */
  readonly nonce: () => string;
}

/** A proof is about 500 characters. */
const MAX_PROOF_CHARS = 2_048;
const MAX_JTI_CHARS = 128;
const DEFAULT_MAX_AGE_SECONDS = 60;
/** About 20 MB; a device needs the 2,001st proof of each second for two minutes to fill it. */
const DEFAULT_MAX_REMEMBERED = 200_000;

export function createDpopVerifier(options: DpopVerifierOptions): DpopVerifier {
  const maxAgeSeconds = options.maxAgeSeconds ?? DEFAULT_MAX_AGE_SECONDS;
  const memory = createDpopMemory({
    monotonicMs: options.monotonicMs,
    random: options.random,
    windowMs: maxAgeSeconds * 1_000,
    maxRemembered: options.maxRemembered ?? DEFAULT_MAX_REMEMBERED,
  });
  return {
    nonce: memory.nonce,
    verify: async (check) => {
      const { proof } = check;
      // 1. there is not more than one DPoP header; 2. it is one well-formed JWT
      if (proof === undefined || proof.length > MAX_PROOF_CHARS)
        throw invalid("expected one proof");
      // 3. to 7. claims are there, typ, alg, signature by the header's own public key
      const { key, payload } = await verifiedProof(options.crypto, proof);
      if (!isWithinTimes(payload, options.clock(), maxAgeSeconds)) throw invalid("it has ended");
      // 8. htm, 9. htu
      if (payload["htm"] !== check.method) throw invalid("htm is not this request's method");
      if (!isSameUri(payload["htu"], check.uri)) throw invalid("htu is not this request's URI");
      // 11. iat lies in the window
      const iat = Number(payload["iat"]);
      const ageSeconds = Math.abs(options.clock() / 1_000 - iat);
      if (!(ageSeconds <= maxAgeSeconds)) throw invalid("iat is too far from now");
      // 12. ath, and the key is the one that the result confirms
      if (payload["ath"] !== hashOf(options.crypto, check.accessToken)) {
        throw invalid("ath is not of this result");
      }
      if (key.x !== check.jwk.x || key.y !== check.jwk.y) {
        throw invalid("the key is not the one that the result confirms");
      }
      // 10. the nonce, where one is needed; §11.1: once. Last, so that only proofs of the right key are remembered
      const { jti, nonce } = payload;
      if (typeof jti !== "string" || jti.length === 0 || jti.length > MAX_JTI_CHARS) {
        throw invalid("jti is missing");
      }
      const isOfThisRun = check.run === options.run;
      memory.useOnce({ name: `${key.x} ${jti}`, iat, nonce, isOfThisRun });
    },
  };
}

/** The result in an `Authorization: DPoP …` header. @throws `ATTEST_RESULT_INVALID` */
export function parseDpopAuthorization(header: string | undefined): string {
  const token = /^dpop +(?<token>[A-Za-z0-9._~+/-]+=*) *$/i.exec(
    header !== undefined && header.length <= 8_192 ? header : "",
  )?.groups?.["token"];
  if (token === undefined) {
    throw new StileError("ATTEST_RESULT_INVALID", "expected an attestation result (DPoP scheme)");
  }
  return token;
}

interface VerifiedProof {
  /** Of the header, which has signed the proof. */
  readonly key: Es256PublicJwk;
  readonly payload: JsonObject;
}

const REQUIRED_CLAIMS = ["jti", "htm", "htu", "iat", "ath"] as const;

async function verifiedProof(crypto: AttestCrypto, proof: string): Promise<VerifiedProof> {
  try {
    const { header, payload } = await verifyEs256Jws(crypto, proof, ({ jwk }) => {
      const { x, y } = publicKey(jwk);
      return encodeEcSpki("P-256", decodeBase64Url(x), decodeBase64Url(y));
    });
    if (!isJwtType(header["typ"], "dpop+jwt")) throw new Error("expected the type dpop+jwt");
    if (REQUIRED_CLAIMS.some((claim) => payload[claim] === undefined)) {
      throw new Error("a claim is missing");
    }
    return { key: publicKey(header["jwk"]), payload };
  } catch (cause) {
    throw invalid("the proof does not verify", cause);
  }
}

/** Exactly the four public members: a private key in the header is refused too (step 7). */
function publicKey(jwk: unknown): Es256PublicJwk {
  const key = es256PublicJwk(jwk);
  if (key === undefined) throw new Error("expected a P-256 public key in the header");
  return key;
}

/** §4.3 step 9: compared after normalisation, without query and fragment. */
function isSameUri(claimed: unknown, uri: string): boolean {
  if (typeof claimed !== "string" || !URL.canParse(claimed)) return false;
  const [a, b] = [new URL(claimed), new URL(uri)];
  return a.origin === b.origin && a.pathname === b.pathname;
}

function hashOf(crypto: AttestCrypto, token: string): string {
  return encodeBase64Url(crypto.hash("sha256", encodeUtf8(token)));
}

function invalid(message: string, cause?: unknown): StileError {
  return new StileError("ATTEST_PROOF_INVALID", `DPoP proof: ${message}`, { cause });
}
