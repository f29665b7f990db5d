/**
 * Private keys as bytes. Of clearances PKCS #8; of each token type: PKCS #8 for types 0x0002 and 0xDA7A, the serialized scalar for the private
 * types (RFC 9497 §2.1). The bytes exist between KeyObject and seal, and their holder wipes them.
 */
import { createPrivateKey, createPublicKey, createSecretKey, type KeyObject } from "node:crypto";
import { hasPublicMetadata, TOKEN_TYPE_BLIND_RSA } from "../../tokens/index.ts";
import { encodeRsaPublicKey } from "../../tokens/node/index.ts";
import {
  createVoprfEngine,
  importVoprfKey,
  isVoprfTokenType,
  type VoprfEnginePreference,
} from "../../tokens/voprf/index.ts";

export interface KeyMaterial {
  /** Secret bytes. */
  encode(privateKey: KeyObject): Uint8Array;
  /** @param bytes authentic, and not kept. @throws where they are no key */
  decode(tokenType: number, bytes: Uint8Array): KeyObject;
  /** As the directory spells it. @throws RangeError for a key of another type */
  publicKeyOf(tokenType: number, privateKey: KeyObject): Uint8Array;
}

export function createKeyMaterial(voprfEngine: VoprfEnginePreference): KeyMaterial {
  return {
    encode: (privateKey) =>
      privateKey.type === "secret" ? privateKey.export() : encodePkcs8(privateKey),
    decode: (tokenType, bytes) =>
      isVoprfTokenType(tokenType) ? createSecretKey(bytes) : decodePkcs8(bytes),
    publicKeyOf(tokenType, privateKey) {
      if (isVoprfTokenType(tokenType)) {
        if (privateKey.type !== "secret") throw new RangeError("expected a scalar");
        return importVoprfKey(createVoprfEngine(tokenType, voprfEngine), privateKey.export())
          .tokenKey;
      }
      const isRsa = tokenType === TOKEN_TYPE_BLIND_RSA || hasPublicMetadata(tokenType);
      if (!isRsa || privateKey.type !== "private") {
        throw new RangeError("expected an RSA private key of type 0x0002 or 0xDA7A");
      }
      return encodeRsaPublicKey(privateKey);
    },
  };
}

/** ES256 keys, whatever their type is called. The public key is its SubjectPublicKeyInfo. */
export const es256Material: KeyMaterial = {
  encode: encodePkcs8,
  decode: (_type, bytes) => decodePkcs8(bytes),
  publicKeyOf(_type, privateKey) {
    if (privateKey.asymmetricKeyDetails?.namedCurve !== "prime256v1") {
      throw new RangeError("expected a P-256 private key");
    }
    return createPublicKey(privateKey).export({ format: "der", type: "spki" });
  },
};

function encodePkcs8(privateKey: KeyObject): Uint8Array {
  return privateKey.export({ format: "der", type: "pkcs8" });
}

function decodePkcs8(bytes: Uint8Array): KeyObject {
  const der = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
}
