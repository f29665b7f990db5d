/**
 * MakeCredential without a TPM: TPM 2.0 Library Part 1 §24 "Credential Protection", Part 3 §12.6.
 * The EK wraps a secret for the object whose Name is given: only the TPM that holds the EK's private
 * part and an object of exactly that Name gets it out (C1, C3). RSA and ECC EKs, AES in CFB mode.
 */
import { concatBytes, StileError, Writer } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { type HashRow, TPM_ALG_RSA } from "../structures/constants.ts";
import type { TpmtPublic, TpmtPublicEcc, TpmtPublicRsa } from "../structures/public.ts";
import { encodeSpki, paddedPoint } from "../structures/spki.ts";
import { kdfa, kdfe } from "./kdf.ts";

export interface MakeCredentialOptions {
  readonly crypto: AttestCrypto;
  /** CSPRNG. */
  readonly random: (length: number) => Uint8Array;
  /** Verified to be an EK: a restricted decryption key with AES-CFB. */
  readonly ek: TpmtPublic;
  /** Name of the object to be activated. */
  readonly name: Uint8Array;
  /** From a CSPRNG; 16 bytes (C2) up to the size of the EK's nameAlg digest, which is all that the TPM gives back. */
  readonly secret: Uint8Array;
}

export interface MadeCredential {
  /** TPM2B_ID_OBJECT. */
  readonly credentialBlob: Uint8Array;
  /** TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array;
}

const MIN_SECRET_BYTES = 16;
const EMPTY = new Uint8Array();
/** The label goes into OAEP with its terminating zero (Part 1 B.10.3). */
const OAEP_LABEL: Uint8Array = Uint8Array.from("IDENTITY\0", (letter) => letter.charCodeAt(0));

/** @throws `ATTEST_STRUCTURE_INVALID` where the EK cannot be encrypted to; RangeError for the secret */
export async function makeCredential(options: MakeCredentialOptions): Promise<MadeCredential> {
  const { crypto, ek, secret } = options;
  if (secret.length < MIN_SECRET_BYTES || secret.length > ek.nameAlg.digestBytes) {
    throw new RangeError("secret: expected 16 bytes up to the size of the EK's nameAlg digest");
  }
  if (ek.symmetric === undefined) throw unusable("expected a symmetric cipher");
  const { seed, encryptedSecret } = await shareSeed(options);
  const storageKey = kdfa(
    crypto,
    ek.nameAlg,
    seed,
    "STORAGE",
    options.name,
    EMPTY,
    ek.symmetric.keyBits,
  );
  const credential = new Writer().vec16(secret).finish();
  const encIdentity = crypto.aesCfbEncrypt(storageKey, credential);
  const integrityBits = ek.nameAlg.digestBytes * 8;
  const integrityKey = kdfa(crypto, ek.nameAlg, seed, "INTEGRITY", EMPTY, EMPTY, integrityBits);
  const outer = concatBytes([encIdentity, options.name]);
  const integrity = crypto.hmac(ek.nameAlg.name, integrityKey, outer);
  const idObject = new Writer().vec16(integrity).bytes(encIdentity).finish();
  return {
    credentialBlob: new Writer().vec16(idObject).finish(),
    encryptedSecret: new Writer().vec16(encryptedSecret).finish(),
  };
}

interface SharedSeed {
  readonly seed: Uint8Array;
  readonly encryptedSecret: Uint8Array;
}

async function shareSeed(options: MakeCredentialOptions): Promise<SharedSeed> {
  const { ek } = options;
  try {
    return await (ek.type === TPM_ALG_RSA ? sealSeed(options, ek) : agreeOnSeed(options, ek));
  } catch (cause) {
    if (cause instanceof StileError) throw cause;
    // The engine refuses keys that are none: a point off the curve, a modulus that is no modulus.
    throw unusable("expected a usable public key", cause);
  }
}

/** Part 1 B.10.4: a random seed under OAEP with the EK's nameAlg. */
async function sealSeed(options: MakeCredentialOptions, ek: TpmtPublicRsa): Promise<SharedSeed> {
  const seed = options.random(ek.nameAlg.digestBytes);
  const { crypto } = options;
  const sealed = await crypto.rsaOaepEncrypt(encodeSpki(ek), ek.nameAlg.name, OAEP_LABEL, seed);
  return { seed, encryptedSecret: sealed };
}

/** Part 1 C.6.4: one-pass ECDH, the seed by KDFe, the ephemeral point as the encrypted secret. */
async function agreeOnSeed(options: MakeCredentialOptions, ek: TpmtPublicEcc): Promise<SharedSeed> {
  const peer = paddedPoint(ek);
  const { ephemeral, sharedX } = await options.crypto.ecdhWithEphemeral(ek.curve.name, peer);
  const seed = seedFromEcdh(options.crypto, ek.nameAlg, sharedX, ephemeral.x, peer.x);
  return { seed, encryptedSecret: new Writer().vec16(ephemeral.x).vec16(ephemeral.y).finish() };
}

function seedFromEcdh(
  crypto: AttestCrypto,
  hash: HashRow,
  z: Uint8Array,
  ephemeralX: Uint8Array,
  ekX: Uint8Array,
): Uint8Array {
  return kdfe(crypto, hash, z, "IDENTITY", ephemeralX, ekX, hash.digestBytes * 8);
}

function unusable(message: string, cause?: unknown): StileError {
  return new StileError("ATTEST_STRUCTURE_INVALID", `EK public area: ${message}`, { cause });
}
