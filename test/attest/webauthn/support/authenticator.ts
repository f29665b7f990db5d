/**
 * A software authenticator whose every part can be told to be wrong: the ceremony, authenticatorData,
 * the bytes that are signed, the statement. The formats' own statements are in `statements.ts`.
 */
import { createHash, createPublicKey, type KeyObject, sign } from "node:crypto";
import {
  concatBytes,
  decodeHex,
  encodeBase64Url,
  encodeUtf8,
  Writer,
} from "../../../../wire/index.ts";
import {
  DEFAULT_WEBAUTHN_POLICY,
  parseTrustAnchors,
  type RegistrationCheck,
  type WebAuthnPolicy,
} from "../../../../attest/webauthn/index.ts";
import type { AttestCrypto } from "../../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import { type AttestationMap, encodeCbor, pemOf } from "./registration.ts";
import { createSigner, type Signer } from "./x509.ts";

export const crypto: AttestCrypto = createNodeAttestCrypto();
export const NOW: number = Date.UTC(2026, 10, 23);
export const ORIGIN = "https://login.example.org";
export const RP_ID = "example.org";
export const CHALLENGE: Uint8Array = new Uint8Array(32).fill(0xc4);
export const CREDENTIAL_ID: Uint8Array = new Uint8Array(32).fill(0x1d);
export const AAGUID = "f0e1d2c3-b4a5-9687-7869-5a4b3c2d1e0f";

export const sha256 = (bytes: Uint8Array): Uint8Array =>
  Uint8Array.from(createHash("sha256").update(bytes).digest());

/** COSE_Key of a signer's public key. */
export function coseKeyOf(signer: Signer, alg?: number): Map<number, unknown> {
  const jwk = createPublicKey(signer.key).export({ format: "jwk" });
  const bytes = (text: string | undefined): Uint8Array =>
    Uint8Array.from(Buffer.from(text ?? "", "base64url"));
  if (jwk.kty === "RSA") {
    return new Map<number, unknown>([
      [1, 3],
      [3, alg ?? -257],
      [-1, bytes(jwk.n)],
      [-2, bytes(jwk.e)],
    ]);
  }
  if (jwk.kty === "OKP") {
    return new Map<number, unknown>([
      [1, 1],
      [3, alg ?? -8],
      [-1, 6],
      [-2, bytes(jwk.x)],
    ]);
  }
  const isP256 = jwk.crv === "P-256";
  return new Map<number, unknown>([
    [1, 2],
    [3, alg ?? (isP256 ? -7 : -35)],
    [-1, isP256 ? 1 : 2],
    [-2, bytes(jwk.x)],
    [-3, bytes(jwk.y)],
  ]);
}

export interface AuthDataFields {
  readonly rpId?: string;
  readonly flags?: number;
  readonly signCount?: number;
  readonly aaguid?: string;
  readonly credentialId?: Uint8Array;
  /** COSE_Key in CBOR. */
  readonly publicKey?: Uint8Array;
  readonly tail?: Uint8Array;
}

/** UP, UV and AT. */
export const REGISTRATION_FLAGS = 0x45;

export function authDataOf(fields: AuthDataFields): Uint8Array {
  const writer = new Writer()
    .bytes(sha256(encodeUtf8(fields.rpId ?? RP_ID)))
    .u8(fields.flags ?? REGISTRATION_FLAGS)
    .u32(fields.signCount ?? 1);
  if (fields.publicKey !== undefined) {
    writer
      .bytes(decodeHex((fields.aaguid ?? AAGUID).replaceAll("-", "")))
      .vec16(fields.credentialId ?? CREDENTIAL_ID)
      .bytes(fields.publicKey);
  }
  return writer.bytes(fields.tail ?? new Uint8Array()).finish();
}

export function clientDataOf(fields: Readonly<Record<string, unknown>> = {}): Uint8Array {
  const members = {
    type: "webauthn.create",
    challenge: encodeBase64Url(CHALLENGE),
    origin: ORIGIN,
    crossOrigin: false,
    ...fields,
  };
  return encodeUtf8(JSON.stringify(members));
}

/** What a format needs to make its statement. */
export interface StatementContext {
  readonly credential: Signer;
  readonly authData: Uint8Array;
  readonly clientDataHash: Uint8Array;
  /** authData || clientDataHash, or what the plan wants signed in its place. */
  readonly message: Uint8Array;
}

export interface Plan {
  readonly format: string;
  readonly statement: (context: StatementContext) => AttestationMap;
  /** Certificates in DER. */
  readonly anchors?: readonly Uint8Array[];
  readonly credential?: Signer;
  readonly coseKey?: Map<number, unknown>;
  readonly authData?: AuthDataFields;
  readonly clientData?: Uint8Array;
  readonly message?: Uint8Array;
  readonly policy?: Partial<WebAuthnPolicy>;
}

/** A registration that is right but for what the plan says. */
export function registrationOf(plan: Plan): RegistrationCheck {
  const credential = plan.credential ?? createSigner();
  const clientDataJSON = plan.clientData ?? clientDataOf();
  const publicKey = encodeCbor(plan.coseKey ?? coseKeyOf(credential));
  const authData = authDataOf({ publicKey, ...plan.authData });
  const clientDataHash = sha256(clientDataJSON);
  const message = plan.message ?? concatBytes([authData, clientDataHash]);
  const statement = plan.statement({ credential, authData, clientDataHash, message });
  const attestationObject = encodeCbor(
    new Map<string, unknown>([
      ["fmt", plan.format],
      ["attStmt", statement],
      ["authData", authData],
    ]),
  );
  const pem = (plan.anchors ?? []).map(pemOf).join("");
  return {
    response: { rawId: CREDENTIAL_ID, clientDataJSON, attestationObject },
    expected: { challenge: CHALLENGE, origins: [ORIGIN], rpId: RP_ID },
    policy: { ...DEFAULT_WEBAUTHN_POLICY, androidRevocation: "if-given", ...plan.policy },
    trust: { anchors: pem === "" ? {} : { [plan.format]: parseTrustAnchors(pem) } },
    crypto,
    clock: () => NOW,
  };
}

export function signDer(key: KeyObject, message: Uint8Array, hash = "sha256"): Uint8Array {
  const algorithm = key.asymmetricKeyType === "ed25519" ? null : hash;
  return Uint8Array.from(sign(algorithm, message, key));
}
