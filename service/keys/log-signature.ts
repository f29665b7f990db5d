/** The JWS of a directory log: ES256 (RFC 7518 §3.4), with the identifier of the key in its header. */
import { createPublicKey, type KeyObject } from "node:crypto";
import { CompactSign, compactVerify, decodeProtectedHeader, type JWK } from "jose";
import { DIRECTORY_LOG_JWS_TYPE } from "../../tokens/index.ts";
import { type Es256Key, es256KeyId } from "../secrets.ts";

const ALGORITHM = "ES256";

export type LogSigner = (payload: Uint8Array) => Promise<string>;

export function logSigner({ keyId, privateKey }: Es256Key): LogSigner {
  const header = { alg: ALGORITHM, typ: DIRECTORY_LOG_JWS_TYPE, kid: keyId };
  return (payload) => new CompactSign(payload).setProtectedHeader(header).sign(privateKey);
}

/** The payload of a line that this key has signed. @throws where it has not */
export function logVerifier(publicKey: KeyObject): (jws: string) => Promise<Uint8Array> {
  return async (jws) => {
    const { payload, protectedHeader } = await compactVerify(jws, publicKey, {
      algorithms: [ALGORITHM],
    });
    if (protectedHeader.typ !== DIRECTORY_LOG_JWS_TYPE) throw new TypeError("another type of JWS");
    return payload;
  };
}

export function logPublicJwk({ keyId, publicKey }: Es256Key): JWK {
  return { ...publicKey.export({ format: "jwk" }), kid: keyId, use: "sig", alg: ALGORITHM };
}

/**
 * The log's key out of an issuer's JWK set, by the identifier that a line names. The identifier is a digest of
 * the key, so who has remembered it cannot be given another key under its name.
 * @throws TypeError where the set has no such key
 */
export function logKeyOf(jwkSet: unknown, line: string): KeyObject {
  const { kid } = decodeProtectedHeader(line);
  const { keys } = { ...(jwkSet as { readonly keys?: readonly JWK[] }) };
  for (const jwk of Array.isArray(keys) ? keys : []) {
    if (kid === undefined || jwk.kid !== kid || jwk.kty !== "EC" || jwk.crv !== "P-256") continue;
    const publicKey = createPublicKey({ key: { ...jwk }, format: "jwk" });
    if (es256KeyId(publicKey) === kid) return publicKey;
  }
  throw new TypeError("the key set has no key of that identifier");
}
