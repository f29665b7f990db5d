/** An agent that signs its requests by hand, as RFC 9421 says it and without our code. */
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";

export interface AgentKeys {
  readonly privateKey: KeyObject;
  /** JWK set of its public key. */
  readonly jwks: string;
}

export function newAgentKeys(kid: string): AgentKeys {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const jwk = { ...publicKey.export({ format: "jwk" }), kid };
  return { privateKey, jwks: JSON.stringify({ keys: [jwk] }) };
}

export interface SignedFields {
  /** With its port. */
  readonly host: string;
  readonly path: string;
  readonly key: KeyObject;
  readonly kid: string;
  readonly createdMs: number;
  readonly method?: string;
  readonly nonce?: string;
}

export function signedHeaders(fields: SignedFields): Record<string, string> {
  const { createdMs, host, key, kid, method = "GET", nonce = String(Math.random()), path } = fields;
  const created = Math.floor(createdMs / 1_000);
  const params = `("@authority" "@method" "@target-uri");created=${created};keyid="${kid}";nonce="${nonce}"`;
  const base = [
    `"@authority": ${host}`,
    `"@method": ${method}`,
    `"@target-uri": https://${host}${path}`,
    `"@signature-params": ${params}`,
  ].join("\n");
  const bytes = sign(null, Buffer.from(base), key).toString("base64");
  return { "signature-input": `sig1=${params}`, signature: `sig1=:${bytes}:` };
}
