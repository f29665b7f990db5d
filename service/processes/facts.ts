/** What the keeper gives to workers: the public keys of tokens, and two secrets that each of them needs. */
import { createPrivateKey, createPublicKey } from "node:crypto";
import type { IssuerKeyRecord } from "../../tokens/index.ts";
import { decodeBase64Url, encodeBase64Url } from "../../wire/index.ts";
import { es256KeyId, type SidecarSecrets } from "../secrets.ts";

export type WorkerSecrets = Pick<SidecarSecrets, "challengeSecret" | "clearanceKey">;

export interface KeeperFacts {
  readonly records: readonly IssuerKeyRecord[];
  readonly secrets: WorkerSecrets;
}

interface RecordText extends Omit<IssuerKeyRecord, "publicKeySpki" | "tokenKeyId"> {
  readonly tokenKeyId: string;
  readonly publicKeySpki: string;
}

/** As JSON; binary fields are base64url. */
interface FactsText {
  readonly records: readonly RecordText[];
  readonly challengeSecret: string;
  /** PKCS#8. */
  readonly clearanceKey: string;
}

export function factsToJson({ records, secrets }: KeeperFacts): FactsText {
  const { challengeSecret, clearanceKey } = secrets;
  const pkcs8 = clearanceKey.privateKey.export({ format: "der", type: "pkcs8" });
  return {
    records: records.map((record) => ({
      ...record,
      tokenKeyId: encodeBase64Url(record.tokenKeyId),
      publicKeySpki: encodeBase64Url(record.publicKeySpki),
    })),
    challengeSecret: encodeBase64Url(challengeSecret),
    clearanceKey: encodeBase64Url(pkcs8),
  };
}

/** @param json of {@link factsToJson}, in a process of the same start */
export function factsFromJson(json: unknown): KeeperFacts {
  const text = json as FactsText;
  const privateKey = createPrivateKey({
    key: Buffer.from(decodeBase64Url(text.clearanceKey, "clearance key")),
    format: "der",
    type: "pkcs8",
  });
  const publicKey = createPublicKey(privateKey);
  return {
    records: text.records.map((record) => ({
      ...record,
      tokenKeyId: decodeBase64Url(record.tokenKeyId, "token key id"),
      publicKeySpki: decodeBase64Url(record.publicKeySpki, "token key"),
    })),
    secrets: {
      challengeSecret: decodeBase64Url(text.challengeSecret, "challenge secret"),
      clearanceKey: { privateKey, publicKey, keyId: es256KeyId(publicKey) },
    },
  };
}

export function haveSameSecrets(a: WorkerSecrets, b: WorkerSecrets): boolean {
  const isSameChallenge = Buffer.compare(a.challengeSecret, b.challengeSecret) === 0;
  return isSameChallenge && a.clearanceKey.keyId === b.clearanceKey.keyId;
}
