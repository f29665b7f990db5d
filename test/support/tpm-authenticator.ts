/**
 * A WebAuthn authenticator whose keys live in a (software) TPM, with real `tpm` attestation: an AIK that
 * a CA of its own certified with the purpose 2.23.133.8.3, credential keys made in the TPM, and
 * TPM2_Certify over SHA-256(authenticatorData || clientDataHash) (WebAuthn Level 3 §8.3).
 * It plays the browser too: it writes clientDataJSON and answers as `toJSON()` does.
 * A relying party that cannot read a public area with a signing scheme cannot read these.
 */
import { createHash, randomBytes } from "node:crypto";
import { encodeSpki } from "../../attest/structures/spki.ts";
import { openTpm, type Tpm, type TpmKey } from "../../attest/tss2/index.ts";
import {
  computeName,
  encodeTpm2bPublic,
  hashRow,
  curveRow,
  parseTpm2bPublic,
  parseTpmtSignature,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import {
  concatBytes,
  constantTimeEqual,
  encodeBase64Url,
  encodeUtf8,
  Writer,
} from "../../wire/index.ts";
import { der, seq } from "../attest/support/der-certificate.ts";
import { encodeCbor, pemOf } from "../attest/webauthn/support/registration.ts";
import { AIK_EXTENSIONS } from "../attest/webauthn/support/statements.ts";
import { createTestCa } from "../attest/webauthn/support/x509.ts";

/** fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign. */
const SIGNING = 0x0004_0472;
const RESTRICTED = 0x0001_0000;
const [SHA256, P256] = [hashRow(0x000b)!, curveRow(0x0003)!];
/** UP, UV, and AT in a registration. */
const FLAGS = { create: 0x45, get: 0x05 } as const;

export interface Ceremony {
  readonly challenge: Uint8Array;
  readonly origin: string;
  readonly rpId: string;
}

export interface TpmAuthenticatorOptions {
  /** `swtpm:path=…`. The TPM must have two free slots for transient keys. */
  readonly tcti: string;
  /** Default "ecc"; Windows has "rsa", which takes a second to make. */
  readonly aik?: "rsa" | "ecc";
  /** Lower-case UUID. Default: that of Windows Hello with a hardware TPM. */
  readonly aaguid?: string;
}

export interface TpmAuthenticator {
  /** Of the CA that certified the AIK. */
  readonly rootPem: string;
  readonly aaguid: string;
  /** RegistrationResponseJSON with a new credential. */
  register(ceremony: Ceremony): Promise<Record<string, unknown>>;
  /** AuthenticationResponseJSON by the credential that was registered last. */
  authenticate(ceremony: Ceremony): Promise<Record<string, unknown>>;
  close(): Promise<void>;
}

export async function openTpmAuthenticator(
  options: TpmAuthenticatorOptions,
): Promise<TpmAuthenticator> {
  const { aaguid = "08987058-cadc-4b81-b6e1-30de50dcbe96" } = options;
  const tpm = await openTpm({ tcti: options.tcti, maxPendingCalls: 8 });
  const aik = await tpm.createPrimary("endorsement", aikTemplate(options.aik ?? "ecc"));
  const ca = createTestCa();
  const leaf = ca.leaf({
    spki: encodeSpki(parseTpm2bPublic(aik.publicArea)),
    subject: seq(),
    extensions: AIK_EXTENSIONS,
  });
  const x5c = [leaf, ca.intermediate];
  let credential: TpmKey | undefined;
  let signCount = 0;
  return {
    rootPem: pemOf(ca.root),
    aaguid,
    async register(ceremony) {
      if (credential !== undefined) await tpm.flush(credential);
      credential = await tpm.createPrimary("owner", credentialTemplate());
      signCount += 1;
      const authData = authDataOf(ceremony, signCount, { credential, aaguid });
      return register(tpm, aik, x5c, credential, authData, ceremony);
    },
    async authenticate(ceremony) {
      if (credential === undefined) throw new Error("no credential was registered");
      signCount += 1;
      return authenticate(tpm, credential, authDataOf(ceremony, signCount), ceremony);
    },
    async close() {
      for (const key of [credential, aik]) if (key !== undefined) await tpm.flush(key);
      await tpm.close();
    },
  };
}

async function register(
  tpm: Tpm,
  aik: TpmKey,
  x5c: readonly Uint8Array[],
  credential: TpmKey,
  authData: Uint8Array,
  ceremony: Ceremony,
): Promise<Record<string, unknown>> {
  const clientDataJSON = clientDataOf("webauthn.create", ceremony);
  const extraData = sha256(concatBytes([authData, sha256(clientDataJSON)]));
  const { attest, signature } = await tpm.certify(credential, aik, extraData);
  const { alg, sig } = webauthnSignature(signature);
  const attestationObject = encodeCbor(
    new Map<string, unknown>([
      ["fmt", "tpm"],
      [
        "attStmt",
        new Map<string, unknown>([
          ["alg", alg],
          ["sig", sig],
          ["ver", "2.0"],
          ["x5c", x5c],
          // TPMT_PUBLIC: without the size field.
          ["pubArea", credential.publicArea.subarray(2)],
          ["certInfo", attest],
        ]),
      ],
      ["authData", authData],
    ]),
  );
  return credentialJson(credential, { clientDataJSON, attestationObject });
}

async function authenticate(
  tpm: Tpm,
  credential: TpmKey,
  authenticatorData: Uint8Array,
  ceremony: Ceremony,
): Promise<Record<string, unknown>> {
  const clientDataJSON = clientDataOf("webauthn.get", ceremony);
  const digest = sha256(concatBytes([authenticatorData, sha256(clientDataJSON)]));
  const { sig: signature } = webauthnSignature(await tpm.sign(credential, digest));
  return credentialJson(credential, { clientDataJSON, authenticatorData, signature });
}

function credentialJson(
  credential: TpmKey,
  members: Readonly<Record<string, Uint8Array>>,
): Record<string, unknown> {
  const id = encodeBase64Url(credential.name);
  const response = Object.fromEntries(
    Object.entries(members).map(([name, bytes]) => [name, encodeBase64Url(bytes)]),
  );
  return {
    id,
    rawId: id,
    type: "public-key",
    authenticatorAttachment: "platform",
    clientExtensionResults: {},
    response,
  };
}

/** The credential id is the key's Name. */
function authDataOf(
  { rpId }: Ceremony,
  signCount: number,
  created?: { readonly credential: TpmKey; readonly aaguid: string },
): Uint8Array {
  const writer = new Writer()
    .bytes(sha256(encodeUtf8(rpId)))
    .u8(created === undefined ? FLAGS.get : FLAGS.create)
    .u32(signCount);
  if (created === undefined) return writer.finish();
  const area = parseTpm2bPublic(created.credential.publicArea);
  // The credential id must be what a verifier computes, too.
  if (!constantTimeEqual(computeName(area, createNodeAttestCrypto()), created.credential.name)) {
    throw new Error("the TPM computed another Name");
  }
  if (area.type !== 0x0023) throw new Error("the credential key is not on a curve");
  const coseKey = new Map<number, unknown>([
    [1, 2],
    [3, -7],
    [-1, 1],
    [-2, leftPad(area.unique.x)],
    [-3, leftPad(area.unique.y)],
  ]);
  return writer
    .bytes(Uint8Array.from(Buffer.from(created.aaguid.replaceAll("-", ""), "hex")))
    .vec16(created.credential.name)
    .bytes(encodeCbor(coseKey))
    .finish();
}

function clientDataOf(type: string, { challenge, origin }: Ceremony): Uint8Array {
  const members = { type, challenge: encodeBase64Url(challenge), origin, crossOrigin: false };
  return encodeUtf8(JSON.stringify(members));
}

/** TPMT_SIGNATURE to the form of §6.5.5, which every relying party reads. */
function webauthnSignature(bytes: Uint8Array): { readonly alg: number; readonly sig: Uint8Array } {
  const signature = parseTpmtSignature(bytes);
  if (signature.sigAlg !== 0x0018) return { alg: -257, sig: signature.sig };
  const integers = [signature.signatureR, signature.signatureS].map((part) => {
    const start = part.findIndex((byte) => byte !== 0);
    const trimmed = part.subarray(start);
    return der(
      0x02,
      (trimmed[0] ?? 0) >= 0x80 ? concatBytes([Uint8Array.of(0), trimmed]) : trimmed,
    );
  });
  return { alg: -7, sig: seq(...integers) };
}

function aikTemplate(type: "rsa" | "ecc"): Uint8Array {
  const common = {
    nameAlg: SHA256,
    objectAttributes: SIGNING | RESTRICTED,
    authPolicy: new Uint8Array(),
    symmetric: undefined,
  };
  if (type === "rsa") {
    const scheme = { scheme: 0x0014, hashAlg: SHA256 };
    const unique = new Uint8Array();
    return encodeTpm2bPublic({
      ...common,
      type: 0x0001,
      scheme,
      keyBits: 2048,
      exponent: 0,
      unique,
    });
  }
  const scheme = { scheme: 0x0018, hashAlg: SHA256 };
  const unique = { x: new Uint8Array(), y: new Uint8Array() };
  return encodeTpm2bPublic({ ...common, type: 0x0023, scheme, curve: P256, unique });
}

/** A fresh `unique` makes each primary another key. */
function credentialTemplate(): Uint8Array {
  return encodeTpm2bPublic({
    type: 0x0023,
    nameAlg: SHA256,
    objectAttributes: SIGNING,
    authPolicy: new Uint8Array(),
    symmetric: undefined,
    scheme: { scheme: 0x0018, hashAlg: SHA256 },
    curve: P256,
    unique: { x: Uint8Array.from(randomBytes(32)), y: new Uint8Array(32) },
  });
}

function leftPad(coordinate: Uint8Array): Uint8Array {
  return concatBytes([new Uint8Array(32 - coordinate.length), coordinate]);
}

function sha256(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(bytes).digest());
}
