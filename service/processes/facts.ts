/** What the keeper gives to workers: the public keys of tokens, and the secrets that each of them needs. */
import { createPrivateKey } from "node:crypto";
import type { IssuerKeyRecord } from "../../tokens/index.ts";
import { decodeBase64Url, encodeBase64Url } from "../../wire/index.ts";
import type { StoredKey } from "../keystore/index.ts";
import type { SidecarSecrets } from "../secrets.ts";

/** These outlive a keeper; a worker that has others is of no use any more. */
export type WorkerSecrets = Pick<SidecarSecrets, "challengeSecret">;

export interface KeeperFacts {
  readonly records: readonly IssuerKeyRecord[];
  readonly secrets: WorkerSecrets;
  readonly clearanceKeys: readonly StoredKey[];
}

interface RecordText extends Omit<IssuerKeyRecord, "publicKeySpki" | "tokenKeyId"> {
  readonly tokenKeyId: string;
  readonly publicKeySpki: string;
}

/** As JSON; binary fields are base64url. */
interface FactsText {
  readonly records: readonly RecordText[];
  readonly challengeSecret: string;
  /** Private keys as PKCS#8. */
  readonly clearanceKeys: readonly {
    readonly record: RecordText;
    readonly privateKey: string;
  }[];
}

export function factsToJson({ clearanceKeys, records, secrets }: KeeperFacts): FactsText {
  return {
    records: records.map((record) => recordToText(record)),
    challengeSecret: encodeBase64Url(secrets.challengeSecret),
    clearanceKeys: clearanceKeys.map(({ privateKey, record }) => ({
      record: recordToText(record),
      privateKey: encodeBase64Url(privateKey.export({ format: "der", type: "pkcs8" })),
    })),
  };
}

/** @param json of {@link factsToJson}, in a process of the same start */
export function factsFromJson(json: unknown): KeeperFacts {
  const text = json as FactsText;
  return {
    records: text.records.map((record) => recordOf(record)),
    secrets: { challengeSecret: decodeBase64Url(text.challengeSecret, "challenge secret") },
    clearanceKeys: text.clearanceKeys.map(({ privateKey, record }) => ({
      record: recordOf(record),
      privateKey: createPrivateKey({
        key: Buffer.from(decodeBase64Url(privateKey, "clearance key")),
        format: "der",
        type: "pkcs8",
      }),
    })),
  };
}

function recordToText(record: IssuerKeyRecord): RecordText {
  return {
    ...record,
    tokenKeyId: encodeBase64Url(record.tokenKeyId),
    publicKeySpki: encodeBase64Url(record.publicKeySpki),
  };
}

function recordOf(text: RecordText): IssuerKeyRecord {
  return {
    ...text,
    tokenKeyId: decodeBase64Url(text.tokenKeyId, "key id"),
    publicKeySpki: decodeBase64Url(text.publicKeySpki, "public key"),
  };
}

export function haveSameSecrets(a: WorkerSecrets, b: WorkerSecrets): boolean {
  return Buffer.compare(a.challengeSecret, b.challengeSecret) === 0;
}
