/** The engine of Node: `AttestCrypto` on node:crypto. */
import {
  constants,
  createCipheriv,
  createECDH,
  hash,
  createHmac,
  createPublicKey,
  type KeyObject,
  publicEncrypt,
  verify,
} from "node:crypto";
import { concatBytes } from "../../wire/index.ts";
import type { AttestCrypto, EcdhResult, SignatureCheck } from "../crypto.ts";
import type { CurveName } from "../structures/constants.ts";

const OPENSSL_CURVE = {
  "P-256": "prime256v1",
  "P-384": "secp384r1",
  "P-521": "secp521r1",
} as const;
/** An uncompressed point (SEC 1 §2.3.3). */
const UNCOMPRESSED = 0x04;

export function createNodeAttestCrypto(): AttestCrypto {
  return {
    hash: (name, data) => bytesOf(hash(name, data, "buffer")),
    hmac: (name, key, data) => bytesOf(createHmac(name, key).update(data).digest()),
    aesCfbEncrypt: (key, data) => {
      const cipher = createCipheriv(`aes-${key.length * 8}-cfb`, key, new Uint8Array(16));
      return concatBytes([cipher.update(data), cipher.final()]);
    },
    rsaOaepEncrypt: (spki, oaepHash, label, message) => {
      const padding = constants.RSA_PKCS1_OAEP_PADDING;
      const key = importSpki(spki);
      return bytesOf(publicEncrypt({ key, padding, oaepHash, oaepLabel: label }, message));
    },
    ecdhWithEphemeral,
    verifySignature: (check) => {
      try {
        return verifyWith(importSpki(check.spki), check);
      } catch {
        // A key or signature that OpenSSL cannot read verifies nothing.
        return false;
      }
    },
  };
}

const KEY_TYPE = {
  ECDSA: "ec",
  Ed25519: "ed25519",
  "RSASSA-PKCS1-v1_5": "rsa",
  "RSASSA-PSS": "rsa",
} as const;

function verifyWith(key: KeyObject, check: SignatureCheck): boolean {
  // OpenSSL goes by the key: it would check an ECDSA signature where the caller said RSA.
  if (key.asymmetricKeyType !== KEY_TYPE[check.scheme]) return false;
  if (check.scheme === "ECDSA") {
    return verify(check.hash, check.message, { key, dsaEncoding: "ieee-p1363" }, check.signature);
  }
  if (check.scheme === "Ed25519") return verify(null, check.message, key, check.signature);
  const padding =
    check.scheme === "RSASSA-PSS" ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
  // A TPM's PSS salt is as long as the key allows or as the digest, by its version: read it from the padding.
  const saltLength = constants.RSA_PSS_SALTLEN_AUTO;
  return verify(check.hash, check.message, { key, padding, saltLength }, check.signature);
}

function ecdhWithEphemeral(
  curve: CurveName,
  peer: { readonly x: Uint8Array; readonly y: Uint8Array },
): EcdhResult {
  const ecdh = createECDH(OPENSSL_CURVE[curve]);
  const own = bytesOf(ecdh.generateKeys());
  const length = (own.length - 1) / 2;
  const sharedX = bytesOf(
    ecdh.computeSecret(concatBytes([Uint8Array.of(UNCOMPRESSED), peer.x, peer.y])),
  );
  return {
    ephemeral: { x: own.subarray(1, 1 + length), y: own.subarray(1 + length) },
    sharedX,
  };
}

function importSpki(spki: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
}

/** A Buffer may be a view of Node's pool: what leaves the engine owns its memory. */
function bytesOf(buffer: Buffer): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(buffer);
}
