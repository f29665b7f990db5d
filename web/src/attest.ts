/**
 * A person's device proves itself by WebAuthn: registration with attestation the first time, an assertion
 * afterwards. Either is bound to a key that this browser made and cannot export, which then proves each token
 * request (DPoP, RFC 9449).
 */
import { Failure } from "./failure.ts";
import { askJson, type AttestationAnswer, type Ceremony, endpoint, toBase64Url } from "./server.ts";
import type { PageStore, StoredDevice } from "./store.ts";

/** A result that ends this soon is not used any more. */
const MARGIN_MS = 15_000;
const CURVE = { name: "ECDSA", namedCurve: "P-256" } as const;
const UNKNOWN_CREDENTIAL = "urn:stile:problem:attest-webauthn-credential-unknown";
const encoder = new TextEncoder();

export interface Attested {
  readonly device: StoredDevice;
  readonly jwt: string;
}

/** Without a person: a result that is still good, or undefined. */
export async function knownAttestation(store: PageStore): Promise<Attested | undefined> {
  const device = await store.device();
  const result = device?.result;
  if (device === undefined || result === undefined) return undefined;
  return result.expiresAtMs - MARGIN_MS > Date.now() ? { device, jwt: result.jwt } : undefined;
}

/** Asks the person for a touch. Must run in the click that they made. @throws Failure */
export async function attestByTouch(store: PageStore): Promise<Attested> {
  if (!isSupported()) throw new Failure("unsupported");
  const known = (await store.device()) ?? { keyPair: await newKeyPair() };
  try {
    return await ceremony(store, known);
  } catch (error) {
    if (!(error instanceof Failure) || known.credentialId === undefined) throw error;
    const anew = { keyPair: known.keyPair };
    if (error.problem === UNKNOWN_CREDENTIAL) return ceremony(store, anew);
    // The authenticator may have lost it, which looks like a person who said no: the next try registers.
    if (error.kind === "cancelled") await store.putDevice(anew);
    throw error;
  }
}

export function isSupported(): boolean {
  return (
    isSecureContext &&
    typeof PublicKeyCredential === "function" &&
    "parseCreationOptionsFromJSON" in PublicKeyCredential &&
    "locks" in navigator
  );
}

async function ceremony(store: PageStore, device: StoredDevice): Promise<Attested> {
  const { credentialId } = device;
  const jwk = await publicJwk(device.keyPair);
  const { publicKey, session } = await askJson<Ceremony>("/attest/webauthn/options", {
    deviceKey: jwk,
    purpose: credentialId === undefined ? "registration" : "assertion",
    ...(credentialId === undefined ? {} : { credentialId }),
  });
  const credential = await credentialOf(credentialId, publicKey);
  const answer = await askJson<AttestationAnswer>("/attest/webauthn/evidence", {
    session,
    credential: credential.toJSON() as unknown,
  });
  const result = {
    jwt: answer.attestationResult,
    expiresAtMs: Date.now() + answer.expiresIn * 1_000,
  };
  const attested = { ...device, credentialId: credential.id, result };
  await store.putDevice(attested);
  return { device: attested, jwt: result.jwt };
}

async function credentialOf(
  credentialId: string | undefined,
  options: Ceremony["publicKey"],
): Promise<PublicKeyCredential> {
  try {
    const credential =
      credentialId === undefined
        ? await navigator.credentials.create({
            publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options),
          })
        : await navigator.credentials.get({
            publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options),
          });
    if (credential instanceof PublicKeyCredential) return credential;
  } catch (error) {
    // What a browser tells of a refusal is not told apart on purpose: a person may have said no.
    const isUnable = error instanceof DOMException && error.name === "NotSupportedError";
    throw new Failure(isUnable ? "unsupported" : "cancelled");
  }
  throw new Failure("unsupported");
}

/** RFC 9449 §4.2, for one request to this origin. @param nonce that the server has asked for (§8) */
export async function dpopProof(
  { device, jwt }: Attested,
  path: string,
  nonce?: string,
): Promise<string> {
  const header = { typ: "dpop+jwt", alg: "ES256", jwk: await publicJwk(device.keyPair) };
  const ath = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(jwt)));
  const payload = {
    htm: "POST",
    htu: `${endpoint.origin}${path}`,
    iat: Math.floor(Date.now() / 1_000),
    jti: toBase64Url(crypto.getRandomValues(new Uint8Array(16))),
    ath: toBase64Url(ath),
    ...(nonce === undefined ? {} : { nonce }),
  };
  const signed = [header, payload]
    .map((part) => toBase64Url(encoder.encode(JSON.stringify(part))))
    .join(".");
  const algorithm = { name: "ECDSA", hash: "SHA-256" };
  const { privateKey } = device.keyPair;
  const signature = await crypto.subtle.sign(algorithm, privateKey, encoder.encode(signed));
  return `${signed}.${toBase64Url(new Uint8Array(signature))}`;
}

function newKeyPair(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(CURVE, false, ["sign", "verify"]);
}

async function publicJwk({
  publicKey,
}: CryptoKeyPair): Promise<{ kty: string; crv: string; x: string; y: string }> {
  const { x = "", y = "" } = await crypto.subtle.exportKey("jwk", publicKey);
  return { kty: "EC", crv: "P-256", x, y };
}
