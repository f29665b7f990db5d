/**
 * Verifies a JWS in its compact form (RFC 7515 §5.2) with ES256 (RFC 7518 §3.4) and nothing else: the one
 * algorithm of results and proofs, on the engine of the caller, at a third of what a general library costs.
 * What the claims mean is the caller's to say, but for the times of a JWT (RFC 7519 §4.1.4, §4.1.5).
 */
import { decodeBase64Url, decodeUtf8, encodeUtf8 } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

export interface Es256Jws {
  readonly header: JsonObject;
  readonly payload: JsonObject;
}

const SIGNATURE_BYTES = 64;

/**
 * @param text hostile; whoever calls bounds its length
 * @param spkiOf DER SubjectPublicKeyInfo of the key, P-256, by a header that is not verified yet
 * @throws Error, whatever is wrong with it
 */
export async function verifyEs256Jws(
  crypto: AttestCrypto,
  text: string,
  spkiOf: (header: JsonObject) => Uint8Array,
): Promise<Es256Jws> {
  const parts = text.split(".");
  const [headerPart = "", payloadPart = "", signaturePart = ""] = parts;
  if (parts.length !== 3) throw new Error("expected three parts");
  const header = jsonObject(headerPart);
  if (header["alg"] !== "ES256") throw new Error("expected ES256");
  // RFC 7515 §4.1.11: an extension that is not understood, and none is, refuses the JWS. `b64` is one.
  if ("crit" in header) throw new Error("expected no critical extension");
  const signature = decodeUnpadded(signaturePart);
  if (signature.length !== SIGNATURE_BYTES) throw new Error("expected R and S");
  const isGenuine = await crypto.verifySignature({
    spki: spkiOf(header),
    scheme: "ECDSA",
    hash: "sha256",
    message: encodeUtf8(text.slice(0, headerPart.length + 1 + payloadPart.length)),
    signature,
  });
  if (!isGenuine) throw new Error("the signature does not verify");
  return { header, payload: jsonObject(payloadPart) };
}

/** RFC 7515 §4.1.9: without regard to case, and to `application/` where there is no other slash. */
export function isJwtType(value: unknown, expected: string): boolean {
  return (
    typeof value === "string" && value.toLowerCase().replace(/^application\//, "") === expected
  );
}

/**
 * Whether the JWT is good at an instant by what it says; a claim that it does not make says nothing.
 * @param toleranceSeconds that clocks may differ by
 */
export function isWithinTimes(
  { exp, iat, nbf }: JsonObject,
  nowMs: number,
  toleranceSeconds = 0,
): boolean {
  const nowSeconds = Math.floor(nowMs / 1_000);
  if (![exp, iat, nbf].every((at) => at === undefined || Number.isFinite(at))) return false;
  const hasEnded = exp !== undefined && Number(exp) <= nowSeconds - toleranceSeconds;
  const hasBegun = nbf === undefined || Number(nbf) <= nowSeconds + toleranceSeconds;
  return hasBegun && !hasEnded;
}

/** Base64url has one spelling here (RFC 7515 §2): no padding, no white space, no left-over bits. */
function decodeUnpadded(text: string): Uint8Array {
  if (text.endsWith("=")) throw new Error("expected no padding");
  return decodeBase64Url(text);
}

function jsonObject(part: string): JsonObject {
  const value: unknown = JSON.parse(decodeUtf8(decodeUnpadded(part)));
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error("expected a JSON object");
  }
  return value as JsonObject;
}
