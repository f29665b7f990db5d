/**
 * The sidecar's own secrets, each made at first start and sealed at rest: what signs attestation results
 * and directory logs, what challenges and pseudonyms are derived from.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from "node:crypto";
import { readFileSync } from "node:fs";
import { StileError } from "../wire/index.ts";
import type { Config } from "./config/index.ts";
import { openSecrets, type Sealer } from "./keystore/index.ts";

/** An ES256 key pair and the identifier that goes into `kid`. */
export interface Es256Key {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  /** SHA-256 of the SPKI, cut to 16 bytes, base64url. */
  readonly keyId: string;
}

export interface SidecarSecrets {
  readonly challengeSecret: Uint8Array;
  readonly pseudonymSecret: Uint8Array;
  readonly resultKey: Es256Key;
  /** Of an installation whose clearance key had no life of its own: it goes into the store of those that do. */
  readonly lastingClearanceKey: {
    readonly find: () => Promise<KeyObject | undefined>;
    readonly remove: () => Promise<void>;
  };
  /** Signs the log of the issuer's directories. */
  readonly directoryLogKey: Es256Key;
  /** Of the account at an ACME server, made when it is first asked for: each server sees a key of its own. */
  readonly acmeAccountKey: (directoryUrl: string) => Promise<Es256Key>;
}

const SECRET_BYTES = 32;

/** @throws `TOKEN_KEY_STORE_INVALID` where the passphrase does not open what is there */
export async function loadSidecarSecrets(
  dir: string,
  passphrase: Uint8Array | Sealer,
): Promise<SidecarSecrets> {
  const secrets = await openSecrets({ dir, passphrase });
  const random = (): Uint8Array => randomBytes(SECRET_BYTES);
  const es256 = async (name: string): Promise<Es256Key> =>
    es256KeyOf(await secrets.getOrCreate(name, newEs256Key));
  return {
    challengeSecret: await secrets.getOrCreate("challenge", random),
    pseudonymSecret: await secrets.getOrCreate("pseudonym", random),
    resultKey: await es256("attestation-result"),
    lastingClearanceKey: {
      find: async () => {
        const pkcs8 = await secrets.find("clearance");
        return pkcs8 === undefined ? undefined : es256KeyOf(pkcs8).privateKey;
      },
      remove: () => secrets.remove("clearance"),
    },
    directoryLogKey: await es256("directory-log"),
    acmeAccountKey: (directoryUrl) => es256(`acme-${shortDigest(directoryUrl)}`),
  };
}

/**
 * What all keys at rest are sealed under.
 * @throws `SERVICE_CONFIG_INVALID`; `TOKEN_KEY_STORE_INVALID` where the TPM does not give it back
 */
export async function openPassphrase(
  config: Pick<Config, "passphraseFile" | "tpmSealing" | "stateDir">,
): Promise<Uint8Array> {
  if (config.tpmSealing === undefined) return readPassphrase(config.passphraseFile ?? "");
  // With it come the libraries of the TPM, which only this setting needs.
  const { unsealPassphrase } = await import("./keystore/tpm-passphrase.ts");
  return unsealPassphrase(config.stateDir, config.tpmSealing);
}

/** The content of the passphrase file without the line end that editors leave. */
export function readPassphrase(path: string): Uint8Array {
  let text: string;
  try {
    text = readFileSync(path, "utf8").replace(/\r?\n$/, "");
  } catch (cause) {
    throw new StileError("SERVICE_CONFIG_INVALID", `cannot read passphraseFile ${path}`, { cause });
  }
  const passphrase = new TextEncoder().encode(text);
  if (passphrase.length < 8) {
    throw new StileError("SERVICE_CONFIG_INVALID", "passphraseFile: expected 8 bytes or more");
  }
  return passphrase;
}

function shortDigest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function newEs256Key(): Uint8Array {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ format: "der", type: "pkcs8" });
}

function es256KeyOf(pkcs8: Uint8Array): Es256Key {
  const privateKey = createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" });
  const publicKey = createPublicKey(privateKey);
  return { privateKey, publicKey, keyId: es256KeyId(publicKey) };
}

/** SHA-256 of the SPKI, cut to 16 bytes, base64url. */
export function es256KeyId(publicKey: KeyObject): string {
  const spki = publicKey.export({ format: "der", type: "spki" });
  return createHash("sha256").update(spki).digest().subarray(0, 16).toString("base64url");
}
