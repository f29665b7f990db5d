/**
 * Valid tokens without a device: signed directly with the issuer key of a development sidecar, which the
 * test may open because it knows the passphrase. For tests and benchmarks that need many tokens.
 */
import { constants, createHash, type KeyObject, randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openKeystore } from "../../service/keystore/index.ts";
import { encodeAuthenticatorInput, encodeToken, formatAuthorization } from "../../tokens/index.ts";

export interface Mint {
  /** The value of an Authorization header with a fresh token for this encoded TokenChallenge. */
  readonly authorization: (challenge: Uint8Array) => string;
}

/** @param developmentDir the folder given to `prepareDevelopment` */
export async function openMint(developmentDir: string): Promise<Mint> {
  const passphrase = Uint8Array.from(readFileSync(join(developmentDir, "passphrase")));
  const dir = join(developmentDir, "state", "issuer-keys");
  const [stored] = await (await openKeystore({ dir, passphrase })).load();
  if (stored === undefined) throw new Error("the sidecar has no issuer key");
  const { record, privateKey } = stored;
  return {
    authorization: (challenge) => {
      const input = {
        tokenType: record.tokenType,
        nonce: Uint8Array.from(randomBytes(32)),
        challengeDigest: Uint8Array.from(createHash("sha256").update(challenge).digest()),
        tokenKeyId: record.tokenKeyId,
      };
      const authenticator = signPss(privateKey, encodeAuthenticatorInput(input));
      return formatAuthorization(encodeToken({ ...input, authenticator }));
    },
  };
}

function signPss(key: KeyObject, message: Uint8Array): Uint8Array {
  const padding = constants.RSA_PKCS1_PSS_PADDING;
  return Uint8Array.from(sign("sha384", message, { key, padding, saltLength: 48 }));
}
