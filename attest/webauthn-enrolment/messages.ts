/**
 * The JSON bodies of WebAuthn attestation (docs/architecture.md, "Attestation, on the wire"). What is parsed
 * here has the right form and sizes; nothing in it has been verified.
 */
import { encodeBase64Url } from "../../wire/index.ts";
import {
  invalidMessage,
  readBytes,
  readObject,
  readText,
  readWord,
} from "../enrolment/json-fields.ts";
import { type Es256PublicJwk, es256PublicJwk } from "../result/attestation-result.ts";
import type { CeremonyPurpose } from "./sessions.ts";

/** WebAuthn Level 3 §6.5.1: credentialIdLength. */
const MAX_CREDENTIAL_ID_BYTES = 1_023;
const SESSION_FORM = /^[A-Za-z0-9_-]{1,64}$/;
const PURPOSES = ["registration", "assertion"] as const;

/** Step 1, browser to attester. */
export type CeremonyRequest = { readonly deviceKey: Es256PublicJwk } & (
  | { readonly purpose: "registration" }
  | { readonly purpose: "assertion"; readonly credentialId: Uint8Array }
);

/** Step 1, attester to browser. */
export interface CeremonyOptions {
  readonly session: string;
  /** Seconds. */
  readonly expiresIn: number;
  /** PublicKeyCredentialCreationOptionsJSON or PublicKeyCredentialRequestOptionsJSON (§5.1.8, §5.1.9). */
  readonly publicKey: object;
}

/** Step 2, browser to attester. */
export interface CeremonyEvidence {
  readonly session: string;
  /** RegistrationResponseJSON or AuthenticationResponseJSON; hostile, read by what the session is for. */
  readonly credential: unknown;
}

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseCeremonyRequest(json: unknown): CeremonyRequest {
  const body = readObject(json, "body", ["deviceKey", "purpose"], ["credentialId"]);
  const deviceKey = readDeviceKey(body.deviceKey);
  const purpose: CeremonyPurpose = readWord(body.purpose, "purpose", PURPOSES);
  if (purpose === "registration") {
    if (body.credentialId === undefined) return { deviceKey, purpose };
    return invalidMessage("credentialId", "none with a registration");
  }
  const credentialId = readBytes(body.credentialId, "credentialId", MAX_CREDENTIAL_ID_BYTES);
  if (credentialId.length === 0) return invalidMessage("credentialId", "one byte or more");
  return { deviceKey, purpose, credentialId };
}

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseCeremonyEvidence(json: unknown): CeremonyEvidence {
  const body = readObject(json, "body", ["session", "credential"]);
  return {
    session: readText(body.session, "session", SESSION_FORM),
    credential: body.credential,
  };
}

function readDeviceKey(json: unknown): Es256PublicJwk {
  const jwk = es256PublicJwk(json);
  if (jwk === undefined) return invalidMessage("deviceKey", "a P-256 public key as a JWK");
  for (const coordinate of [jwk.x, jwk.y]) {
    // One spelling: the thumbprint is over the text.
    readBytes(coordinate, "deviceKey", 32);
  }
  return jwk;
}

export interface CeremonySettings {
  readonly rpId: string;
  /** Milliseconds that the browser waits for the person. */
  readonly timeoutMs: number;
  readonly userVerification: "required" | "optional";
  /** Formats, preferred first. */
  readonly formats: readonly string[];
  /** COSE algorithms, preferred first. */
  readonly algorithms: readonly number[];
}

/** PublicKeyCredentialCreationOptionsJSON (WebAuthn Level 3 §5.1.8). @param userId 1 to 64 random bytes */
export function creationOptions(
  settings: CeremonySettings,
  challenge: Uint8Array,
  userId: Uint8Array,
): object {
  return {
    rp: { id: settings.rpId, name: settings.rpId },
    // There is no account: a random handle, under a name that says nothing of anyone (§14.6.1).
    user: { id: encodeBase64Url(userId), name: "this device", displayName: "this device" },
    challenge: encodeBase64Url(challenge),
    pubKeyCredParams: settings.algorithms.map((alg) => ({ type: "public-key", alg })),
    timeout: settings.timeoutMs,
    excludeCredentials: [],
    authenticatorSelection: {
      residentKey: "discouraged",
      requireResidentKey: false,
      userVerification: requirementOf(settings),
    },
    attestation: "direct",
    attestationFormats: settings.formats,
  };
}

/** PublicKeyCredentialRequestOptionsJSON (WebAuthn Level 3 §5.1.9). */
export function requestOptions(
  settings: CeremonySettings,
  challenge: Uint8Array,
  credentialId: Uint8Array,
): object {
  return {
    challenge: encodeBase64Url(challenge),
    timeout: settings.timeoutMs,
    rpId: settings.rpId,
    allowCredentials: [{ type: "public-key", id: encodeBase64Url(credentialId) }],
    userVerification: requirementOf(settings),
  };
}

function requirementOf({ userVerification }: CeremonySettings): string {
  return userVerification === "required" ? "required" : "preferred";
}
